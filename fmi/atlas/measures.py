"""Measures: numbers about panels, and which filters have similar textures."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Dict, List, Optional, Sequence

import numpy as np
from scipy.cluster import hierarchy
from scipy.spatial.distance import squareform

from fmi.evidence import appearance, panels
from fmi.evidence.textures import OrientedBands, scaled

__all__ = [
    "LONG_EDGE",
    "MEASURES",
    "Appearance",
    "Measure",
    "State",
    "descriptor",
    "found_again",
    "means",
    "nearest",
    "order",
    "state",
]

LONG_EDGE = 256  # larger panels are reduced to it before their texture is described


class State:
    """What became of a panel.

    Attributes
    ----------
    DRIVEN
        The picture is nearer to the target than a code of zeros.
    WEAK
        It is not: the descent could not drive the filter.
    SILENT
        The code of the content picture is zero, so that there is no target.
    MISSING
        There is no intact result in the store.
    """

    DRIVEN = "driven"
    WEAK = "not driven"
    SILENT = "silent"
    MISSING = "missing"


def state(explained: Optional[float]) -> str:
    """Return the state of a finished inversion from the explained part of its target."""
    if explained is None:
        return State.SILENT
    return State.DRIVEN if explained > 0 else State.WEAK


@dataclass(frozen=True)
class Measure:
    """What a number of :class:`Appearance` is called, and what it means.

    Attributes
    ----------
    field
        Its attribute.
    title, about
        Its name, and a sentence about it.
    """

    field: str
    title: str
    about: str


MEASURES = (
    Measure("colourfulness", "Colourfulness", "0 for grey, about 110 for extremely colourful."),
    Measure("colour_entropy", "Entropy of colours", "In bits; 0 for a single colour."),
    Measure("centroid", "Mean spatial frequency", "Cycles per pixel; white noise has 0.38."),
    Measure("bandwidth", "Bandwidth", "In octaves; stripes of one width have 0."),
    Measure("anisotropy", "Anisotropy", "1 for stripes, 0 for no preferred orientation."),
    Measure("bands", "Significant bands", "Oriented bands with over 2 % of the energy."),
    Measure("size", "Compressed size", "Bytes per pixel; white noise has 3."),
    Measure("structure", "Similarity to the picture", "Structural similarity (SSIM), at most 1."),
    Measure("edges", "Edges kept", "Correlation of the edges with those of the picture."),
)


@dataclass(frozen=True)
class Appearance:
    """The numbers of :mod:`fmi.evidence` about one panel, which :data:`MEASURES` explains.

    ``None`` stands for what is not defined, such as the spatial frequency of one colour.
    """

    colourfulness: float
    colour_entropy: float
    centroid: Optional[float]
    bandwidth: Optional[float]
    anisotropy: Optional[float]
    bands: int
    size: float
    structure: float
    edges: float

    @classmethod
    def of(cls, panel: np.ndarray, picture: np.ndarray) -> Appearance:
        """Measure a panel beside the content picture, both (H, W, 3) uint8 RGB."""
        kept = panels.kept(panel, picture)
        return cls(
            colourfulness=appearance.colourfulness(panel),
            colour_entropy=appearance.colour_entropy(panel),
            centroid=_defined(appearance.centroid(panel)),
            bandwidth=_defined(appearance.bandwidth(panel)),
            anisotropy=_defined(appearance.anisotropy(panel)),
            bands=appearance.significant_bands(panel),
            size=appearance.compressed_size(panel),
            structure=kept.ssim,
            edges=kept.edges,
        )


def _defined(value: float) -> Optional[float]:
    return value if math.isfinite(value) else None


def descriptor(panel: np.ndarray) -> np.ndarray:
    """Return the texture of a panel, (H, W, 3) uint8 RGB, as oriented bands (D,) float32."""
    edge = min(LONG_EDGE, max(panel.shape[:2]))
    return OrientedBands().of([scaled(panel, edge)])[0]


def means(descriptors: Sequence[Sequence[Optional[np.ndarray]]]) -> List[Optional[np.ndarray]]:
    """Return the mean descriptor of each filter over its pictures.

    From each descriptor, the mean of all filters' from the same picture is subtracted first, so
    that a filter of which some panels are missing is not taken for a different one.

    Parameters
    ----------
    descriptors
        For each filter, the descriptor (D,) of its panel from each picture, or ``None``.

    Returns
    -------
    list
        (D,) float64 for each filter, or ``None`` if it has no panel.
    """
    centres: Dict[int, np.ndarray] = {}
    for place in range(len(descriptors[0]) if descriptors else 0):
        there = [row[place] for row in descriptors if row[place] is not None]
        if there:
            centres[place] = np.mean(np.asarray(there, np.float64), axis=0)
    found: List[Optional[np.ndarray]] = []
    for row in descriptors:
        own = [one - centres[place] for place, one in enumerate(row) if one is not None]
        found.append(np.mean(own, axis=0) if own else None)
    return found


def order(distances: np.ndarray) -> List[int]:
    """Return an order of items in which neighbours are alike.

    It is the order of the leaves of a tree of average linkage in which the sum of the distances of
    neighbours is smallest (Bar-Joseph et al. 2001, Fast optimal leaf ordering for hierarchical
    clustering).

    Parameters
    ----------
    distances
        Symmetric (n, n), with zeros on the diagonal.
    """
    if len(distances) < 3:
        return list(range(len(distances)))
    condensed = squareform(distances, checks=False)
    tree = hierarchy.linkage(condensed, "average", optimal_ordering=True)
    return [int(leaf) for leaf in hierarchy.leaves_list(tree)]


def nearest(distances: np.ndarray, number: int) -> List[int]:
    """Return the places of the smallest finite distances (n,), the smallest first."""
    ranked = np.argsort(distances, kind="stable")[:number]
    return [int(place) for place in ranked if np.isfinite(distances[place])]


def found_again(
    descriptors: Sequence[Sequence[Optional[np.ndarray]]],
) -> List[Optional[float]]:
    """Return for each filter how often its texture is found again in panels of other pictures.

    For each panel of the filter and each other picture of which it has a panel, the nearest panel
    of that picture is looked for among all filters, as by
    :func:`fmi.evidence.retrieval.found_again`; the result is the share of the cases in which it is
    the filter's own. Of several that are equally near, the filter's share counts.

    Parameters
    ----------
    descriptors
        As for :func:`means`.

    Returns
    -------
    list
        A share for each filter; ``None`` if it has panels of less than two pictures.
    """
    pictures = range(len(descriptors[0]) if descriptors else 0)
    scores: List[List[float]] = [[] for _ in descriptors]
    have = {p: [n for n, row in enumerate(descriptors) if row[p] is not None] for p in pictures}
    stacked = {
        p: np.array([descriptors[n][p] for n in filters]) for p, filters in have.items() if filters
    }
    for asked in stacked:
        for other in stacked:
            if asked == other:
                continue
            near = OrientedBands().distances(stacked[asked], stacked[other])
            for row, index in zip(near, have[asked]):
                if index in have[other]:
                    best = np.flatnonzero(row == row.min())
                    scores[index].append(float(have[other].index(index) in best) / len(best))
    return [float(np.mean(one)) if one else None for one in scores]
