"""Clusters: how many groups some pictures fall into."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from fmi.device.environment import pip_install
from fmi.errors import InputError
from fmi.evidence.intervals import complete, numbers

__all__ = ["Gap", "gap"]


@dataclass(frozen=True)
class Gap:
    """The gap statistic of 1, 2, ... clusters.

    Attributes
    ----------
    number
        The number of clusters.
    values
        Gap(k) for k = 1, 2, ...: how much smaller the logarithm of the sum of squares within k
        clusters is than that of data without clusters.
    errors
        s(k), the standard error of each, from the spread of the data without clusters.
    """

    number: int
    values: np.ndarray
    errors: np.ndarray


def gap(features: np.ndarray, largest: int = 5, references: int = 20, seed: int = 0) -> Gap:
    """Return the number of clusters by the gap statistic.

    Tibshirani, Walther & Hastie 2001, Estimating the number of clusters in a data set via the gap
    statistic, Journal of the Royal Statistical Society B 63, 411-423, where the data without
    clusters are uniform in the box of the principal components (their choice b), and the
    clusters are those of k-means. The number, which can be 1, is the smallest k with
    ``Gap(k) >= max Gap - s``, s of the largest gap, as ``globalSEmax`` of R's ``clusGap``. The
    paper's rule, the smallest k with ``Gap(k) >= Gap(k + 1) - s(k + 1)``, ends too early where
    groups are equally far from each other: of 5 such groups of 10 pictures it told none in 10 of
    10 draws, this one 5 in each. Measured on 30 draws without groups each, it answers 1 in 87 %
    (uniform in 3 dimensions; spread that decays over 50) to 100 % (normal in 10 or 100).

    Parameters
    ----------
    features
        Array (n, D): D numbers about each of n pictures. All that matters is their distances, so
        that numbers of different units should be standardised before.
    largest
        The largest number of clusters that is considered.
    references
        The number of data sets without clusters.
    seed
        Seed of these data sets and of k-means.

    Raises
    ------
    InputError
        If scikit-learn is not installed, a number is missing, or there are not more different
        pictures than `largest`.
    """
    array = numbers("features", features, [2])
    complete("features", array)
    different = len(np.unique(array, axis=0))
    if largest < 1 or references < 2:
        raise InputError(f"largest={largest} must be at least 1, references={references} 2")
    if different <= largest:
        raise InputError(
            f"{different} different pictures do not tell 1 from {largest} clusters; there must be "
            f"more than {largest}"
        )
    kmeans = _kmeans()
    centred = array - array.mean(axis=0)
    left, sizes, _ = np.linalg.svd(centred / np.abs(centred).max(), full_matrices=False)
    # Distances in these coordinates are those of the features.
    points = (left * sizes)[:, sizes > sizes[0] * 1e-9]
    low, high = points.min(axis=0), points.max(axis=0)
    random = np.random.RandomState(seed)

    def within(sample: np.ndarray) -> np.ndarray:
        """Return the logarithms of the sums of squares within 1, 2, ... clusters."""
        fits = (
            kmeans(n_clusters=k, n_init=10, random_state=seed).fit(sample)
            for k in range(1, largest + 1)
        )
        return np.log([fit.inertia_ for fit in fits])

    without = np.array([within(random.uniform(low, high, points.shape)) for _ in range(references)])
    values = without.mean(axis=0) - within(points)
    errors = without.std(axis=0) * np.sqrt(1 + 1 / references)
    best = int(np.argmax(values))
    number = int(np.argmax(values >= values[best] - errors[best])) + 1
    return Gap(number, values, errors)


def _kmeans() -> Any:
    try:
        from sklearn.cluster import KMeans
    except ImportError:
        raise InputError(
            f"clusters need scikit-learn, which is not installed: {pip_install('claims')}"
        ) from None
    return KMeans
