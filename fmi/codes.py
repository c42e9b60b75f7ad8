"""Codes and what is made of them: Eq. 2, Eq. 3, energies, Gram matrices, rank matching.

A code is a layer's activations, an array of shape (B, C, M, N): B pictures, C feature maps of
M x N positions. Every function here takes and returns arrays and does nothing else.
"""

from __future__ import annotations

from typing import List, Sequence

import numpy as np

from fmi.device.mxnet import NDArray, mx


def isolate(code: NDArray, filters: Sequence[int]) -> NDArray:
    """Feature map `l` gets the sum of all feature maps, the others become 0 (Eq. 2).

    Parameters
    ----------
    code
        (1, C, M, N).
    filters
        The `l` of each target, counted from 0.

    Returns
    -------
    NDArray
        (len(filters), C, M, N), one target for each filter.
    """
    channels = code.shape[1]
    total = code.sum(axis=1, keepdims=True)
    chosen = mx.nd.one_hot(mx.nd.array(list(filters), ctx=code.context), channels)
    return mx.nd.broadcast_mul(chosen.reshape((-1, channels, 1, 1)), total)


class _Energy(mx.autograd.Function):
    """:func:`energy`, as a product with ones: MXNet's own sums over space run on one core."""

    def forward(self, code: NDArray) -> NDArray:
        self.shape = batch, channels, height, width = code.shape
        ones = mx.nd.ones(height * width, ctx=code.context, dtype=code.dtype)
        return mx.nd.dot(code.reshape((batch * channels, -1)), ones).reshape((batch, channels))

    def backward(self, gradient: NDArray) -> NDArray:
        return gradient.reshape((0, 0, 1, 1)).broadcast_to(self.shape)


class _Gram(mx.autograd.Function):
    """:func:`gram`, its gradient ``(D + D^T) F`` in one product.

    MXNet's own takes ``D F``, ``D^T F`` and their sum, each as large as the code.
    """

    def forward(self, code: NDArray) -> NDArray:
        self.save_for_backward(code)
        return mx.nd.linalg.syrk(code.reshape((0, 0, -1)))

    def backward(self, gradient: NDArray) -> NDArray:
        (code,) = self.saved_tensors
        both = gradient + gradient.transpose((0, 2, 1))
        return mx.nd.batch_dot(both, code.reshape((0, 0, -1))).reshape(code.shape)


def energy(code: NDArray) -> NDArray:
    """The sum of each feature map over its positions, the energy of section 2.2: (B, C)."""
    return _Energy()(code)


def gram(code: NDArray) -> NDArray:
    """The Gram matrix of the feature maps, sums of their products over positions: (B, C, C)."""
    return _Gram()(code)


def reallocate(code: NDArray, shares: NDArray) -> NDArray:
    """Give feature map c the share ``v_c`` of the code's total energy (Eq. 3).

    A feature map that sums to 0 stays 0, as there is nothing to scale (the 2016 code divides
    0 by 0); :func:`silent` names those.

    Parameters
    ----------
    code
        (1, C, M, N), not negative.
    shares
        (B, C), the ``v`` of each target, each row with sum 1.

    Returns
    -------
    NDArray
        (B, C, M, N).
    """
    energies = energy(code.astype("float64"))  # float32 sums of 200,000 terms lose digits
    total = energies.sum(axis=1, keepdims=True)
    active = energies > 0
    per_energy = mx.nd.where(active, total / (energies + (1 - active)), mx.nd.zeros_like(energies))
    scale = mx.nd.broadcast_mul(shares.astype("float64"), per_energy)
    return mx.nd.broadcast_mul(code, scale.astype("float32").expand_dims(2).expand_dims(3))


def silent(code: NDArray) -> List[int]:
    """The feature maps of a (1, C, M, N) code that are 0 everywhere."""
    return np.flatnonzero(energy(code).asnumpy()[0] == 0).tolist()


def normal_shares(random: np.random.RandomState, channels: int) -> np.ndarray:
    """Eq. 3's ``v`` as the 2016 code draws it: normal(3, 1e3) over its own sum.

    About half of it is negative, which the paper's ``v_c >= 0`` excludes.

    Returns
    -------
    numpy.ndarray
        (C,) float64 with sum 1.
    """
    values = random.normal(3, 1e3, channels)
    return values / values.sum()


def simplex_shares(random: np.random.RandomState, channels: int) -> np.ndarray:
    """Eq. 3's ``v`` as the paper asks for it: ``v_c >= 0`` with sum 1, uniform on the simplex.

    Returns
    -------
    numpy.ndarray
        (C,) float64 with sum 1.
    """
    values = random.exponential(size=channels)
    return values / values.sum()


def rank_match(content: NDArray, style: NDArray) -> NDArray:
    """The 2016 code's extra mode "purposeful" (utils.py: ModifyCode), not in the paper.

    The content's feature map with the i-th smallest energy takes the place of the style's
    feature map with the i-th smallest energy, shifted so that it has that one's mean.

    Parameters
    ----------
    content
        (1, C, M, N).
    style
        (1, C, M', N').

    Returns
    -------
    NDArray
        (1, C, M, N); values may be negative, as in the 2016 code.
    """
    content_mean, style_mean = (code.mean(axis=(2, 3)).asnumpy()[0] for code in (content, style))
    source = np.empty(len(content_mean), dtype=np.int64)
    source[np.argsort(style_mean, kind="stable")] = np.argsort(content_mean, kind="stable")
    shift = mx.nd.array(style_mean - content_mean[source], ctx=content.context)
    moved = content.take(mx.nd.array(source, ctx=content.context), axis=1)
    return mx.nd.broadcast_add(moved, shift.reshape((1, -1, 1, 1)))
