"""Panels: the inversions that the claims are measured on, and those of the controls."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Any, Callable, Dict, List, Sequence

import numpy as np

from experiments.claims.table import CHAINED, DIRECTIONS, FILTERS, MAXIMISED, UNTRAINED
from experiments.outcome import finished
from fmi import codes, invert
from fmi.inversion import Inversion
from fmi.networks.base import Network
from fmi.pictures import Picture

__all__ = [
    "CHAINED",
    "CONTROLS",
    "DIRECTIONS",
    "FILTERS",
    "KINDS",
    "MAXIMISED",
    "UNTRAINED",
    "Panels",
    "Place",
    "compute",
    "directions",
]

CONTROLS = (UNTRAINED, DIRECTIONS, CHAINED, MAXIMISED)


@dataclass(frozen=True)
class Panels:
    """The panels of one kind at one layer.

    Attributes
    ----------
    kind
        One of :data:`KINDS`.
    layer
        Name of the layer.
    filters
        The filters (N,); for random directions, their numbers.
    inversions
        The inversions, an array (N, K, S) of objects. Activation maximisation knows no content
        picture, so that K initial pictures take their places, and S is 1.
    """

    kind: str
    layer: str
    filters: np.ndarray
    inversions: np.ndarray

    @property
    def pictures(self) -> List[np.ndarray]:
        """The pictures as they are shown, (H, W, 3) uint8 RGB, in the order of the array."""
        return [np.asarray(one.image) for one in self.inversions.flat]

    def numbers(self, name: str) -> np.ndarray:
        """Return a number of each inversion (N, K, S), such as its ``energy_share``."""
        values = [getattr(one, name) for one in self.inversions.flat]
        found = [np.nan if value is None else value for value in values]
        return np.reshape(np.array(found, dtype=np.float64), self.inversions.shape)


@dataclass(frozen=True)
class Place:
    """What panels are computed of.

    Attributes
    ----------
    network, untrained
        The network, and one with untrained weights.
    layer
        Name of the layer.
    filters
        The filters, (N,).
    pictures
        The content pictures.
    seed
        Seed of the random directions.
    options
        Keywords of the inversions.
    """

    network: Network
    untrained: Callable[[], Network]
    layer: str
    filters: np.ndarray
    pictures: Sequence[Picture]
    seed: int
    options: Dict[str, Any]


Row = Callable[[Place, Picture, int], List[Inversion]]


def _filters(place: Place, picture: Picture, start: int) -> List[Inversion]:
    filters = place.filters.tolist()
    return invert.feature_map(
        picture, place.layer, filters, seed=start, network=place.network, **place.options
    )


def _untrained(place: Place, picture: Picture, start: int) -> List[Inversion]:
    filters, network = place.filters.tolist(), place.untrained()
    return invert.feature_map(
        picture, place.layer, filters, seed=start, network=network, **place.options
    )


def directions(place: Place) -> np.ndarray:
    """Return random directions, as many as filters, (N, C)."""
    channels = place.network.layer(place.layer).channels
    seed = zlib.crc32(f"{place.layer} {place.seed}".encode())
    return codes.directions(channels, len(place.filters), seed)


def _directions(place: Place, picture: Picture, start: int) -> List[Inversion]:
    return invert.direction(
        picture, place.layer, directions(place), seed=start, network=place.network, **place.options
    )


def _chained(place: Place, picture: Picture, start: int) -> List[Inversion]:
    filters = place.filters.tolist()
    return invert.feature_map(
        picture, place.layer, filters, True, seed=start, network=place.network, **place.options
    )


def _maximised(place: Place, picture: Picture, start: int) -> List[Inversion]:
    filters = place.filters.tolist()
    return invert.maximise(
        picture, place.layer, filters, seed=start, network=place.network, **place.options
    )


KINDS: Dict[str, Row] = {
    FILTERS: _filters,
    UNTRAINED: _untrained,
    DIRECTIONS: _directions,
    CHAINED: _chained,
    MAXIMISED: _maximised,
}


def compute(
    kind: str, place: Place, starts: int, count: Callable[[int], Any] = lambda _: None
) -> Panels:
    """Compute the panels of one kind, or take them from the store.

    Parameters
    ----------
    kind
        One of :data:`KINDS`.
    place
        What they are computed of.
    starts
        Number of initial pictures.
    count
        Function called with the number of panels that are finished.

    Raises
    ------
    InputError
        If an inversion diverges.
    KeyboardInterrupt
        After Ctrl-C; finished panels are in the store.
    """
    columns = [(picture, range(starts)) for picture in place.pictures]
    if kind == MAXIMISED:
        columns = [(place.pictures[0], range(n, n + 1)) for n in range(len(columns))]
    found = np.empty((len(place.filters), len(columns), len(columns[0][1])), dtype=object)
    for column, (picture, seeds) in enumerate(columns):
        for row, seed in enumerate(seeds):
            found[:, column, row] = finished(KINDS[kind](place, picture, seed))
            count(len(place.filters))
    return Panels(kind, place.layer, place.filters, found)
