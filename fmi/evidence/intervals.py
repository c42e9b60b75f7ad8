"""Intervals: a value, and how far it could lie elsewhere with other filters and other pictures."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Callable, List, Sequence, Tuple, Union

import numpy as np
from scipy.special import ndtri, stdtrit

from fmi.errors import InputError, shown

__all__ = ["Estimate", "Statistic", "bootstrap", "difference", "mean", "numbers"]

# From the counts of the units of each axis, (n_i,) float, to a number; NaN where it has no value.
Statistic = Callable[[List[np.ndarray]], float]


@dataclass(frozen=True)
class Estimate:
    """A value with the interval of a bootstrap.

    Attributes
    ----------
    value
        The statistic of the data themselves.
    low, high
        The ends of the interval, between which the value lies.
    """

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        """Return a text such as ``.43 [.38, .49]``, as exact as the interval is narrow."""
        half = (self.high - self.low) / 2
        size = max(abs(self.low), abs(self.high))
        places = max(0, -math.floor(math.log10(half / 4))) if half > 0 else -1
        if 0 <= places <= 5 and size < 1e5:
            rounded = [round(number, places) + 0.0 for number in (self.value, self.low, self.high)]
            texts = [f"{number:.{places}f}" for number in rounded]  # without a minus before zero
        else:
            texts = [f"{number:.3g}" for number in (self.value, self.low, self.high)]
        value, low, high = (re.sub(r"^(-?)0\.", r"\1.", text) for text in texts)
        return f"{value} [{low}, {high}]"


def bootstrap(
    statistic: Statistic,
    sizes: Sequence[int],
    resamples: int = 1000,
    seed: int = 0,
    confidence: float = 0.95,
    bounds: Tuple[float, float] = (-math.inf, math.inf),
) -> Estimate:
    r"""Return a statistic of crossed data with an interval over the units of each axis.

    The pigeonhole bootstrap (Owen 2007, The pigeonhole bootstrap, Annals of Applied Statistics 1,
    386-411, section 4) draws the units of each axis, such as filters and pictures, independently
    and with replacement. The statistic is told how often each unit was drawn, so that it need not
    mistake two copies of one filter for two filters.

    Percentile intervals are too narrow for a handful of units. Their two halves are therefore
    widened (Hesterberg 2015, What teachers should know about the bootstrap, The American
    Statistician 69, 371-386, section 4: "expanded percentile"), here by

    .. math:: \frac{t_d}{z} \sqrt{\sum_a V_a / \sum_a V_a (n_a - 1) / n_a},
              \quad d = (\sum_a V_a)^2 / \sum_a V_a^2 / (n_a - 1),

    where V_a is the jackknife variance of the statistic over the n_a units of axis a, and t_d and
    z are quantiles of Student's distribution with Satterthwaite's degrees of freedom d and of the
    normal one. Measured on 1500 draws of normal filter and picture effects with noise, the mean
    over 16 filters and 4 pictures was inside the 95 % interval in 95 to 96 % (percentiles: 84 to
    90 %), with noise alone or filters alone in 98 to 99 %, with log-normal effects in 87 to 92 %
    (82 to 85 %); over 4 filters and 4 pictures in 95 to 98 % (84 to 90 %).

    Parameters
    ----------
    statistic
        Function of a list of arrays (n_i,) float, how often each unit of each axis counts; NaN
        where it is not defined, as for pairs of different pictures when one was drawn each time.
        Such draws are left out.
    sizes
        The number of units of each axis, at least two.
    resamples, seed
        The number of draws, and what they follow from.
    confidence
        The confidence of the interval.
    bounds
        The range that the statistic cannot leave.

    Raises
    ------
    InputError
        If an axis has fewer than two units, or the statistic is not finite for the data, for the
        data without any one unit, or for half of the draws.
    """
    counts = [int(size) for size in sizes]
    if min(counts, default=0) < 2:
        raise InputError(f"an interval needs at least 2 units of each axis, not {tuple(counts)}")
    if resamples < 2 or not 0 < confidence < 1:
        raise InputError(
            f"an interval of confidence {shown(confidence)} from {shown(resamples)} draws: "
            "confidence must be between 0 and 1, and there must be at least 2 draws"
        )
    value = float(statistic([np.ones(n) for n in counts]))
    if not math.isfinite(value):
        raise InputError(f"the statistic has no finite value: {value}")
    random = np.random.RandomState(seed)
    draws = [random.multinomial(n, np.full(n, 1 / n), size=resamples) for n in counts]
    found = np.array([statistic([d[i].astype(float) for d in draws]) for i in range(resamples)])
    found = found[np.isfinite(found)]
    if 2 * len(found) <= resamples:
        raise InputError(
            f"the statistic is not defined in {resamples - len(found)} of {resamples} draws of "
            f"{' x '.join(map(str, counts))} units; take more units"
        )
    tail = (1 - confidence) / 2
    low, high = np.quantile(found, [tail, 1 - tail])
    wider = _expansion(statistic, counts, tail)
    low, high = value - wider * max(value - low, 0), value + wider * max(high - value, 0)
    return Estimate(
        value, min(max(float(low), bounds[0]), value), max(min(float(high), bounds[1]), value)
    )


def _expansion(statistic: Statistic, counts: Sequence[int], tail: float) -> float:
    """Return the factor by which :func:`bootstrap` widens the percentile interval."""
    variances = []
    for axis, n in enumerate(counts):
        without = []
        for unit in range(n):
            weights = [np.ones(m) for m in counts]
            weights[axis][unit] = 0
            without.append(statistic(weights))
        if not np.isfinite(without).all():
            raise InputError(
                f"the statistic is not defined without one of the {n} units of axis {axis}; "
                "take more units"
            )
        variances.append((n - 1) / n * np.square(np.array(without) - np.mean(without)).sum())
    if not max(variances) > 0:
        return 1.0
    v, sizes = (
        np.array(variances) / max(variances),
        np.array(counts),
    )  # so that no square underflows
    freedom = v.sum() ** 2 / (v**2 / (sizes - 1)).sum()
    student = stdtrit(freedom, 1 - tail) / ndtri(1 - tail)
    return float(student * math.sqrt(v.sum() / (v * (sizes - 1) / sizes).sum()))


def numbers(name: str, values: object, dimensions: Sequence[int]) -> np.ndarray:
    """Return values as a float array, in which NaN stands for what is missing.

    Parameters
    ----------
    name
        What the values are, for the message.
    values
        An array or what NumPy makes one of.
    dimensions
        The allowed numbers of dimensions.

    Raises
    ------
    InputError
        If the values are no numbers, infinite, all missing, or of another number of dimensions.
    """
    try:
        array = np.asarray(values, dtype=float)
    except (TypeError, ValueError):
        raise InputError(f"{name} must be an array of numbers, not {shown(values)}") from None
    if array.ndim not in dimensions:
        allowed = " or ".join(map(str, dimensions))
        raise InputError(f"{name} has shape {array.shape}; it must have {allowed} dimensions")
    if not array.size or np.isnan(array).all():
        raise InputError(f"{name} of shape {array.shape} holds no number")
    if np.isinf(array).any():
        raise InputError(f"{name} holds an infinite number at {_first(np.isinf(array))}")
    return array


def _first(mask: np.ndarray) -> Tuple[int, ...]:
    return tuple(int(i) for i in np.argwhere(mask)[0])


def mean(
    values: np.ndarray,
    axes: Sequence[int] = (0, 1),
    resamples: int = 1000,
    seed: int = 0,
    bounds: Tuple[float, float] = (-math.inf, math.inf),
) -> Estimate:
    """Return the mean of an array with an interval over the units of some of its axes.

    Parameters
    ----------
    values
        Array (N, K, ...); NaN stands for a value that is missing and is left out.
    axes
        The axes whose units are drawn; the array is averaged over the others first.
    resamples, seed, bounds
        As for :func:`bootstrap`.

    Raises
    ------
    InputError
        As :func:`bootstrap` does; a unit without any value does not count.
    """
    return bootstrap(*_mean("values", values, axes), resamples, seed, bounds=bounds)


def _mean(name: str, values: object, axes: Sequence[int]) -> Tuple[Statistic, List[int]]:
    """Return the weighted mean over some axes, and the number of units of each."""
    cells = _cells(name, values, axes)
    known = ~np.isnan(cells)
    for axis in range(cells.ndim):  # a unit of which nothing is known says nothing of the others
        some = known.any(axis=tuple(i for i in range(cells.ndim) if i != axis))
        cells, known = (np.compress(some, array, axis=axis) for array in (cells, known))
    filled, present = np.where(known, cells, 0.0), known.astype(float)

    def statistic(weights: List[np.ndarray]) -> float:
        total, count = filled, present
        for weight in reversed(weights):
            total, count = total @ weight, count @ weight
        return float(total / count) if count > 0 else math.nan

    return statistic, list(cells.shape)


def _cells(name: str, values: object, axes: Sequence[int]) -> np.ndarray:
    """Return the means of the known values over all but some axes, which come in their order."""
    array = np.asarray(values)
    if not axes or len(set(axes)) < len(axes) or not all(0 <= axis < array.ndim for axis in axes):
        raise InputError(f"{name} of shape {array.shape} has no axes {tuple(axes)} to draw from")
    array = numbers(name, values, [array.ndim])
    array = np.moveaxis(array, list(axes), list(range(len(axes))))
    array = array.reshape(*array.shape[: len(axes)], -1)
    known = ~np.isnan(array)
    total, count = np.where(known, array, 0.0).sum(axis=-1), known.sum(axis=-1)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def difference(
    first: np.ndarray,
    second: np.ndarray,
    axes: Sequence[int] = (0, 1),
    paired: Union[bool, Sequence[int]] = True,
    resamples: int = 1000,
    seed: int = 0,
    bounds: Tuple[float, float] = (-math.inf, math.inf),
) -> Estimate:
    """Return the mean of one array minus the mean of another, with an interval.

    Parameters
    ----------
    first, second
        Arrays (N, K, ...) and (M, L, ...), as for :func:`mean`. What is missing in one is left
        out in both if all axes are paired.
    axes
        The axes whose units are drawn.
    paired
        The axes along which both have the same units, which are then drawn once for both: all if
        true, none if false, or a list such as ``(1,)`` for other filters on the same pictures.
    resamples, seed, bounds
        As for :func:`bootstrap`.

    Raises
    ------
    InputError
        As for :func:`mean`, or if a paired axis is not equally long in both.
    """
    common = list(axes) if paired is True else [] if paired is False else list(paired)
    if not set(common) <= set(axes):
        raise InputError(f"paired={tuple(common)} must be among the axes {tuple(axes)}")
    cells, others = _cells("first", first, axes), _cells("second", second, axes)
    places = list(range(len(axes)))
    both = [place for place in places if axes[place] in common]
    if any(cells.shape[place] != others.shape[place] for place in both):
        raise InputError(
            f"first {np.shape(first)} and second {np.shape(second)} are paired along the axes "
            f"{tuple(common)}, which must be equally long"
        )
    if both == places:
        return mean(cells - others, places, resamples, seed, bounds)
    cells, others = _known_units(cells, others, both)
    one, sizes = _mean("first", cells, places)
    other, more = _mean("second", others, places)
    own = [place for place in places if place not in both]

    def statistic(weights: List[np.ndarray]) -> float:
        others = list(weights[: len(places)])
        for place, weight in zip(own, weights[len(places) :]):
            others[place] = weight
        return one(list(weights[: len(places)])) - other(others)

    return bootstrap(
        statistic, [*sizes, *(more[place] for place in own)], resamples, seed, bounds=bounds
    )


def _known_units(
    cells: np.ndarray, others: np.ndarray, both: Sequence[int]
) -> Tuple[np.ndarray, np.ndarray]:
    """Return two arrays without the units of which nothing is known, in either where common."""
    while True:
        sizes = cells.shape, others.shape
        for place in range(cells.ndim):
            rest = tuple(i for i in range(cells.ndim) if i != place)
            some, others_some = (~np.isnan(array).all(axis=rest) for array in (cells, others))
            if place in both:
                some = others_some = some & others_some
            cells = np.compress(some, cells, axis=place)
            others = np.compress(others_some, others, axis=place)
        if (cells.shape, others.shape) == sizes:
            return cells, others
