"""Losses as terms that add up: ``losses.code(...) + losses.gram(...)``.

A term compares something made of one layer's code with a target; its value is
``weight * ||difference||^2`` for each picture of a batch, so that the pictures' gradients stay
apart.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Callable, Mapping, Sequence, Tuple

from fmi import codes, vgg
from fmi._mxnet import NDArray, mx


@dataclass(frozen=True)
class Term:
    """``weight * ||statistic(F) - target||^2`` at one layer."""

    layer: str
    statistic: Callable[[NDArray], NDArray]  # (B, C, M, N) -> (B, ...)
    target: NDArray  # (B, ...)
    weight: float

    def __call__(self, code: NDArray) -> NDArray:
        """(B,) loss of a (B, C, M, N) code."""
        difference = self.statistic(code) - self.target
        return difference.square().reshape((0, -1)).sum(axis=1) * self.weight

    def resized(self, before: Tuple[int, int], after: Tuple[int, int]) -> Term:
        """The same term for codes of another height and width, worth as much a position.

        A code is averaged over the positions that become one; a sum over positions shrinks as
        their number does, its square once more, which the weight makes up for.
        """
        if self.target.ndim == 4:
            pooled = mx.nd.contrib.AdaptiveAvgPooling2D(self.target, output_size=after)
            return replace(self, target=pooled)
        ratio = after[0] * after[1] / (before[0] * before[1])
        return replace(self, target=self.target * ratio, weight=self.weight / ratio)


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

    def take(self, pictures: Sequence[int]) -> Loss:
        """The loss of some of the batch's pictures."""
        chosen = mx.nd.array(list(pictures), ctx=self.terms[0].target.context)
        return Loss(
            tuple(
                Term(term.layer, term.statistic, term.target.take(chosen), term.weight)
                for term in self.terms
            )
        )

    def resized(self, before: Tuple[int, int], after: Tuple[int, int]) -> Loss:
        """The loss for pictures that are `after` instead of `before` pixels high and wide."""
        return Loss(
            tuple(
                term.resized(vgg.extent(term.layer, before), vgg.extent(term.layer, after))
                for term in self.terms
            )
        )

    @property
    def pictures(self) -> int:
        """How many pictures the targets are for (B)."""
        return int(self.terms[0].target.shape[0])


def _itself(code: NDArray) -> NDArray:
    return code


def code(layer: str, target: NDArray, weight: float) -> Loss:
    """``weight * ||F - T||^2`` (Eq. 1 and 4) for targets (B, C, M, N)."""
    return Loss((Term(layer, _itself, target, weight),))


def energy(layer: str, target: NDArray, weight: float) -> Loss:
    """``weight * ||F I - T||^2``, the style term of Eq. 5, for sums of feature maps (B, C)."""
    return Loss((Term(layer, codes.energy, target, weight),))


def gram(layer: str, target: NDArray, weight: float) -> Loss:
    """``weight * ||F F^T - T||^2``, Gatys' style term, for Gram matrices (B, C, C)."""
    return Loss((Term(layer, codes.gram, target, weight),))
