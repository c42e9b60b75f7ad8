"""Intervals: a value, and how far it could lie elsewhere with other filters and other pictures."""

from __future__ import annotations

import itertools
import math
import re
from dataclasses import dataclass
from typing import Callable, List, Sequence, Tuple, Union

import numpy as np
from scipy.special import ndtri, stdtrit

from fmi.errors import InputError, shown

__all__ = [
    "Estimate",
    "Statistic",
    "bootstrap",
    "complete",
    "difference",
    "mean",
    "numbers",
    "share",
    "symmetric",
]

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
        """Return a text such as ``.43 [.38, .49]``, as exact as the interval is narrow.

        It is ``-`` where the value is NaN.
        """
        if math.isnan(self.value):
            return "-"
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
    386-411) draws the units of each axis, such as filters and pictures, independently and with
    replacement. The statistic is told how often each unit was drawn, so that it need not
    mistake two copies of one filter for two filters.

    Percentile intervals are too narrow for a handful of units (Hesterberg 2015, What teachers
    should know about the bootstrap, The American Statistician 69, 371-386), and the draws repeat
    the noise of each cell too often. The two halves of the interval are therefore brought to the
    width of Student's, ``t s / (z b)`` times their own, with the standard deviation b of the draws,
    the quantiles t of Student's distribution and z of the normal one, and the standard error s of
    the jackknife over all axes (as Cameron, Gelbach & Miller 2011, Robust inference with multiway
    clustering, Journal of Business & Economic Statistics 29, 238-249):

    .. math:: s^2 = \sum_a V_a - \sum_{a<b} V_{ab}, \quad
              V_a = \frac{n_a - 1}{n_a} \sum_i (\theta_{-i} - \bar\theta_a)^2, \quad
              V_{ab} = \frac{(n_a - 1)(n_b - 1)}{n_a n_b}
                       \sum_{ik} (\theta_{-i-k} - \theta_{-i} - \theta_{-k} + \theta)^2,

    at least the smallest V_a, with Satterthwaite's degrees of freedom, at least those of the
    shortest axis. Where s is 0 although the draws differ, as for 0 and 1 in the pattern of a chess
    board, the interval is that of the percentiles. Measured on 500 draws (1500 for percentiles, in
    brackets), the 95 % interval of the mean over 16 filters and 4 pictures held the truth in 94 %
    (88 %) with normal effects of both and noise, in 94 % (84 %) with pictures alone, in 96 % (96 %)
    with filters alone, in 98 % (99 %) with noise alone, and in 89 to 94 % (82 to 96 %) with
    log-normal effects; over 4 filters and 4 pictures in 93 to 96 %, with log-normal effects in 91
    to 94 %.

    Parameters
    ----------
    statistic
        Function of a list of arrays (n_i,) float, how often each unit of each axis counts; NaN
        where it is not defined, as for pairs of different pictures when one was drawn each time.
        Such draws are left out.
    sizes
        The number of units of each axis, at least two.
    resamples, seed
        Number of draws, and seed of the random numbers.
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
    error, student = _jackknife(statistic, counts, 1 - tail, value)
    spread = found.std()
    known = error > 1e-9 * spread  # not where what the units differ by cancels in each of them
    wider = student * error / (ndtri(1 - tail) * spread) if known else 1.0
    low, high = value - wider * max(value - low, 0), value + wider * max(high - value, 0)
    return Estimate(
        value, min(max(float(low), bounds[0]), value), max(min(float(high), bounds[1]), value)
    )


def _jackknife(
    statistic: Statistic, counts: Sequence[int], level: float, value: float
) -> Tuple[float, float]:
    """Return the standard error of a statistic, and the quantile of Student's t that goes with it.

    See :func:`bootstrap` for the formulas.
    """

    def without(*units: Tuple[int, int]) -> float:
        weights = [np.ones(n) for n in counts]
        for axis, unit in units:
            weights[axis][unit] = 0
        return statistic(weights)

    alone, variances = [], []
    for axis, n in enumerate(counts):
        found = np.array([without((axis, unit)) for unit in range(n)])
        if not np.isfinite(found).all():
            raise InputError(
                f"the statistic is not defined without one of the {n} units of axis {axis}; "
                "take more units"
            )
        alone.append(found)
        variances.append((n - 1) / n * np.square(found - found.mean()).sum())
    largest = max(variances)
    if not largest > 0:
        return 0.0, 1.0
    total = sum(variances)
    uncertain = sum((v / largest) ** 2 / (n - 1) for v, n in zip(variances, counts))
    for a, b in itertools.combinations(range(len(counts)), 2):
        both = [[without((a, i), (b, k)) for k in range(counts[b])] for i in range(counts[a])]
        extra = np.array(both) - alone[a][:, None] - alone[b][None] + value
        free = (counts[a] - 1) * (counts[b] - 1)
        shared = free / (counts[a] * counts[b]) * np.nansum(extra**2)
        total -= shared
        uncertain += (shared / largest) ** 2 / free
    total = max(total, min(variances))
    freedom = max((total / largest) ** 2 / uncertain, min(counts) - 1)
    return math.sqrt(total), float(stdtrit(freedom, level))


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


def complete(name: str, array: np.ndarray) -> None:
    """Raise an :class:`InputError` if a number is missing."""
    if np.isnan(array).any():
        raise InputError(f"{name} must be complete; nothing is at {_first(np.isnan(array))}")


def symmetric(name: str, values: object) -> np.ndarray:
    """Return distances of all pairs, a symmetric matrix (n, n), with zeros in its diagonal.

    Raises
    ------
    InputError
        If it is not square, not symmetric or not complete outside its diagonal.
    """
    array = numbers(name, values, [2]).copy()
    if array.shape[0] != array.shape[1]:
        raise InputError(f"{name} has shape {array.shape}; a matrix of distances is square")
    np.fill_diagonal(array, 0)
    complete(name, array)
    if not np.allclose(array, array.T, rtol=1e-5, atol=1e-8 * np.abs(array).max()):
        raise InputError(f"{name} {array.shape} is not symmetric")
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


def share(estimate: Estimate, units: int, confidence: float = 0.95) -> Estimate:
    """Return an estimate of a share, with the exact interval where all or none count.

    No draw differs from data that are all 0 or all 1, although other units might. The interval of
    Clopper and Pearson (1934, The use of confidence or fiducial limits, Biometrika 26, 404-413)
    takes the place of the bootstrap's then.

    Parameters
    ----------
    estimate
        A mean of zeros and ones with the interval of :func:`bootstrap`.
    units
        The number of units that do not depend on each other, such as filters.
    confidence
        The confidence of the interval.
    """
    least = ((1 - confidence) / 2) ** (1 / units)
    if estimate.low == estimate.high == 0:
        return Estimate(estimate.value, 0.0, 1 - least)
    if estimate.low == estimate.high == 1:
        return Estimate(estimate.value, least, 1.0)
    return estimate


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
