"""Optimisers: how a descent moves pictures, given the gradients of their losses."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import List, Mapping, Optional, Protocol, Sequence, Union

import numpy as np

from fmi.device.mxnet import NDArray, mx
from fmi.losses import Loss, inner_products, squared_length
from fmi.networks.base import Truncated
from fmi.settings import Settings
from fmi.whitening import Whitening, measured

__all__ = [
    "Array",
    "LBFGS",
    "Momentum",
    "Optimiser",
    "kept",
    "learning_rate",
    "momentum",
    "optimiser",
    "scaled",
    "update",
]


Array = Union[NDArray, np.ndarray]


class Optimiser(Protocol):
    """Moves a batch of pictures, each independently of the others."""

    def move(self, image: NDArray, losses: np.ndarray, gradient: NDArray, step: int, /) -> NDArray:
        """Return the pictures whose gradient is needed next, or after the last step the result.

        Parameters
        ----------
        image
            The pictures (B, 3, H, W) that were returned last, or the initial ones.
        losses
            Their losses (B,).
        gradient
            The gradients of these losses, (B, 3, H, W).
        step
            Number of the step, starting at 1.
        """

    def reached(self, losses: np.ndarray) -> np.ndarray:
        """Return the losses (B,) that are reached, given those of the last pictures."""

    def take(self, rows: Sequence[int]) -> None:
        """Continue with some pictures of the batch, in ascending order."""

    def state(self) -> Mapping[str, Array]:
        """Return what must be kept between two steps, with a row for each picture."""

    def restore(self, state: Mapping[str, np.ndarray], image: NDArray, /) -> None:
        """Continue from a state, and from the pictures that were returned last.

        Raises
        ------
        ValueError
            If it is not a state of this optimiser, or of pictures of another number or size.
        """


def optimiser(settings: Settings, network: Truncated, loss: Loss, image: NDArray) -> Optimiser:
    """Return the optimiser of the settings, after measuring the whitening if they ask for it.

    Parameters
    ----------
    settings
        Settings, whose `descent` is the name of the optimiser.
    network, loss
        The network and the loss of the descent.
    image
        The initial pictures (B, 3, H, W) with the mean subtracted.
    """
    whitening = None
    if settings.gradient == "whiten":
        whitening = measured(network, loss, image[:1], WEAKEST[settings.descent])
    if settings.descent == "lbfgs":
        return LBFGS(settings, whitening)
    return Momentum(settings, mx.nd.zeros_like(image), whitening)


WEAKEST = {"momentum": 0.05, "lbfgs": 1e-3}  # measured (docs/descents.md)


def kept(settings: Settings) -> int:
    """Return the number of arrays as large as the picture that the optimiser needs."""
    own = 2 * PAIRS + 5 if settings.descent == "lbfgs" else 1
    return own + (4 if settings.gradient == "whiten" else 0)  # its factors, and waves on the way


# --- momentum ---


def learning_rate(settings: Settings, step: int) -> float:
    """Return the learning rate of a step, starting at 1.

    With the schedule ``"steps"``, it is multiplied by `decay` every `decay_every` steps. With
    ``"cosine"``, it follows half a cosine wave that reaches 0 after the last step. Before that, it
    rises linearly during the first `warm_up` (a share) of the steps.
    """
    before = settings.warm_up * settings.steps
    if step <= before:
        return settings.learning_rate * step / (before + 1)
    if settings.schedule == "cosine":
        share = (step - 1 - before) / (settings.steps - before)
        return settings.learning_rate * (1 + math.cos(math.pi * share)) / 2
    return settings.learning_rate * settings.decay ** ((step - 1) // settings.decay_every)


def momentum(settings: Settings, step: int) -> float:
    """Return the momentum of a step, starting at 1, which changes linearly over all steps."""
    share = (step - 1) / settings.steps
    return settings.momentum + share * (settings.last_momentum - settings.momentum)


def scaled(gradient: NDArray, size: float) -> NDArray:
    """Scale the gradient of each picture to the root mean square `size`.

    The result does not depend on the scale of the loss.

    Parameters
    ----------
    gradient
        Gradients (B, 3, H, W). A gradient that is 0 everywhere stays 0.
    size
        Root mean square of the result.
    """
    elements = gradient.size / gradient.shape[0]
    mean = (squared_length(gradient) / elements).sqrt().reshape((-1, 1, 1, 1))
    return mx.nd.broadcast_div(gradient, mean / size + np.finfo(np.float32).tiny)


def update(
    image: NDArray, gradient: NDArray, velocity: NDArray, settings: Settings, step: int
) -> NDArray:
    """Return the pictures after one step, and update the velocity in place.

    ``v <- momentum v - rate (g + weight_decay x)``, ``x <- x + v``, where x is the picture minus
    the mean colour, and g is the gradient, either clipped element by element (2016 code) or
    :func:`scaled`.

    Parameters
    ----------
    image, gradient, velocity
        Arrays (B, 3, H, W). The pictures are RGB on the 0-255 scale with the mean subtracted, the
        velocity has the same unit, and the gradient is that of the loss. `velocity` is modified.
    settings
        Learning rate, momentum, clip and so on.
    step
        Number of the step, starting at 1.
    """
    clips = settings.gradient == "clip"
    return mx.nd.sgd_mom_update(
        image,
        gradient if clips else scaled(gradient, settings.clip),
        velocity,
        lr=learning_rate(settings, step),
        momentum=momentum(settings, step),
        wd=settings.weight_decay,
        clip_gradient=settings.clip if clips else -1.0,
    )


class Momentum:
    """Gradient descent with momentum, :func:`update`.

    Parameters
    ----------
    settings
        Learning rate, momentum, clip and so on.
    velocity
        The initial velocity (B, 3, H, W); it is modified.
    whitening
        Applied to all gradients, unless ``None``.
    """

    def __init__(
        self, settings: Settings, velocity: NDArray, whitening: Optional[Whitening] = None
    ) -> None:
        self.settings, self.velocity, self.whitening = settings, velocity, whitening

    def move(self, image: NDArray, _losses: np.ndarray, gradient: NDArray, step: int) -> NDArray:
        """Return the pictures after a step."""
        if self.whitening is not None:
            gradient = self.whitening(gradient)
        return update(image, gradient, self.velocity, self.settings, step)

    def reached(self, losses: np.ndarray) -> np.ndarray:
        """Return the losses as they are."""
        return losses

    def take(self, rows: Sequence[int]) -> None:
        """Continue with some pictures of the batch."""
        self.velocity = _take(self.velocity, rows)

    def state(self) -> Mapping[str, Array]:
        """Return the velocity."""
        return {"velocity": self.velocity}

    def restore(self, state: Mapping[str, np.ndarray], image: NDArray) -> None:
        """Continue with a velocity."""
        self.velocity = _Restored(state, image).pictures("velocity")


# --- L-BFGS ---

PAIRS = 20  # steps that are remembered
FIRST_STEP = 20.0  # root mean square of the first step, in grey levels of 0-255
DECREASE = 1e-4  # of the loss, as a share of what the slope promises (Armijo's condition)
SHORTER = (0.1, 0.5)  # limits of the factor by which a step that fails is shortened


@dataclass
class _Pair:
    """A step s of each picture, the change y of the gradient, and ``1 / (s . y)``, (B,).

    The last is 0 for pictures that did not move, or along whose step the loss is not convex.
    """

    step: NDArray
    change: NDArray
    inverse: np.ndarray


class LBFGS:
    """The limited-memory method of Broyden, Fletcher, Goldfarb and Shanno.

    Nocedal & Wright, Numerical Optimization, 2nd edition, algorithm 7.4, with the whitening as the
    initial inverse Hessian matrix up to a factor. Each step evaluates the loss once. If it has not
    decreased enough, the next step tries a shorter move from the same picture.

    Parameters
    ----------
    settings
        The number of steps; momentum, learning rate, clip and weight decay are not used.
    whitening
        Positive definite map of gradients; ``None`` is the identity.
    """

    PICTURES = ("image", "gradient", "direction")  # attributes with a picture for each picture
    NUMBERS = ("losses", "slope", "length", "scale")  # and with a number for each

    def __init__(self, settings: Settings, whitening: Optional[Whitening] = None) -> None:
        self.settings, self.whitening = settings, whitening
        self.pairs: List[_Pair] = []
        self.scale: np.ndarray  # of the whitening, (B,)
        self.image: NDArray  # the best pictures, with their losses and gradients
        self.losses: np.ndarray
        self.gradient: NDArray
        self.direction: NDArray
        self.slope: np.ndarray  # of the loss along the direction
        self.length: np.ndarray  # of the move, in directions

    def move(self, image: NDArray, losses: np.ndarray, gradient: NDArray, step: int) -> NDArray:
        """Return the pictures to be tried next; after the last step, the best ones."""
        if step == 1:
            self.image, self.losses, self.gradient = image, losses, gradient.copy()
            first = self._whitened(gradient)
            size = np.sqrt(_products(first, first) / (first.size / len(losses)))
            self.scale = FIRST_STEP / np.where(size > 0, size, 1)
            self.length = np.ones(len(losses))
            self._choose_direction(np.ones(len(losses), dtype=bool))
        else:
            promised = self.length * self.slope
            good = losses <= self.losses + DECREASE * promised
            if good.any():
                self._accept(good, image, losses, gradient)
            excess = losses - self.losses - promised
            parabola = -promised / (2 * np.where(excess > 0, excess, np.inf))
            shorter = self.length * np.clip(parabola, *SHORTER)
            self.length = np.where(good, 1.0, shorter)
        if step == self.settings.steps:
            return self.image
        return self.image + _rows(self.length, image) * self.direction

    def reached(self, losses: np.ndarray) -> np.ndarray:
        """Return the losses of the best pictures, or those that are not finite."""
        return np.where(np.isfinite(losses), self.losses, losses)

    def take(self, rows: Sequence[int]) -> None:
        """Continue with some pictures of the batch."""
        chosen = list(rows)
        for name in self.PICTURES:
            setattr(self, name, _take(getattr(self, name), rows))
        for name in self.NUMBERS:
            setattr(self, name, getattr(self, name)[chosen])
        self.pairs = [
            _Pair(_take(p.step, rows), _take(p.change, rows), p.inverse[chosen]) for p in self.pairs
        ]

    def state(self) -> Mapping[str, Array]:
        """Return the pairs, the best pictures, and what belongs to them."""
        state = {f"own {name}": getattr(self, name) for name in (*self.PICTURES, *self.NUMBERS)}
        for n, pair in enumerate(self.pairs):
            state.update({f"step {n}": pair.step, f"change {n}": pair.change})
            state[f"inverse {n}"] = pair.inverse
        return state

    def restore(self, state: Mapping[str, np.ndarray], image: NDArray) -> None:
        """Continue with pairs, best pictures, and what belongs to them."""
        found = _Restored(state, image)
        own = {name: found.pictures(f"own {name}") for name in self.PICTURES}
        numbers = {name: found.numbers(f"own {name}") for name in self.NUMBERS}
        count = sum(name.startswith("step ") for name in state)
        self.pairs = [
            _Pair(
                found.pictures(f"step {n}"),
                found.pictures(f"change {n}"),
                found.numbers(f"inverse {n}"),
            )
            for n in range(count)
        ]
        for name, value in {**own, **numbers}.items():
            setattr(self, name, value)

    def _accept(
        self, good: np.ndarray, image: NDArray, losses: np.ndarray, gradient: NDArray
    ) -> None:
        """Continue from the pictures whose loss has decreased enough."""
        moved = _where(good, image, self.image)
        bent = _where(good, gradient, self.gradient)
        pair = _Pair(moved - self.image, bent - self.gradient, np.zeros(len(good)))
        curvature = _products(pair.step, pair.change)
        convex = good & (curvature > 0)
        pair.inverse[convex] = 1 / curvature[convex]
        sizes = _products(pair.change, self._whitened(pair.change))
        self.scale = np.where(convex, curvature / np.where(convex, sizes, 1), self.scale)
        self._remember(good, pair)
        self.image, self.gradient = moved, bent
        self.losses = np.where(good, losses, self.losses)
        self._choose_direction(good)

    def _remember(self, good: np.ndarray, pair: _Pair) -> None:
        """Append a pair for the pictures that have moved; the others keep all of theirs."""
        if good.all():
            self.pairs = [*self.pairs[-(PAIRS - 1) :], pair]
            return
        if len(self.pairs) < PAIRS:
            nothing = mx.nd.zeros_like(pair.step)
            self.pairs.insert(0, _Pair(nothing, nothing, np.zeros(len(good))))
        for place, own in enumerate(self.pairs):
            later = self.pairs[place + 1] if place + 1 < len(self.pairs) else pair
            self.pairs[place] = _Pair(
                _where(good, later.step, own.step),
                _where(good, later.change, own.change),
                np.where(good, later.inverse, own.inverse),
            )

    def _choose_direction(self, good: np.ndarray) -> None:
        """Replace the directions of some pictures."""
        direction = self.gradient
        factors = []
        for pair in reversed(self.pairs):
            factors.append(pair.inverse * _products(pair.step, direction))
            direction = direction - _rows(factors[-1], direction) * pair.change
        direction = _rows(self.scale, direction) * self._whitened(direction)
        for pair, factor in zip(self.pairs, reversed(factors)):
            back = factor - pair.inverse * _products(pair.change, direction)
            direction = direction + _rows(back, direction) * pair.step
        direction = -direction
        if not good.all():
            direction = _where(good, direction, self.direction)
        self.direction = direction
        self.slope = _products(direction, self.gradient)

    def _whitened(self, gradient: NDArray) -> NDArray:
        return gradient if self.whitening is None else self.whitening(gradient)


@dataclass(frozen=True)
class _Restored:
    """Arrays of a state, checked and on the device of the pictures."""

    state: Mapping[str, np.ndarray]
    image: NDArray

    def pictures(self, name: str) -> NDArray:
        """Return an array with the shape of the pictures."""
        values = self._checked(name, self.image.shape)
        return mx.nd.array(values, ctx=self.image.context, dtype="float32")

    def numbers(self, name: str) -> np.ndarray:
        """Return an array with a number for each picture."""
        return self._checked(name, self.image.shape[:1])

    def _checked(self, name: str, shape: Sequence[int]) -> np.ndarray:
        values = self.state.get(name)
        if values is None or values.shape != tuple(shape) or values.dtype.kind != "f":
            raise ValueError(f"the state of the descent has no array {name!r} of shape {shape}")
        return values


def _products(batch: NDArray, other: NDArray) -> np.ndarray:
    """Return the inner product of each picture with another one, (B,) float64."""
    return inner_products(batch, other).asnumpy().astype(np.float64)


def _rows(factors: np.ndarray, like: NDArray) -> NDArray:
    """Return one factor for each picture of a batch, to be multiplied by it."""
    return mx.nd.array(factors, ctx=like.context, dtype="float32").reshape((-1, 1, 1, 1))


def _where(good: np.ndarray, batch: NDArray, other: NDArray) -> NDArray:
    """Return the pictures of `batch` that are good, and those of `other` in place of the rest."""
    if good.all():
        return batch.copy()
    return mx.nd.where(mx.nd.array(good, ctx=batch.context, dtype="float32"), batch, other)


def _take(batch: NDArray, rows: Sequence[int]) -> NDArray:
    return batch.take(mx.nd.array(list(rows), ctx=batch.context))
