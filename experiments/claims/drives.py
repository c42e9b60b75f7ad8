"""Drives: how strongly natural crops excite filters, and which do most."""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace

import numpy as np

from experiments.claims import panels
from experiments.claims.study import Study
from fmi.evidence import crops

__all__ = ["MOST", "TOP", "Drive", "drives", "rows_of"]

TOP = 16  # crops that excite a filter most
MOST = 4  # of one photograph, since a wall of bricks could fill all places


@dataclass(frozen=True)
class Drive:
    """The answers of the filters of a layer, or of random directions, to natural crops.

    Attributes
    ----------
    rows
        What makes a filter's answer of the mean activations of all feature maps, (N, C).
    answers_to_all
        Answers to all natural crops, (N, n).
    crops
        The crops that excite each filter most, at most one from each neighbourhood and
        :data:`MOST` from each photograph, (N, T); -1 where fewer excite it.
    answers
        The answers to these, (N, T); NaN where there is none.
    """

    rows: np.ndarray
    answers_to_all: np.ndarray
    crops: np.ndarray
    answers: np.ndarray

    @property
    def mean(self) -> np.ndarray:
        """The mean answer to all natural crops, (N,)."""
        return self.answers_to_all.mean(axis=1)

    def first(self, number: int) -> Drive:
        """Return it with the first crops only."""
        return replace(self, crops=self.crops[:, :number], answers=self.answers[:, :number])

    def at(self, responses: np.ndarray, chosen: np.ndarray) -> np.ndarray:
        """Return the answers to changed crops.

        Parameters
        ----------
        responses
            Mean activations of all feature maps on the changed crops, (m, C).
        chosen
            The crops that were changed, (m,) in ascending order.

        Returns
        -------
        numpy.ndarray
            (N, T); NaN where there is no crop, or where it was not changed.
        """
        answers = self.rows @ responses.T  # (N, m)
        place = np.minimum(np.searchsorted(chosen, self.crops), len(chosen) - 1)
        found = np.take_along_axis(answers, place, axis=1)
        return np.where((chosen[place] == self.crops) & (self.crops >= 0), found, np.nan)


def rows_of(study: Study, kind: str, layer: str) -> np.ndarray:
    """Return what makes the answers of the filters, or of random directions, (N, C)."""
    if kind == panels.DIRECTIONS:
        return panels.directions(study.place(layer))
    return np.eye(study.network.layer(layer).channels)[study.filters(layer)]


@functools.lru_cache(maxsize=None)  # several claims ask for the same
def drives(study: Study, kind: str, layer: str, number: int = TOP) -> Drive:
    """Return how natural crops excite the filters of a layer.

    Parameters
    ----------
    study
        The study.
    kind
        The kind of panels: its network and its filters or directions are asked.
    layer
        Name of the layer.
    number
        Number of crops for each filter.
    """
    network = panels.UNTRAINED if kind == panels.UNTRAINED else panels.FILTERS
    rows = rows_of(study, kind, layer)
    answers = rows @ study.responses_to("crops", network)[layer].T.astype(np.float64)
    found = np.full((len(rows), number), -1)
    for index, each in enumerate(answers):
        top = crops.top(each, study.crops, number, per_picture=MOST)
        found[index, : len(top)] = top
    at = np.take_along_axis(answers, np.maximum(found, 0), axis=1)
    return Drive(rows, answers, found, np.where(found >= 0, at, np.nan))
