"""Whitening: gradients with respect to pictures, in which all frequencies and colours are equal.

A layer answers some frequencies and colours far more strongly than others. Descents along the
gradient are slow for the weak ones; they are faster if the gradient is first divided by the size
of the layer's answer to each of them, as if it were taken with respect to a decorrelated picture
(Olah et al., Feature Visualization, Distill 2017, who use the spectrum of natural pictures).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Tuple

import numpy as np

from fmi.device.mxnet import NDArray, mx
from fmi.losses import Loss
from fmi.networks.base import Truncated

__all__ = ["Whitening", "cosines", "measured", "of_answer", "variances"]

RINGS = 32  # of frequencies, whose width grows with the frequency
CONTRAST = 50.0  # standard deviation of the picture of noise, in grey levels of 0-255
STRENGTH = 1e7  # of the targets of noise, beside which the statistics themselves are small


@dataclass(frozen=True)
class Whitening:
    """A symmetric positive definite map of gradients, diagonal for frequencies and colours.

    Attributes
    ----------
    rows, columns
        Cosine transforms of the columns (H, H) and of the rows (W, W) of a picture, each with a
        frequency in each column.
    colours
        (3, 3), an orthonormal basis of colours in its columns.
    factors
        (W, H, 3), the factor of each frequency and colour.
    """

    rows: NDArray
    columns: NDArray
    colours: NDArray
    factors: NDArray

    def __call__(self, gradient: NDArray) -> NDArray:
        """Return the whitened gradients of pictures (B, 3, H, W).

        Each picture has products of its own, as the last digits of a product of matrices depend on
        their size, and the result must not depend on the other pictures of the batch.
        """
        return mx.nd.concat(*[self._of_one(each) for each in gradient], dim=0)

    def _of_one(self, gradient: NDArray) -> NDArray:
        """Return the whitened gradient of a picture (3, H, W), as (1, 3, H, W)."""
        gradient = gradient.expand_dims(0)
        waves = mx.nd.dot(gradient, self.columns).transpose((0, 3, 1, 2))  # (B, W, 3, H)
        waves = mx.nd.dot(waves, self.rows).transpose((0, 1, 3, 2))  # (B, W, H, 3)
        waves = mx.nd.broadcast_mul(mx.nd.dot(waves, self.colours), self.factors.expand_dims(0))
        waves = mx.nd.dot(waves, self.colours, transpose_b=True).transpose((0, 1, 3, 2))
        waves = mx.nd.dot(waves, self.rows, transpose_b=True).transpose((0, 2, 3, 1))
        return mx.nd.dot(waves, self.columns, transpose_b=True)


def cosines(length: int) -> np.ndarray:
    """Return the orthonormal discrete cosine transform (DCT-II): frequency k in column k."""
    places = (np.arange(length) + 0.5)[:, None] * np.arange(length)[None]
    waves = np.cos(np.pi / length * places) * np.sqrt(2 / length)
    waves[:, 0] = np.sqrt(1 / length)
    return waves.astype(np.float32)


def variances(height: int, width: int, waves: np.ndarray) -> np.ndarray:
    """Return the mean square of waves of about the same frequency.

    Parameters
    ----------
    height, width
        Size of the picture.
    waves
        Amplitudes (H, W, C), by frequency.

    Returns
    -------
    numpy.ndarray
        (H, W, C); frequencies are equal within rings, of which there are at most RINGS.
    """
    down, across = np.arange(height) / height, np.arange(width) / width
    frequency = np.hypot(down[:, None], across[None])
    edges = np.geomspace(1 / max(height, width), np.sqrt(2), RINGS)
    ring = np.digitize(frequency, edges).ravel()
    count = np.maximum(np.bincount(ring), 1)
    squares = waves.reshape(height * width, -1) ** 2
    means = [np.bincount(ring, column) / count for column in squares.T]
    return np.stack(means, axis=1)[ring].reshape(waves.shape)


def measured(network: Truncated, loss: Loss, like: NDArray, weakest: float) -> Whitening:
    """Return the whitening for a network and a loss, from one gradient at a picture of noise.

    The loss is a sum of squares ``weight * ||S - T||^2``. Near its minimum, its Hessian matrix is
    about the sum of ``2 weight J^T J``, where J is the Jacobian of a statistic S with respect to
    the picture. The spectrum of the sum of ``sqrt(weight) J^T u``, where u is white noise, is the
    diagonal of this matrix by frequencies.

    Parameters
    ----------
    network
        The network.
    loss
        The loss. Its targets do not matter, so that all pictures of a batch have one whitening.
    like
        An array (1, 3, H, W) with the shape and on the device of the pictures.
    weakest
        As in :func:`of_answer`.
    """
    random = np.random.RandomState(0)

    def noise(shape: Tuple[int, ...]) -> NDArray:
        return mx.nd.array(random.standard_normal(shape).astype(np.float32), ctx=like.context)

    terms = []
    for term in loss.take([0]).terms:
        size = STRENGTH / math.sqrt(abs(term.weight)) if term.weight else 0
        terms.append(replace(term, target=noise(term.target.shape) * size))
    _, answer = network.gradient(noise(like.shape) * CONTRAST, Loss(tuple(terms)))
    return of_answer(answer.asnumpy()[0], like, weakest)


def of_answer(answer: np.ndarray, like: NDArray, weakest: float) -> Whitening:
    """Return the whitening for the answer of a network to noise.

    Parameters
    ----------
    answer
        A gradient (3, H, W).
    like
        An array on the device where the whitening is needed.
    weakest
        Variance to which smaller ones are raised, as a share of the largest one. It limits the
        factors, so that frequencies without answer are not amplified.
    """
    _, height, width = answer.shape
    _, colours = np.linalg.eigh(np.cov(answer.reshape(3, -1)))
    rows, columns = cosines(height), cosines(width)
    waves = np.einsum("chw,hi,wj,cd->ijd", answer, rows, columns, colours, optimize=True)
    found = variances(height, width, waves.astype(np.float64))
    largest = found.max()
    if largest > 0:
        factors = np.sqrt(largest / np.maximum(found, weakest * largest))
    else:
        factors = np.ones_like(found)

    def on_device(array: np.ndarray) -> NDArray:
        return mx.nd.array(array, ctx=like.context, dtype="float32")

    turned = on_device(np.ascontiguousarray(factors.transpose(1, 0, 2)))
    return Whitening(on_device(rows), on_device(columns), on_device(colours), turned)
