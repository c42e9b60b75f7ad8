"""Terms of the loss about the picture itself, and its jitter, around the gradient of a network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Tuple

import numpy as np

from fmi.device.mxnet import NDArray, mx
from fmi.losses import Loss, squared_length
from fmi.networks.base import Truncated
from fmi.settings import Settings

__all__ = ["Regularised", "regularised", "rolled", "total_variation"]


def total_variation(image: NDArray) -> Tuple[NDArray, NDArray]:
    """Return the sum of squared differences of neighbouring pixels, and its gradient.

    This is the quadratic total variation of Mahendran & Vedaldi 2015 (section 3, beta = 2).

    Parameters
    ----------
    image
        Pictures (B, 3, H, W).

    Returns
    -------
    tuple
        Sums (B,) and gradients (B, 3, H, W).
    """
    value, gradient = mx.nd.zeros(len(image), ctx=image.context), mx.nd.zeros_like(image)
    for axis in (2, 3):
        size = image.shape[axis]
        if size < 2:
            continue
        first, last = (image.slice_axis(axis, *ends) for ends in ((0, size - 1), (1, size)))
        step = last - first
        value = value + squared_length(step)
        edge = mx.nd.zeros_like(image.slice_axis(axis, 0, 1))
        gradient = gradient + 2 * mx.nd.concat(edge, step, dim=axis)
        gradient = gradient - 2 * mx.nd.concat(step, edge, dim=axis)
    return value, gradient


def rolled(image: NDArray, rows: int, columns: int) -> NDArray:
    """Return pictures (B, 3, H, W) moved down and to the right; what leaves comes in again."""
    for axis, distance in ((2, rows), (3, columns)):
        size = image.shape[axis]
        cut = -distance % size
        if cut:
            parts = (image.slice_axis(axis, cut, size), image.slice_axis(axis, 0, cut))
            image = mx.nd.concat(*parts, dim=axis)
    return image


@dataclass(frozen=True)
class Regularised:
    """A network whose gradient is that of a moved picture, with total variation added.

    Attributes
    ----------
    network
        The network.
    weight
        Factor of the total variation.
    shift
        How far the picture is moved down and to the right before the network sees it.
    """

    network: Truncated
    weight: float
    shift: Tuple[int, int]

    def gradient(self, image: NDArray, loss: Loss) -> Tuple[NDArray, NDArray]:
        """Return losses (B,) and gradients (B, 3, H, W), as :meth:`Truncated.gradient` does."""
        down, right = self.shift
        losses, gradient = self.network.gradient(rolled(image, down, right), loss)
        gradient = rolled(gradient, -down, -right)
        if self.weight:
            value, own = total_variation(image)
            losses, gradient = losses + self.weight * value, gradient + self.weight * own
        return losses, gradient


def regularised(network: Truncated, settings: Settings, step: int) -> Regularised:
    """Return a network with the total variation and the jitter of a step.

    The jitter depends on the number of the step alone, so that a descent can be repeated and
    continued (Mordvintsev et al. 2015, "Inceptionism", who introduced it).
    """
    shift = (0, 0)
    if settings.jitter:
        random = np.random.RandomState(step)
        down, right = random.randint(-settings.jitter, settings.jitter + 1, 2).tolist()
        shift = (down, right)
    return Regularised(network, settings.total_variation, shift)
