"""Gradient descent on pictures, with separate stopping, callbacks and loss history."""

from __future__ import annotations

import logging
import math
import time
from dataclasses import dataclass, field
from typing import Callable, List, Optional, Sequence

import numpy as np
from tqdm.auto import tqdm

from fmi import pictures
from fmi.device.mxnet import NDArray, mx
from fmi.losses import Loss, squared_length
from fmi.networks.base import Truncated
from fmi.settings import Settings

__all__ = [
    "Callback",
    "Descent",
    "State",
    "learning_rate",
    "minimise",
    "momentum",
    "scaled",
    "start",
    "update",
]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class State:
    """The argument of a callback after each step.

    Attributes
    ----------
    step
        Number of the step, starting at 1.
    pictures
        Indices of the pictures of the batch that have not stopped.
    loss
        Losses of these pictures before the step.
    change
        Relative changes of these pictures in the step, ``||x_k - x_(k-1)|| / ||x_k||``.
    image
        These pictures after the step, (len(pictures), 3, H, W) with the mean subtracted, on the
        device.
    mean
        The RGB mean colour on the 0-255 scale.
    """

    step: int
    pictures: Sequence[int]
    loss: np.ndarray
    change: np.ndarray
    image: NDArray
    mean: Sequence[float]

    @property
    def arrays(self) -> List[np.ndarray]:
        """The pictures after the step, each (H, W, 3) float32 RGB on the 0-255 scale."""
        return [pictures.to_rgb(image, self.mean) for image in self.image.asnumpy()]


Callback = Callable[[State], None]


@dataclass
class Descent:
    """The descent of one picture.

    Attributes
    ----------
    image
        (3, H, W) float32 with the mean subtracted.
    loss
        Loss before each step.
    change
        Relative change in the last step.
    stopped
        ``"change"``, ``"steps"`` or ``"interrupted"``.
    seconds
        Time from the start of the batch until this picture stopped.
    """

    image: np.ndarray
    loss: List[float] = field(default_factory=list)
    change: float = math.inf
    stopped: str = "interrupted"
    seconds: float = 0.0


def start(shape: Sequence[int], half_width: float, seed: int) -> np.ndarray:
    """Return an initial picture, uniform in +-half_width around the mean colour (2016 code).

    Parameters
    ----------
    shape
        Shape of the picture, (1, 3, H, W).
    half_width
        Half width of the distribution on the 0-255 scale.
    seed
        Seed; the same seed gives the same picture on every machine.

    Returns
    -------
    numpy.ndarray
        float32 with the mean subtracted.
    """
    noise = np.random.RandomState(seed).uniform(-half_width, half_width, tuple(shape))
    return noise.astype(np.float32)


def learning_rate(settings: Settings, step: int) -> float:
    """Return the learning rate of a step, starting at 1.

    With the schedule ``"steps"``, it is multiplied by `decay` every `decay_every` steps. With
    ``"cosine"``, it follows half a cosine wave that reaches 0 after the last step.
    """
    if settings.schedule == "cosine":
        return settings.learning_rate * (1 + math.cos(math.pi * (step - 1) / settings.steps)) / 2
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
) -> None:
    """Update the pictures by one step, in place.

    ``v <- momentum v - rate (g + weight_decay x)``, ``x <- x + v``, where g is the gradient, either
    clipped element by element (2016 code) or :func:`scaled`.

    Parameters
    ----------
    image, gradient, velocity
        Arrays (B, 3, H, W); `image` and `velocity` are modified.
    settings
        Learning rate, momentum, clip and so on.
    step
        Number of the step, starting at 1.
    """
    clips = settings.gradient == "clip"
    mx.nd.sgd_mom_update(
        image,
        gradient if clips else scaled(gradient, settings.clip),
        velocity,
        out=image,
        lr=learning_rate(settings, step),
        momentum=momentum(settings, step),
        wd=settings.weight_decay,
        clip_gradient=settings.clip if clips else -1.0,
    )


def minimise(
    network: Truncated,
    loss: Loss,
    first: NDArray,
    settings: Settings,
    mean: Sequence[float] = (0.0, 0.0, 0.0),
    callback: Optional[Callback] = None,
    progress: Optional[bool] = None,
    label: str = "",
) -> List[Descent]:
    """Minimise the loss of a batch of pictures with :func:`update`.

    A picture stops when ``||v|| / ||x|| < stop``. It is then removed from the batch, so that the
    result is the same whether it is inverted alone or in a batch. Ctrl-C ends the descent and
    keeps the current pictures.

    Parameters
    ----------
    network
        Network that computes the codes for the loss.
    loss
        Loss with one target for each picture.
    first
        Initial pictures, (1, 3, H, W) or (B, 3, H, W), with the mean subtracted.
    settings
        Steps, stop, learning rate and so on.
    mean
        RGB mean colour, for the pictures in the callback.
    callback
        Function called after each step.
    progress
        Whether to show a progress bar. If ``None``, it is shown in terminals and notebooks.
    label
        Text before the progress bar.
    """
    image = first.broadcast_to((loss.pictures,) + tuple(first.shape[1:])).copy()
    done = [Descent(picture) for picture in image.asnumpy()]
    active = list(range(len(done)))
    velocity = mx.nd.zeros_like(image)
    began = time.perf_counter()
    hidden = None if progress is None else not progress
    step = 0
    with tqdm(total=settings.steps, desc=label, unit="step", disable=hidden, leave=False) as bar:
        try:
            for step in range(1, settings.steps + 1):
                losses, gradient = network.gradient(image, loss)
                update(image, gradient, velocity, settings, step)
                values = mx.nd.stack(losses, _length(velocity), _length(image)).asnumpy()
                change = values[1] / np.maximum(values[2], np.finfo(np.float32).tiny)
                for index, value in zip(active, values[0]):
                    done[index].loss.append(float(value))
                _show(bar, settings, step, values[0], change)
                if callback is not None:
                    callback(State(step, tuple(active), values[0], change, image, mean))
                stays = _freeze(done, active, image, change, step, settings, began)
                if not stays:
                    break
                if len(stays) < len(active):
                    active = [active[row] for row in stays]
                    rows = mx.nd.array(stays, ctx=image.context)
                    image, velocity, loss = image.take(rows), velocity.take(rows), loss.take(stays)
        except KeyboardInterrupt:
            log.warning("interrupted at step %d", step)
            for index, picture in zip(active, image.asnumpy()):
                done[index].image, done[index].stopped = picture, "interrupted"
                done[index].seconds = time.perf_counter() - began
    return done


def _length(batch: NDArray) -> NDArray:
    """Return the Euclidean length of each picture, (B,)."""
    return squared_length(batch).sqrt()


def _freeze(
    done: List[Descent],
    active: Sequence[int],
    image: NDArray,
    change: np.ndarray,
    step: int,
    settings: Settings,
    began: float,
) -> List[int]:
    """Store the pictures that stop at this step; return the rows of those that continue."""
    stays = []
    pixels = None
    for row, (index, value) in enumerate(zip(active, change)):
        descent = done[index]
        descent.change = float(value)
        if value < settings.stop:
            descent.stopped = "change"
        elif step == settings.steps:
            descent.stopped = "steps"
        else:
            stays.append(row)
            continue
        pixels = image.asnumpy() if pixels is None else pixels
        descent.image, descent.seconds = pixels[row], time.perf_counter() - began
    return stays


def _show(bar: tqdm, settings: Settings, step: int, loss: np.ndarray, change: np.ndarray) -> None:
    """Update the progress bar, with an estimate of the last step as its total.

    The change decreases about as fast as the learning rate, which allows for this estimate.
    """
    largest = float(change.max())
    if settings.stop > 0 and settings.decay < 1 and largest > settings.stop:
        periods = math.log(settings.stop / largest) / math.log(settings.decay)
        bar.total = min(settings.steps, step + math.ceil(settings.decay_every * periods))
    bar.set_postfix(loss=f"{loss.sum():.3g}", change=f"{largest:.2g}", refresh=False)
    bar.update()
