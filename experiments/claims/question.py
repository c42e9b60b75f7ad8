"""Questions: what a claim module offers, and what its measurements have in common."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Callable, Iterable, List, Optional, Sequence, Tuple

import numpy as np

from experiments.claims.study import Study
from experiments.claims.table import FILTERS, Row, Sentence, Verdict
from fmi.errors import InputError
from fmi.evidence import intervals
from fmi.evidence.intervals import Estimate

__all__ = [
    "MISSING",
    "Question",
    "Rows",
    "exceeds",
    "geometric",
    "listed",
    "missing",
    "of_layers",
    "values",
]

MISSING = Estimate(math.nan, math.nan, math.nan)
Answer = Tuple[Verdict, str]


@dataclass(frozen=True)
class Question(Sentence):
    """A sentence of the paper, and how it is measured.

    Attributes
    ----------
    kinds
        The kinds of panels that it is measured on.
    measure
        Function of a study that returns the rows of the table.
    answer
        Function of these rows and of the names of the layers that returns the verdict, and one
        sentence with the numbers.
    """

    kinds: Sequence[str]
    measure: Callable[[Study], List[Row]]
    answer: Callable[[Sequence[Row], Sequence[str]], Answer]


class Rows:
    """The rows of a claim, as they are measured.

    Parameters
    ----------
    claim
        Number of the claim.
    """

    def __init__(self, claim: str) -> None:
        self.claim = claim
        self.found: List[Row] = []

    def add(
        self,
        quantity: str,
        layer: str,
        subject: str,
        estimate: Callable[..., Estimate],
        *arguments: Any,
        chance: Optional[float] = None,
        number: int = 0,
        note: str = "",
    ) -> None:
        """Add a row with the value of ``estimate(*arguments)``.

        If that raises an InputError, the value is missing, and the note says why.
        """
        try:
            found = estimate(*arguments)
        except InputError as error:
            found, note = MISSING, "; ".join(filter(None, [note, f"not estimated: {error}"]))
        self.found.append(Row(self.claim, quantity, layer, subject, found, chance, number, note))

    def mean(
        self,
        quantity: str,
        layer: str,
        subject: str,
        array: np.ndarray,
        *,
        chance: Optional[float] = None,
        bounds: Tuple[float, float] = (-math.inf, math.inf),
        binary: bool = False,
        note: str = "",
    ) -> None:
        """Add the mean of an array (N, K, ...) over filters and pictures.

        The interval is over the axis that has more than one unit if the other has only one, such as
        over pictures where there is no filter. `bounds` are those of the quantity. `binary` values
        are 0, 1 or NaN, whose mean is a share.
        """
        axes = [axis for axis in (0, 1) if array.shape[axis] > 1]
        known = ~np.isnan(np.moveaxis(array, axes[:1], [0][: len(axes)]))
        number = int(known.any(axis=tuple(range(1, array.ndim))).sum())

        def estimate() -> Estimate:
            found = intervals.mean(array, axes, bounds=(0, 1) if binary else bounds)
            return intervals.share(found, number) if binary else found

        self.add(quantity, layer, subject, estimate, chance=chance, number=number, note=note)


def values(
    rows: Iterable[Row], quantity: str, layers: Sequence[str], subject: str = FILTERS
) -> List[Estimate]:
    """Return the estimates of a quantity at each layer, :data:`MISSING` where there is none."""
    found = {(row.quantity, row.layer, row.subject): row.estimate for row in rows}
    return [found.get((quantity, layer, subject), MISSING) for layer in layers]


def exceeds(estimate: Estimate, limit: float) -> bool:
    """Return whether the whole interval lies above a limit; false if either is missing."""
    return bool(estimate.low > limit)


def missing(estimates: Iterable[Estimate]) -> bool:
    """Return whether nothing of some quantity could be measured."""
    return all(math.isnan(estimate.value) for estimate in estimates)


def of_layers(
    holds: Sequence[bool], decisive: Sequence[Sequence[Estimate]], also: Sequence[bool] = ()
) -> Verdict:
    """Return the verdict for what holds at each layer.

    Parameters
    ----------
    holds
        Whether the sentence holds at each layer.
    decisive
        The quantities at each layer that this follows from. If one is nowhere known, nothing does.
    also
        Whether it holds against a control too; without that, it holds in part at most.
    """
    if any(missing(estimates) for estimates in decisive):
        return Verdict.UNMEASURED
    if not any(holds):
        return Verdict.FAILS
    return Verdict.HOLDS if all(holds) and all(also) else Verdict.IN_PART


def listed(names: Iterable[object], most: int = 40) -> str:
    """Return names with commas between, at most `most` of them."""
    texts = [str(name) for name in names]
    more = f" and {len(texts) - most} more" if len(texts) > most else ""
    return ", ".join(texts[:most]) + more


def geometric(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Return the logarithm to base 2 of a ratio: 1 for twice as much; NaN where it is undefined."""
    with np.errstate(divide="ignore", invalid="ignore"):
        found = np.log2(numerator / denominator)
    return np.where(np.isfinite(found), found, np.nan)
