"""Claim 9: panels take the same way through the network as natural pictures do."""

from __future__ import annotations

from typing import Dict, List, Sequence

import numpy as np
from scipy.stats import rankdata

from experiments.claims import panels
from experiments.claims.drives import Drive, drives
from experiments.claims.question import Answer, Question, Rows, of_layers, values
from experiments.claims.study import Study
from experiments.claims.table import FILTERS, Row

__all__ = ["QUESTION", "answer", "measure", "rank_correlations"]

KINDS = (panels.FILTERS, panels.UNTRAINED, panels.MAXIMISED)
CEILING = "another of the filter's top natural crops"
FLOOR = "any natural crop"
CROPS = 8  # of each filter


def quantity(layer: str) -> str:
    """Return the name of the quantity for the filters of a layer."""
    return f"rank correlation with the top natural crops of the filters of {layer}, on the way"


def rank_correlations(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return Spearman's rank correlations of the rows of two arrays (n, C) and (m, C), (n, m).

    Channels that are 0 in a row have equal ranks; a row without differences has NaN.
    """

    def standard(rows: np.ndarray) -> np.ndarray:
        ranks = np.apply_along_axis(rankdata, 1, rows)
        ranks = ranks - ranks.mean(axis=1, keepdims=True)
        lengths = np.linalg.norm(ranks, axis=1, keepdims=True)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(lengths > 0, ranks / lengths, np.nan)

    return standard(first) @ standard(second).T


def _with_top(answers: np.ndarray, responses: np.ndarray, drive: Drive) -> np.ndarray:
    """Return the mean correlations of pictures (N, P, C) with their filters' top crops, (N, P)."""
    found = np.full(answers.shape[:2], np.nan)
    for index, crops in enumerate(drive.crops):
        if (crops >= 0).any():
            pairs = rank_correlations(answers[index], responses[crops[crops >= 0]])
            found[index] = pairs.mean(axis=1)
    return found


def _among_top(responses: np.ndarray, drive: Drive) -> np.ndarray:
    """Return the mean correlation of different top crops of each filter, (N,)."""
    found = np.full(len(drive.crops), np.nan)
    for index, crops in enumerate(drive.crops):
        chosen = crops[crops >= 0]
        if len(chosen) > 1:
            pairs = rank_correlations(responses[chosen], responses[chosen])
            found[index] = pairs[np.triu_indices(len(chosen), 1)].mean()
    return found


def _with_any(responses: np.ndarray, drive: Drive, seed: int) -> np.ndarray:
    """Return the mean correlation of top crops of each filter with crops drawn at random, (N,)."""
    random = np.random.RandomState(seed)
    some = random.permutation(len(responses))[: 4 * CROPS]
    found = np.full(len(drive.crops), np.nan)
    for index, crops in enumerate(drive.crops):
        chosen, others = crops[crops >= 0], np.setdiff1d(some, crops)
        if len(chosen):
            found[index] = rank_correlations(responses[chosen], responses[others]).mean()
    return found


def measure(study: Study) -> List[Row]:
    """Return the rows of claim 9."""
    rows = Rows(QUESTION.number)
    way = study.way
    for layer in dict.fromkeys((study.layers[len(study.layers) // 2], study.layers[-1])):
        passed = way[: way.index(layer) + 1]
        drive = drives(study, panels.FILTERS, layer, CROPS)
        untrained = drives(study, panels.UNTRAINED, layer, CROPS)
        natural: Dict[str, Dict[str, np.ndarray]] = {
            panels.FILTERS: study.responses_to("crops"),
            panels.UNTRAINED: study.responses_to("crops", panels.UNTRAINED),
        }
        for kind in KINDS:
            made = study.panels(kind, layer)
            pictures = [np.asarray(one.undenoised) for one in made.inversions.flat]
            answers = study.responses(kind, pictures, passed)
            own = untrained if kind == panels.UNTRAINED else drive
            crops = natural[panels.UNTRAINED if kind == panels.UNTRAINED else panels.FILTERS]
            for place in passed:
                each = answers[place].reshape(len(made.filters), -1, answers[place].shape[1])
                found = _with_top(each, crops[place], own).reshape(made.inversions.shape)
                rows.mean(quantity(layer), place, kind, found, chance=0, bounds=(-1, 1))
        for place in passed:
            crops = natural[panels.FILTERS]
            among = _among_top(crops[place], drive)[:, None]
            rows.mean(quantity(layer), place, CEILING, among, chance=0, bounds=(-1, 1))
            others = _with_any(crops[place], drive, study.design.seed)[:, None]
            rows.mean(quantity(layer), place, FLOOR, others, chance=0, bounds=(-1, 1))
    return rows.found


def answer(rows: Sequence[Row], layers: Sequence[str]) -> Answer:
    """Return the verdict of claim 9."""
    layer = layers[-1]
    places = list(dict.fromkeys(row.layer for row in rows if row.quantity == quantity(layer)))
    found, ceiling, floor = (
        values(rows, quantity(layer), places, subject) for subject in (FILTERS, CEILING, FLOOR)
    )
    holds = [
        panel.low > any_.value + (top.value - any_.value) / 2
        for panel, top, any_ in zip(found, ceiling, floor)
    ]
    finding = (
        f"on the way to {layer}, panels correlate with their filters' top crops by {found[0]} at"
        f" {places[0]} and {found[-1]} at {places[-1]}; top crops among themselves by {ceiling[0]}"
        f" and {ceiling[-1]}, with any crop by {floor[0]} and {floor[-1]}; panels are nearer to the"
        f" former at {sum(holds)} of {len(holds)} layers passed"
    )
    return of_layers(holds, [found, ceiling, floor]), finding


QUESTION = Question(
    number="9",
    title="The same way through the network",
    sentence="FMI visualizes what exactly a filter tries to capture from an image (section 1):"
    " panels should be computed as natural pictures are.",
    criterion="It holds at a layer on the way if the activations of panels correlate with those of"
    " the filter's top natural crops by more than half way from any natural crop to another top"
    " crop (after Geirhos et al. 2024); it fails if they do at no layer.",
    kinds=KINDS,
    measure=measure,
    answer=answer,
)
