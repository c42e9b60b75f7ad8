"""Losses as terms that add up: ``losses.code(...) + losses.gram(...)``.

A term compares something made of one layer's code with a target; its value is
``weight * ||difference||^2`` for each picture of a batch, so that the pictures' gradients stay
apart.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Callable, Mapping, Sequence, Tuple

from fmi import codes
from fmi.device.mxnet import NDArray, mx
from fmi.settings import Transfer


def squared_length(batch: NDArray) -> NDArray:
    """``||x||^2`` of each picture's part of a batch (B, ...): (B,).

    By BLAS' scalar products: MXNet's own sums into few numbers run on one core.
    """
    rows = batch.reshape((batch.shape[0], -1))
    return mx.nd.concat(*[mx.nd.dot(row, row) for row in rows], dim=0)


class SquaredError(mx.autograd.Function):
    """``weight ||x - target||^2`` of each picture of a batch (B, ...), and its gradient.

    Like MXNet's output layers it is the end of what is differentiated: losses may be added up, but
    a factor in front of them does not reach the gradient (:meth:`Loss.times` does). Differentiated
    by hand because MXNet's operators take five passes over the code for it, some of them slow.
    """

    def __init__(self, target: NDArray, weight: float) -> None:
        super().__init__()
        self.target = target
        self.weight = weight

    def forward(self, statistic: NDArray) -> NDArray:
        """(B, ...) to (B,)."""
        self.difference = mx.nd.elemwise_sub(statistic, self.target)
        return squared_length(self.difference) * self.weight

    def backward(self, _: NDArray) -> NDArray:
        """``2 weight (x - target)``."""
        if self.weight != 0.5:
            self.difference *= 2 * self.weight
        return self.difference


@dataclass(frozen=True)
class Term:
    """``weight * ||statistic(F) - target||^2`` at one layer."""

    layer: str
    statistic: Callable[[NDArray], NDArray]  # (B, C, M, N) -> (B, ...)
    target: NDArray  # (B, ...)
    weight: float

    def __call__(self, code: NDArray) -> NDArray:
        """(B,) loss of a (B, C, M, N) code."""
        return SquaredError(self.target, self.weight)(self.statistic(code))


@dataclass(frozen=True)
class Loss:
    """A sum of terms."""

    terms: Tuple[Term, ...]

    def __add__(self, other: Loss) -> Loss:
        return Loss(self.terms + other.terms)

    def __call__(self, code: Mapping[str, NDArray]) -> NDArray:
        """(B,) loss of the layers' codes, each (B, C, M, N)."""
        total = self.terms[0](code[self.terms[0].layer])
        for term in self.terms[1:]:
            total = total + term(code[term.layer])
        return total

    def times(self, factor: float) -> Loss:
        """The loss multiplied by a number."""
        return Loss(tuple(replace(term, weight=term.weight * factor) for term in self.terms))

    def take(self, pictures: Sequence[int]) -> Loss:
        """The loss of some of the batch's pictures."""
        chosen = mx.nd.array(list(pictures), ctx=self.terms[0].target.context)
        return Loss(tuple(replace(term, target=term.target.take(chosen)) for term in self.terms))

    @property
    def pictures(self) -> int:
        """How many pictures the targets are for (B)."""
        return int(self.terms[0].target.shape[0])


def _itself(code: NDArray) -> NDArray:
    return code


def code(layer: str, target: NDArray, weight: float) -> Loss:
    """``weight * ||F - T||^2`` (Eq. 1 and 4) for targets (B, C, M, N)."""
    return Loss((Term(layer, _itself, target, weight),))


def all_codes(targets: Mapping[str, NDArray], weight: float) -> Loss:
    """:func:`code` summed over layers, for a target (B, C, M, N) of each."""
    terms = [code(layer, target, weight).terms[0] for layer, target in targets.items()]
    return Loss(tuple(terms))


def purposeful(
    content: Mapping[str, NDArray], style: Mapping[str, NDArray], scheme: Transfer
) -> Loss:
    """``alpha ||F - P||^2 + beta ||F I - S I||^2`` (Eq. 5, PMCI).

    P is the content picture's code at the content layer, S I are the sums of the style picture's
    feature maps, added up over the style layers.

    Parameters
    ----------
    content, style
        Codes (1, C, M, N) of both pictures; those of the style picture may have another size.
    scheme
        Layers, alpha, beta, and by what each term is divided.
    """
    return _transfer(content, style, scheme, codes.energy, energy)


def gatys(content: Mapping[str, NDArray], style: Mapping[str, NDArray], scheme: Transfer) -> Loss:
    """``alpha ||F - P||^2 + beta ||F F^T - S S^T||^2`` (Gatys et al. 2016).

    The parameters are those of :func:`purposeful`; Gram matrices take the place of the sums.
    """
    return _transfer(content, style, scheme, codes.gram, gram)


def _transfer(
    content: Mapping[str, NDArray],
    style: Mapping[str, NDArray],
    scheme: Transfer,
    statistic: Callable[[NDArray], NDArray],
    term: Callable[[str, NDArray, float], Loss],
) -> Loss:
    kept = content[scheme.content_layer]
    loss = code(scheme.content_layer, kept, scheme.alpha * scheme.content(*extent(kept)))
    for layer in scheme.style_layers:
        channels, positions = extent(content[layer])
        # Sums over a style picture of its own size are brought to the content's positions.
        ratio = positions / extent(style[layer])[1]
        weight = scheme.beta * scheme.style(channels, positions)
        loss = loss + term(layer, statistic(style[layer]) * ratio, weight)
    return loss


def extent(values: NDArray) -> Tuple[int, int]:
    """Feature maps and positions of a code (B, C, M, N)."""
    return int(values.shape[1]), int(values.shape[2] * values.shape[3])


def energy(layer: str, target: NDArray, weight: float) -> Loss:
    """``weight * ||F I - T||^2``, the style term of Eq. 5, for sums of feature maps (B, C)."""
    return Loss((Term(layer, codes.energy, target, weight),))


def gram(layer: str, target: NDArray, weight: float) -> Loss:
    """``weight * ||F F^T - T||^2``, Gatys' style term, for Gram matrices (B, C, C)."""
    return Loss((Term(layer, codes.gram, target, weight),))
