"""Losses as sums of terms: ``losses.code(...) + 0.1 * losses.gram(...)``.

A term compares a statistic of the code of one layer with a target. Its value is
``weight * ||difference||^2`` or ``weight * <statistic, target>``, separately for each picture of a
batch, so that the gradients of the pictures are independent.
"""

from __future__ import annotations

import math
import numbers
from dataclasses import dataclass, replace
from typing import Callable, Literal, Mapping, Optional, Sequence, Tuple

from fmi import codes
from fmi.device.mxnet import NDArray, mx
from fmi.errors import InputError
from fmi.settings import Transfer

__all__ = [
    "Loss",
    "SquaredError",
    "Sums",
    "Term",
    "activation",
    "all_codes",
    "code",
    "energy",
    "extent",
    "gatys",
    "gram",
    "inner_products",
    "purposeful",
    "squared_length",
]


def inner_products(batch: NDArray, other: NDArray) -> NDArray:
    """Return the inner product of each array of a batch (B, ...) with another one, (B,).

    This uses the dot product of BLAS, because sums to few numbers use only one core in MXNet.
    """
    rows = zip(batch.reshape((len(batch), -1)), other.reshape((len(other), -1)))
    return mx.nd.concat(*[mx.nd.dot(one, two) for one, two in rows], dim=0)


def squared_length(batch: NDArray) -> NDArray:
    """Return ``||x||^2`` for each picture of a batch (B, ...), (B,)."""
    return inner_products(batch, batch)


class SquaredError(mx.autograd.Function):
    """``weight ||x - target||^2`` for each picture of a batch (B, ...), and its gradient.

    The gradient is implemented explicitly because the operators of MXNet need five passes over the
    code, some of which are slow. It overwrites ``x - target``, so it can be computed only once.
    """

    def __init__(self, target: NDArray, weight: float) -> None:
        super().__init__()
        self.target = target
        self.weight = weight

    def forward(self, statistic: NDArray) -> NDArray:
        """Return the loss (B,) of each picture for a statistic (B, ...)."""
        self.difference = mx.nd.elemwise_sub(statistic, self.target)
        return squared_length(self.difference) * self.weight

    def backward(self, head: NDArray) -> NDArray:
        """Return the gradient ``2 weight head (x - target)`` for head gradients (B,)."""
        factors = 2 * self.weight * head.asnumpy()
        for difference, factor in zip(self.difference, factors.tolist()):
            if factor != 1:  # a pass over the code less
                difference *= factor
        return self.difference


@dataclass(frozen=True)
class Term:
    """A squared error ``weight * ||statistic(F) - target||^2`` at a layer, or an inner product.

    Attributes
    ----------
    layer
        Name of the layer.
    statistic
        Function from a code (B, C, M, N) to an array (B, ...).
    target
        Array (B, ...).
    weight
        Factor of the squared error or inner product.
    positions
        How the statistic depends on the positions of the code: ``"each"`` if it has the same
        positions and each depends on one position of the code alone, ``"summed"`` if it is a sum
        over the positions. ``None`` means neither; the code is then needed as a whole.
    squared
        Whether the term is a squared error; otherwise, it is an inner product.
    mask
        Mask (1, 1, M, N) by which the code is multiplied first, if there is one.
    """

    layer: str
    statistic: Callable[[NDArray], NDArray]
    target: NDArray
    weight: float
    positions: Optional[Literal["each", "summed"]] = None
    squared: bool = True
    mask: Optional[NDArray] = None

    def __call__(self, code: NDArray) -> NDArray:
        """Return the loss (B,) of a code (B, C, M, N)."""
        return self.of(self.measured(code))

    def measured(self, code: NDArray) -> NDArray:
        """Return the statistic (B, ...) of a code (B, C, M, N), inside the mask."""
        return self.statistic(code if self.mask is None else mx.nd.broadcast_mul(code, self.mask))

    def of(self, statistic: NDArray) -> NDArray:
        """Return the loss (B,) of a statistic (B, ...)."""
        if self.squared:
            return SquaredError(self.target, self.weight)(statistic)
        products = (statistic * self.target).reshape((len(self.target), -1))
        return products.sum(axis=1) * self.weight

    def of_zeros(self) -> NDArray:
        """Return the loss (B,) of statistics that are 0, ``weight * ||target||^2`` or 0."""
        return squared_length(self.target) * (self.weight if self.squared else 0)


@dataclass(frozen=True)
class Loss:
    """A sum of terms. Losses can be added, and multiplied by numbers: ``2 * a + b``."""

    terms: Tuple[Term, ...]

    __array_ufunc__ = None  # leaves np.float64(2) * loss to __rmul__

    def __add__(self, other: Loss) -> Loss:
        return Loss(self.terms + other.terms) if isinstance(other, Loss) else NotImplemented

    def __mul__(self, factor: float) -> Loss:
        """Return the loss with all weights multiplied by a factor, which may be negative.

        Raises
        ------
        InputError
            If the factor is not finite.
        """
        if not isinstance(factor, numbers.Real) or isinstance(factor, bool):
            return NotImplemented
        if not math.isfinite(factor):
            raise InputError(f"a loss cannot be multiplied by {factor}; use a finite number")
        weights = [term.weight * float(factor) for term in self.terms]
        return Loss(tuple(replace(t, weight=w) for t, w in zip(self.terms, weights)))

    __rmul__ = __mul__

    def __call__(self, code: Mapping[str, NDArray]) -> NDArray:
        """Return the loss (B,) of the codes of all layers, each (B, C, M, N)."""
        total = self.terms[0](code[self.terms[0].layer])
        for term in self.terms[1:]:
            total = total + term(code[term.layer])
        return total

    def explained(self, losses: NDArray) -> NDArray:
        """Return the part of the targets that codes explain, ``1 - loss / loss of zeros`` (B,).

        Parameters
        ----------
        losses
            The losses of the codes, (B,).

        Notes
        -----
        With one term, this is ``1 - ||F - T||^2 / ||T||^2``. It is 1 if the targets are reached, 0
        if a code of zeros is as near to them, and not finite if all targets are 0 or if no term is
        a squared error.
        """
        zeros = self.terms[0].of_zeros()
        for term in self.terms[1:]:
            zeros = zeros + term.of_zeros()
        return 1 - losses / zeros

    def take(self, pictures: Sequence[int]) -> Loss:
        """Return the loss of some pictures of the batch."""
        chosen = mx.nd.array(list(pictures), ctx=self.terms[0].target.context)
        return Loss(tuple(replace(term, target=term.target.take(chosen)) for term in self.terms))

    @property
    def pictures(self) -> int:
        """The number of pictures B for which there are targets."""
        return int(self.terms[0].target.shape[0])


def _itself(code: NDArray) -> NDArray:
    return code


def code(layer: str, target: NDArray, weight: float) -> Loss:
    """Return the loss ``weight * ||F - T||^2`` (Eq. 1 and 4) for targets (B, C, M, N)."""
    return Loss((Term(layer, _itself, target, weight, "each"),))


def all_codes(targets: Mapping[str, NDArray], weight: float) -> Loss:
    """Return the sum of :func:`code` over layers, for one target (B, C, M, N) per layer."""
    terms = [code(layer, target, weight).terms[0] for layer, target in targets.items()]
    return Loss(tuple(terms))


NO_MASKS: Mapping[str, Optional[NDArray]] = {}


@dataclass(frozen=True)
class Sums:
    """A statistic of a style picture that is a sum over the positions of a code.

    Attributes
    ----------
    values
        Energies (1, C) or Gram matrix (1, C, C).
    positions
        Number of positions that they are the sum over.
    wanted
        Number of positions to which the sums are rescaled: those of the content picture, or those
        inside a mask.
    """

    values: NDArray
    positions: float
    wanted: float


def purposeful(
    content: NDArray,
    style: Mapping[str, Sums],
    scheme: Transfer,
    masks: Mapping[str, Optional[NDArray]] = NO_MASKS,
) -> Loss:
    """Return the loss ``alpha a ||F - P||^2 + beta b ||F I - S I||^2`` (Eq. 5, PMCI).

    P is the code of the content picture at the content layer. S I are the sums of the feature maps
    of the style picture, rescaled to the number of positions of the content picture; the second
    term is summed over the style layers. The factors a and b are ``scheme.content`` and
    ``scheme.style``: 1 and 1 in Eq. 5, ``1 / (2 MN)`` and ``1 / (2 C MN)`` in the 2016 code.

    Parameters
    ----------
    content
        Code (1, C, M, N) of the content picture at the content layer.
    style
        Energies of the style picture at each style layer.
    scheme
        Layers, alpha, beta, and the weighting of each term.
    masks
        Masks (1, 1, M, N) of style layers, outside of which style counts nothing.
    """
    return _transfer(content, style, scheme, energy, masks)


def gatys(
    content: NDArray,
    style: Mapping[str, Sums],
    scheme: Transfer,
    masks: Mapping[str, Optional[NDArray]] = NO_MASKS,
) -> Loss:
    """Return the loss ``alpha a ||F - P||^2 + beta b ||F F^T - S S^T||^2`` (Gatys et al. 2016).

    The parameters are those of :func:`purposeful`; Gram matrices replace the energies. The factors
    a and b are ``1 / 2`` and ``1 / (4 C^2 (MN)^2)`` in Gatys et al. 2016, and ``1 / 2`` and
    ``1 / (4 C^2 MN)`` in the 2016 code. The Gram matrix is quadratic in the code, so that the code
    is multiplied by the root of a mask: each position counts as much as the mask is white.
    """
    roots = {name: None if mask is None else mask.sqrt() for name, mask in masks.items()}
    return _transfer(content, style, scheme, gram, roots)


def _transfer(
    content: NDArray,
    style: Mapping[str, Sums],
    scheme: Transfer,
    term: Callable[[str, NDArray, float], Loss],
    masks: Mapping[str, Optional[NDArray]],
) -> Loss:
    loss = code(scheme.content_layer, content, scheme.alpha * scheme.content(*extent(content)))
    for layer in scheme.style_layers:
        sums = style[layer]
        weight = scheme.beta * scheme.style(int(sums.values.shape[1]), sums.wanted)
        own = term(layer, sums.values * (sums.wanted / sums.positions), weight)
        loss = loss + Loss(tuple(replace(one, mask=masks.get(layer)) for one in own.terms))
    return loss


def extent(values: NDArray) -> Tuple[int, int]:
    """Return the number of feature maps and of positions of a code (B, C, M, N)."""
    return int(values.shape[1]), int(values.shape[2] * values.shape[3])


def energy(layer: str, target: NDArray, weight: float) -> Loss:
    """Return ``weight * ||F I - T||^2``, the style term of Eq. 5, for target sums (B, C)."""
    return Loss((Term(layer, codes.energy, target, weight, "summed"),))


def activation(layer: str, chosen: NDArray, weight: float) -> Loss:
    """Return ``-weight * <F I, chosen>``, which is smallest where activations are largest.

    This is the objective of activation maximisation (Erhan et al. 2009), without a target code.

    Parameters
    ----------
    layer
        Name of the layer.
    chosen
        The factor of each feature map (B, C); 1 for the chosen one and 0 for the others.
    weight
        Factor; ``1 / MN`` gives the mean over positions.
    """
    return Loss((Term(layer, codes.energy, chosen, -weight, "summed", squared=False),))


def gram(layer: str, target: NDArray, weight: float) -> Loss:
    """Return ``weight * ||F F^T - T||^2``, the style term of Gatys et al., for T (B, C, C)."""
    return Loss((Term(layer, codes.gram, target, weight, "summed"),))
