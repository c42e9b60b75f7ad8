"""Gradient descent on pictures: the autograd loop, per-picture stopping, callbacks, history."""

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

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class State:
    """What a callback is told after each step.

    Attributes
    ----------
    step
        Counted from 1.
    pictures
        Which of the batch's pictures are still descended; the others are frozen.
    loss
        Their losses before the step.
    change
        Their relative changes in the step, ``||x_k - x_(k-1)|| / ||x_k||``.
    image
        (len(pictures), 3, H, W), the mean subtracted, after the step. It lives on the device.
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
    """One picture's way down.

    Attributes
    ----------
    image
        (3, H, W) float32, the mean subtracted.
    loss
        One value a step, before the step.
    change
        Relative change in the last step.
    stopped
        ``"change"``, ``"steps"`` or ``"interrupted"``.
    seconds
        From the batch's start until this picture stopped.
    """

    image: np.ndarray
    loss: List[float] = field(default_factory=list)
    change: float = math.inf
    stopped: str = "interrupted"
    seconds: float = 0.0


def start(shape: Sequence[int], half_width: float, seed: int) -> np.ndarray:
    """A first picture, uniform in +-half_width around the mean colour (2016 code).

    Parameters
    ----------
    shape
        (1, 3, H, W).
    half_width
        On the 0-255 scale.
    seed
        The same seed gives the same picture on every machine.

    Returns
    -------
    numpy.ndarray
        float32, the mean subtracted.
    """
    noise = np.random.RandomState(seed).uniform(-half_width, half_width, tuple(shape))
    return noise.astype(np.float32)


def learning_rate(settings: Settings, step: int) -> float:
    """The rate of a step counted from 1.

    ``"steps"``: multiplied by `decay` every `decay_every` steps. ``"cosine"``: falling as half a
    cosine wave does, to 0 after the last step.
    """
    if settings.schedule == "cosine":
        return settings.learning_rate * (1 + math.cos(math.pi * (step - 1) / settings.steps)) / 2
    return settings.learning_rate * settings.decay ** ((step - 1) // settings.decay_every)


def momentum(settings: Settings, step: int) -> float:
    """The momentum of a step counted from 1: in a line from the first to the last."""
    share = (step - 1) / settings.steps
    return settings.momentum + share * (settings.last_momentum - settings.momentum)


def scaled(gradient: NDArray, size: float) -> NDArray:
    """Each picture's gradient brought to the root mean square `size`.

    How large the loss is makes no difference then.

    Parameters
    ----------
    gradient
        (B, 3, H, W).
    size
        A picture whose gradient is 0 everywhere keeps that.
    """
    elements = gradient.size / gradient.shape[0]
    mean = (squared_length(gradient) / elements).sqrt().reshape((-1, 1, 1, 1))
    return mx.nd.broadcast_div(gradient, mean / size + np.finfo(np.float32).tiny)


def update(
    image: NDArray, gradient: NDArray, velocity: NDArray, settings: Settings, step: int
) -> None:
    """Move the pictures by a step, in place.

    ``v <- momentum v - rate (g + weight_decay x)``, ``x <- x + v``, g being the gradient clipped
    element by element (2016 code) or :func:`scaled`.

    Parameters
    ----------
    image, gradient, velocity
        (B, 3, H, W); `image` and `velocity` are changed.
    settings
        Learning rate, momentum, clip and so on.
    step
        Counted from 1.
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
    """Descend a batch of pictures to the least loss, by :func:`update`.

    A picture is done when ``||v|| / ||x|| < stop``. It then leaves the batch, so that it is the
    same picture whether it is inverted alone or among others. Ctrl-C ends the descent and keeps
    what there is.

    Parameters
    ----------
    network
        Computes the codes that the loss asks for.
    loss
        Of as many pictures as there are targets.
    first
        (1, 3, H, W) or (B, 3, H, W) first pictures, the mean subtracted.
    settings
        Steps, stop, learning rate and so on.
    mean
        RGB mean colour, for the callback's pictures.
    callback
        Called once a step.
    progress
        Whether to show a progress bar; ``None``: where there is a terminal or a notebook.
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
    """Euclidean length of each picture: (B,)."""
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
    """Note which pictures stop at this step; the rows of those that go on."""
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
    """Move the bar; its total is a guess at the last step, for the time left.

    The change falls about as the learning rate does, so the stop is foreseeable.
    """
    largest = float(change.max())
    if settings.stop > 0 and settings.decay < 1 and largest > settings.stop:
        periods = math.log(settings.stop / largest) / math.log(settings.decay)
        bar.total = min(settings.steps, step + math.ceil(settings.decay_every * periods))
    bar.set_postfix(loss=f"{loss.sum():.3g}", change=f"{largest:.2g}", refresh=False)
    bar.update()
