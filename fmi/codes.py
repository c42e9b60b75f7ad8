"""Operations on codes: Eq. 2, Eq. 3, energies, Gram matrices, rank matching.

A code contains the activations of a layer, an array of shape (B, C, M, N): B pictures, C feature
maps with M x N positions. No function modifies a code. Random shares and directions are NumPy
arrays.
"""

from __future__ import annotations

import zlib
from typing import List, Sequence

import numpy as np

from fmi.device.mxnet import NDArray, mx
from fmi.errors import unknown

__all__ = [
    "along",
    "directions",
    "energies",
    "energy",
    "energy_share",
    "gram",
    "isolate",
    "normal_shares",
    "rank_match",
    "reallocate",
    "shares",
    "silent",
    "simplex_shares",
]


def isolate(code: NDArray, filters: Sequence[int]) -> NDArray:
    """Set feature map `l` to the sum of all feature maps, and the others to 0 (Eq. 2).

    Parameters
    ----------
    code
        (1, C, M, N).
    filters
        The `l` of each target, numbered from 0.

    Returns
    -------
    NDArray
        (len(filters), C, M, N), one target for each filter.
    """
    chosen = mx.nd.one_hot(mx.nd.array(list(filters), ctx=code.context), code.shape[1])
    return along(code, chosen)


def along(code: NDArray, directions: NDArray) -> NDArray:
    """Set the code at each position to the sum of all feature maps times a direction.

    This extends Eq. 2 to directions in the space of channels; those along an axis are filters.

    Parameters
    ----------
    code
        (1, C, M, N).
    directions
        Unit vectors (D, C).

    Returns
    -------
    NDArray
        (D, C, M, N), one target for each direction.
    """
    total = code.sum(axis=1, keepdims=True)
    return mx.nd.broadcast_mul(directions.expand_dims(2).expand_dims(3), total)


def directions(channels: int, number: int, seed: int) -> np.ndarray:
    """Draw directions in the space of channels, uniform on the sphere (Bau et al. 2017).

    Parameters
    ----------
    channels
        Number of channels C.
    number
        Number of directions D. A direction does not depend on this number.
    seed
        Integer from 0 to 2**32 - 1.

    Returns
    -------
    numpy.ndarray
        Unit vectors (D, C) float64.
    """
    random = np.random.RandomState(seed)
    values = random.standard_normal((number, channels))
    return values / np.linalg.norm(values, axis=1, keepdims=True)


class _Energy(mx.autograd.Function):
    """:func:`energy` as a product with ones, since sums over space use only one core in MXNet."""

    def forward(self, code: NDArray) -> NDArray:
        self.shape = batch, channels, height, width = code.shape
        ones = mx.nd.ones(height * width, ctx=code.context, dtype=code.dtype)
        return mx.nd.dot(code.reshape((batch * channels, -1)), ones).reshape((batch, channels))

    def backward(self, gradient: NDArray) -> NDArray:
        return gradient.reshape((0, 0, 1, 1)).broadcast_to(self.shape)


class _Gram(mx.autograd.Function):
    """:func:`gram`, with its gradient ``(D + D^T) F`` as one product.

    The gradient in MXNet computes ``D F``, ``D^T F`` and their sum, each as large as the code.
    """

    def forward(self, code: NDArray) -> NDArray:
        self.save_for_backward(code)
        return mx.nd.linalg.syrk(code.reshape((0, 0, -1)))

    def backward(self, gradient: NDArray) -> NDArray:
        (code,) = self.saved_tensors
        both = gradient + gradient.transpose((0, 2, 1))
        return mx.nd.batch_dot(both, code.reshape((0, 0, -1))).reshape(code.shape)


def energy(code: NDArray) -> NDArray:
    """Return the sum of each feature map over its positions (B, C), the energy of section 2.2."""
    return _Energy()(code)


def energy_share(energies: NDArray, filters: Sequence[int]) -> np.ndarray:
    """Return the share of a code's energy that lies in one feature map, for each picture.

    Parameters
    ----------
    energies
        The energies of all feature maps, (B, C), from :func:`energies`.
    filters
        The feature map of each picture, B numbers.

    Returns
    -------
    numpy.ndarray
        (B,) float64; NaN if the energy of the whole code is 0.
    """
    values = energies.asnumpy()
    with np.errstate(invalid="ignore"):
        return values[np.arange(len(values)), list(filters)] / values.sum(axis=1)


def gram(code: NDArray) -> NDArray:
    """Return the Gram matrix (B, C, C): sums over positions of products of feature maps."""
    return _Gram()(code)


def energies(code: NDArray) -> NDArray:
    """Return :func:`energy` in float64, because float32 sums of 200,000 terms lose digits.

    A large code is converted in parts, as the whole would need twice its memory once more.
    """
    channels = code.shape[1]
    step = max(1, _AT_ONCE * channels // code.size)
    bounds = [*range(0, channels, step), channels]
    parts = [
        energy(code.slice_axis(axis=1, begin=begin, end=end).astype("float64"))
        for begin, end in zip(bounds, bounds[1:])
    ]
    return mx.nd.concat(*parts, dim=1)


_AT_ONCE = 1 << 24  # values of a code


def reallocate(code: NDArray, shares: NDArray) -> NDArray:
    """Give feature map c the share ``v_c`` of the code's total energy (Eq. 3).

    A feature map whose sum is not positive cannot be given a share (the 2016 code divides 0 by 0).
    It becomes 0 and does not count towards the total; :func:`silent` finds these. The total is
    therefore never negative, and no feature map is multiplied by a negative number unless its
    share is negative. If no sum is positive, the whole target is 0. In codes without negative
    values, as after a relu, the total is the sum of all values.

    Parameters
    ----------
    code
        (1, C, M, N).
    shares
        (B, C), the ``v`` of each target; each row has sum 1.

    Returns
    -------
    NDArray
        (B, C, M, N).
    """
    sums = energies(code)
    active = sums > 0
    sums = mx.nd.where(active, sums, mx.nd.zeros_like(sums))
    total = sums.sum(axis=1, keepdims=True)
    scale = mx.nd.broadcast_mul(shares.astype("float64"), total / (sums + (1 - active)))
    kept = mx.nd.broadcast_mul(scale, active)
    return mx.nd.broadcast_mul(code, kept.astype("float32").expand_dims(2).expand_dims(3))


def silent(code: NDArray) -> List[int]:
    """Return the indices of the feature maps of a (1, C, M, N) code whose sum is not positive.

    These are the feature maps that :func:`reallocate` sets to 0.
    """
    return np.flatnonzero(~(energies(code).asnumpy()[0] > 0)).tolist()


def shares(distribution: str, channels: int, seed: int, draw: int, layer: str) -> np.ndarray:
    """Draw ``v`` of Eq. 3 for one layer and one draw.

    Draws differ between layers too: the same seed and draw give independent ``v`` at relu4_1 and
    relu5_1. They do not depend on other draws or layers, or on the machine.

    Parameters
    ----------
    distribution
        ``"normal"`` (:func:`normal_shares`) or ``"simplex"`` (:func:`simplex_shares`).
    channels
        Number of feature maps C.
    seed, draw
        Integers from 0 to 2**32 - 1.
    layer
        Name of the layer.

    Returns
    -------
    numpy.ndarray
        (C,) float64 with sum 1.

    Raises
    ------
    InputError
        If the distribution is unknown.
    """
    if distribution not in _SHARES:
        raise unknown("shares", distribution, _SHARES)
    random = np.random.RandomState([seed, draw, zlib.crc32(layer.encode())])
    return _SHARES[distribution](random, channels)


def normal_shares(random: np.random.RandomState, channels: int) -> np.ndarray:
    """Draw ``v`` of Eq. 3 as in the 2016 code: normal(3, 1e3) divided by its sum.

    About half of the values are negative, although the paper requires ``v_c >= 0``.

    Returns
    -------
    numpy.ndarray
        (C,) float64 with sum 1.
    """
    values = random.normal(3, 1e3, channels)
    return values / values.sum()


def simplex_shares(random: np.random.RandomState, channels: int) -> np.ndarray:
    """Draw ``v`` of Eq. 3 as in the paper: ``v_c >= 0`` with sum 1, uniform on the simplex.

    Returns
    -------
    numpy.ndarray
        (C,) float64 with sum 1.
    """
    values = random.exponential(size=channels)
    return values / values.sum()


_SHARES = {"normal": normal_shares, "simplex": simplex_shares}


def rank_match(content: NDArray, style: NDArray) -> NDArray:
    """Match feature maps by rank: mode "purposeful" of the 2016 code (utils.py: ModifyCode).

    The paper does not describe this mode. The content feature map with the i-th smallest energy
    replaces the style feature map with the i-th smallest energy, and is shifted to its mean.

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
