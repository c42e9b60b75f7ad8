"""Claim 5: one texture or several, whether a filter's top natural crops fall into clusters."""

from __future__ import annotations

from typing import List, Sequence

import numpy as np

from experiments.claims import panels
from experiments.claims.drives import TOP, drives
from experiments.claims.question import Answer, Question, Rows, exceeds, of_layers, values
from experiments.claims.study import Study
from experiments.claims.table import FILTERS, Row
from fmi.evidence import clusters, textures

__all__ = ["QUESTION", "answer", "measure", "principal"]

ONE = "filters whose top natural crops form one cluster"
NUMBER = "clusters of a filter's top natural crops"
PAIR = "top crops of two filters"
RANDOM = "any natural crops"
KINDS = (panels.FILTERS, panels.UNTRAINED, panels.DIRECTIONS)
LARGEST = 5  # number of clusters
COMPONENTS = 5  # of the codes, few beside the number of crops


def principal(features: np.ndarray, number: int = COMPONENTS) -> np.ndarray:
    """Return the first principal components of standardised features (n, D), (n, number).

    Features that do not vary are left out.
    """
    spread = features.std(axis=0, dtype=np.float64)
    chosen = features[:, spread > 0].astype(np.float64)
    chosen = (chosen - chosen.mean(axis=0)) / spread[spread > 0]
    left, size, _ = np.linalg.svd(chosen, full_matrices=False)
    return left[:, :number] * size[:number]


def _number(points: np.ndarray, seed: int) -> float:
    """Return the number of clusters; NaN for too few points."""
    if len(points) < TOP // 2:
        return np.nan
    return float(clusters.gap(points, LARGEST, seed=seed).number)


def measure(study: Study) -> List[Row]:
    """Return the rows of claim 5."""
    rows, seed = Rows(QUESTION.number), study.design.seed
    judge = textures.MapMeans(study.other or study.network)
    points = principal(judge.of(list(study.crops.pixels)))
    for layer in study.layers:
        found = {}
        for kind in KINDS:
            top = drives(study, kind, layer).crops
            found[kind] = [_number(points[row[row >= 0]], seed) for row in top]
            if kind == FILTERS:
                half = [row[row >= 0][: TOP // 2] for row in top]
                both = [np.union1d(one, two) for one, two in zip(half, half[-1:] + half[:-1])]
                found[PAIR] = [_number(points[row], seed) for row in both]
        random = np.random.RandomState(seed)
        drawn = [random.permutation(len(points))[:TOP] for _ in study.filters(layer)]
        found[RANDOM] = [_number(points[row], seed) for row in drawn]
        for subject, numbers in found.items():
            array = np.array(numbers)[:, None]
            alone = np.where(np.isnan(array), np.nan, array == 1)
            rows.mean(ONE, layer, subject, alone, binary=True)
            rows.mean(NUMBER, layer, subject, array, bounds=(1, LARGEST))
    return rows.found


def answer(rows: Sequence[Row], layers: Sequence[str]) -> Answer:
    """Return the verdict of claim 5."""
    one, pair = values(rows, ONE, layers), values(rows, ONE, layers, PAIR)
    holds = [exceeds(each, 0.5) for each in one]
    also = [each.value > other.value for each, other in zip(one, pair)]
    finding = (
        f"the top crops of {one[0]} of the filters form one cluster at {layers[0]} and of"
        f" {one[-1]} at {layers[-1]}; those of two filters together do in {pair[0]} and {pair[-1]}"
    )
    return of_layers(holds, [one], also), finding


QUESTION = Question(
    number="5",
    title="One texture or several",
    sentence="Every filter in CNNs extracts a specific texture (section 1), one and not several.",
    criterion="It holds at a layer if the top natural crops of more than half of the filters form"
    " one cluster by the gap statistic on another network's codes (the whole interval), and in part"
    " only if those of two filters together do as often, since the test then sees nothing; it fails"
    " if it holds at no layer.",
    kinds=(),
    measure=measure,
    answer=answer,
)
