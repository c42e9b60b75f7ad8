"""Gradient descent on pictures, with separate stopping, callbacks and loss history."""

from __future__ import annotations

import logging
import math
import time
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Callable, List, Mapping, Optional, Protocol, Sequence, Tuple

import numpy as np
from tqdm.auto import tqdm

from fmi import pictures
from fmi.device.mxnet import NDArray, mx
from fmi.losses import Loss, squared_length
from fmi.networks.base import Truncated
from fmi.optimisers import Array, Optimiser, optimiser
from fmi.regularisers import regularised
from fmi.settings import Settings

__all__ = [
    "Array",
    "Callback",
    "Descent",
    "Finished",
    "Progress",
    "Snapshots",
    "State",
    "minimise",
    "start",
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
        A copy of these pictures after the step, (len(pictures), 3, H, W) with the mean subtracted,
        on the device.
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
        (3, H, W) float32 with the mean subtracted; always finite unless the initial picture is not.
    loss
        Loss before each step; with L-BFGS, the smallest one so far, which after the last step is
        that of `image`. If the descent diverged, the last value is the loss of `image`.
    change
        Relative change in the last step; ``None`` if there was no step.
    stopped
        ``"change"``, ``"steps"``, ``"interrupted"`` or ``"diverged"``.
    seconds
        Time that it took; of a step of several pictures, each counts an equal share.
    """

    image: np.ndarray
    loss: List[float] = field(default_factory=list)
    change: Optional[float] = None
    stopped: str = "interrupted"
    seconds: float = 0.0


Finished = Callable[[int, Descent], None]


class _Clock:
    """The time that each of the pictures which have not stopped has taken."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._last = time.perf_counter()

    def divide(self, pictures: int) -> None:
        """Divide the time since the last call among some pictures."""
        now = time.perf_counter()
        self.seconds += (now - self._last) / pictures
        self._last = now


@dataclass(frozen=True)
class Progress:
    """All that a descent needs to continue after a step.

    Attributes
    ----------
    step
        Number of the step.
    done
        The descents of all pictures of the batch.
    pictures
        Indices of those that have not stopped.
    changes
        Their relative changes in the step.
    arrays
        Their pictures after and before the step, ``"image"`` and ``"before"``, and the state of
        the optimiser, with a row for each of them.
    seconds
        Time that each of them has taken so far, as in :class:`Descent`.
    """

    step: int
    done: List[Descent]
    pictures: Sequence[int]
    changes: Sequence[Optional[float]]
    arrays: Mapping[str, Array]
    seconds: float


class Snapshots(Protocol):
    """Keeps the progress of a descent, such as :class:`fmi.snapshots.Part`."""

    def load(self) -> Optional[Progress]:
        """Return from where the descent continues, or ``None`` if it has to begin."""

    def save(self, pictures: Sequence[int], progress: Callable[[], Progress], /) -> None:
        """Keep the progress, if it is time to, while pictures with some indices go on."""


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


@dataclass(frozen=True)
class _Batch:
    """The pictures that have not stopped, after the same number of steps."""

    pictures: Tuple[int, ...]  # their indices
    image: NDArray  # (B, 3, H, W), finite
    before: NDArray  # the same pictures before the last step; their loss is finite
    optimiser: Optimiser
    change: Sequence[Optional[float]]  # relative, in the last step
    loss: Loss

    def take(self, rows: Sequence[int]) -> _Batch:
        """Return some of the pictures; `rows` are in ascending order."""
        if not rows:
            return replace(self, pictures=())
        if len(rows) == len(self.pictures):
            return self
        chosen = mx.nd.array(rows, ctx=self.image.context)
        self.optimiser.take(rows)
        return _Batch(
            tuple(self.pictures[row] for row in rows),
            self.image.take(chosen),
            self.before.take(chosen),
            self.optimiser,
            [self.change[row] for row in rows],
            self.loss.take(rows),
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
    finished: Optional[Finished] = None,
    snapshots: Optional[Snapshots] = None,
) -> List[Descent]:
    """Minimise the loss of a batch of pictures with an optimiser.

    A picture stops when ``||x_k - x_(k-1)|| / ||x_k|| < stop``. It is then removed from the
    batch, so that the result is the same whether it is inverted alone or in a batch. Ctrl-C ends
    the descent and keeps the current pictures.

    A picture diverges when its loss, its gradient, its length or that of its move is not
    finite. It is then removed from the batch too; the last picture whose loss was finite is kept,
    and a warning is logged.

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
        Function called after each step with the pictures that have not diverged. Its exceptions
        pass through, except KeyboardInterrupt, which acts as Ctrl-C.
    progress
        Whether to show a progress bar. If ``None``, it is shown in terminals and notebooks.
    label
        Text before the progress bar and in warnings.
    finished
        Function called with the index and the :class:`Descent` of a picture as soon as it has
        stopped by "change" or "steps", while others continue. Exceptions are treated as those of
        `callback`.
    snapshots
        Keeps the progress after steps. A descent that is continued gives the same pictures, bit
        for bit; `callback` is not called again for the steps before.
    """
    image = first.broadcast_to((loss.pictures,) + tuple(first.shape[1:])).copy()
    del first  # large pictures need the memory
    done = [Descent(picture.asnumpy()) for picture in image]
    indices, changes = tuple(range(len(done))), [None] * len(done)
    clock = _Clock()
    hidden = None if progress is None else not progress
    step, batch = 0, None
    with tqdm(total=settings.steps, desc=label, unit="step", disable=hidden, leave=False) as bar:
        try:
            chosen = optimiser(settings, network, loss, image)
            batch = _Batch(indices, image, image, chosen, changes, loss)
            saved = snapshots.load() if snapshots is not None else None
            continued = _continued(saved, batch) if saved is not None else None
            if saved is not None and continued is not None:
                step, done, batch = saved.step, saved.done, continued
                clock.seconds = saved.seconds
                bar.update(step)
                for index, one in enumerate(done):
                    if finished is not None and one.stopped in ("change", "steps"):
                        finished(index, one)
            begin = step + 1
            for step in range(begin, settings.steps + 1 if batch.pictures else begin):
                moved_network = regularised(network, settings, step)
                losses, gradient = moved_network.gradient(batch.image, batch.loss)
                zeros = _zeros(gradient)
                moved = batch.optimiser.move(batch.image, losses.asnumpy(), gradient, step)
                lengths = _length(moved - batch.image), _length(moved)
                values = mx.nd.stack(losses, *lengths, zeros)
                values = values.asnumpy().astype(np.float64)
                clock.divide(len(batch.pictures))
                values[0] = batch.optimiser.reached(values[0])
                del gradient
                stays = _good(done, batch, values, step, settings, label, clock)
                batch = replace(batch, image=moved, before=batch.image).take(stays)
                if not stays:
                    break
                values = values[:, stays]
                change = values[1] / np.maximum(values[2], np.finfo(np.float32).tiny)
                batch = replace(batch, change=change.tolist())
                _show(bar, settings, step, values[0], change)
                if callback is not None:
                    copy = batch.image.copy()
                    callback(State(step, batch.pictures, values[0], change, copy, mean))
                stays, stopped = _stop(done, batch, step, settings, clock)
                batch = batch.take(stays)
                for index in stopped:
                    if finished is not None:
                        finished(index, done[index])
                if not stays:
                    break
                if snapshots is not None:
                    now = partial(_progress, step, done, batch, clock)
                    snapshots.save(batch.pictures, now)
        except KeyboardInterrupt:
            log.warning("interrupted at step %d", step)
            if batch is None or not batch.pictures:  # before the first step, or after the last
                return done
            clock.divide(len(batch.pictures))
            for row, index in enumerate(batch.pictures):
                if done[index].stopped == "interrupted":  # not "change", a moment ago
                    done[index].change = batch.change[row]
                    _keep(done[index], batch.image[row], "interrupted", clock)
    return done


def _progress(step: int, done: List[Descent], batch: _Batch, clock: _Clock) -> Progress:
    """Return the progress after a step."""
    arrays = {"image": batch.image, "before": batch.before, **batch.optimiser.state()}
    return Progress(step, done, batch.pictures, batch.change, arrays, clock.seconds)


def _continued(saved: Progress, batch: _Batch) -> Optional[_Batch]:
    """Return a batch as it was saved, or ``None`` if that does not fit."""
    if not saved.pictures:
        return replace(batch, pictures=())
    arrays = {name: np.asarray(array) for name, array in saved.arrays.items()}
    shape = (len(saved.pictures), *batch.image.shape[1:])
    try:
        if any(arrays[name].shape != shape for name in ("image", "before")):
            raise ValueError("pictures of another size")
        image, before = (_on_device(arrays[name], batch.image) for name in ("image", "before"))
        batch.optimiser.restore(arrays, image)
    except (KeyError, ValueError) as error:
        log.warning("a snapshot has other arrays than this descent (%s): ignored", error)
        return None
    loss = batch.loss.take(list(saved.pictures))
    return _Batch(tuple(saved.pictures), image, before, batch.optimiser, saved.changes, loss)


def _on_device(array: np.ndarray, like: NDArray) -> NDArray:
    return mx.nd.array(array, ctx=like.context, dtype="float32")


def _length(batch: NDArray) -> NDArray:
    """Return the Euclidean length of each picture, (B,)."""
    return squared_length(batch).sqrt()


def _zeros(gradient: NDArray) -> NDArray:
    """Return 0 for each picture whose gradient is finite, else NaN, (B,); clipping hides it."""
    maps = gradient.reshape((gradient.shape[0], gradient.shape[1], -1))
    zeros = mx.nd.zeros_like(maps[0, 0])
    return mx.nd.concat(*[mx.nd.dot(each, zeros).sum() for each in maps], dim=0)


def _keep(descent: Descent, image: NDArray, stopped: str, clock: _Clock) -> None:
    """Store a picture (3, H, W) that has stopped, and why."""
    descent.image, descent.stopped = image.asnumpy(), stopped
    descent.seconds = clock.seconds


def _good(
    done: List[Descent],
    batch: _Batch,
    values: np.ndarray,
    step: int,
    settings: Settings,
    label: str,
    clock: _Clock,
) -> List[int]:
    """Store the losses and the pictures that diverge; return the rows of the others.

    The rows of `values` are the loss of ``batch.image``, the lengths of the move and of the
    picture after the step, and 0 times the gradient.
    """
    stays = []
    for row, (index, value) in enumerate(zip(batch.pictures, values.T)):
        descent, finite = done[index], np.isfinite(value)
        if finite[0]:
            descent.loss.append(float(value[0]))
            descent.change = batch.change[row]
        if finite.all():
            stays.append(row)
            continue
        _keep(descent, (batch.image if finite[0] else batch.before)[row], "diverged", clock)
        name = f"{label}: picture {index + 1}" if label else f"picture {index + 1}"
        last = step if finite[0] else step - 1
        if last == 0:
            log.warning("%s: the loss of the initial picture is not finite; change init", name)
        else:
            log.warning(
                "%s of %d diverged at step %d and is kept as it was before; use a smaller"
                " learning_rate (%g) or clip (%g)",
                *(name, len(done), last, settings.learning_rate, settings.clip),
            )
    return stays


def _stop(
    done: List[Descent], batch: _Batch, step: int, settings: Settings, clock: _Clock
) -> Tuple[List[int], List[int]]:
    """Store the pictures that stop at this step.

    Returns
    -------
    tuple
        The rows of those that continue, and the indices of those that stop.
    """
    stays, stopped = [], []
    for row, (index, change) in enumerate(zip(batch.pictures, batch.change)):
        assert change is not None
        # After its last step, L-BFGS returns to the best picture, which is often the present one.
        returned = settings.descent == "lbfgs" and step == settings.steps
        reason = "change" if change < settings.stop and not returned else "steps"
        if reason == "steps" and step < settings.steps:
            stays.append(row)
            continue
        done[index].change = change
        _keep(done[index], batch.image[row], reason, clock)
        stopped.append(index)
    return stays, stopped


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
