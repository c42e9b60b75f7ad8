"""Claim 3: a panel tells which natural crops excite its filter."""

from __future__ import annotations

from typing import Dict, List, Sequence, Tuple

import numpy as np

from experiments.claims import panels
from experiments.claims.drives import Drive, drives
from experiments.claims.question import Answer, Question, Rows, exceeds, of_layers, values
from experiments.claims.study import Study
from experiments.claims.table import Row
from fmi.evidence import retrieval
from fmi.evidence.crops import Crops
from fmi.evidence.textures import Descriptor

__all__ = ["QUESTION", "answer", "measure", "pairs"]

WRONG = "another filter's panels"
CROPS = "the filter's other top crops"
KINDS = (panels.FILTERS, *panels.CONTROLS)
TRIALS = 8  # for each filter


def right_choices(descriptor: Descriptor) -> str:
    """Return the name of the quantity."""
    return f"right choices of two natural crops, by {descriptor.name}"


def pairs(drive: Drive, seed: int) -> Tuple[np.ndarray, np.ndarray]:
    """Return crops that excite each filter strongly, and as many that do not, (N, T) each.

    The latter are drawn from the half of all crops that excite the filter least. Where there is no
    crop, it is -1.
    """
    strong = drive.crops[:, :TRIALS]
    weak = np.full(strong.shape, -1)
    for index, answers in enumerate(drive.answers_to_all):
        random = np.random.RandomState([seed, index])
        below = np.flatnonzero(answers <= np.median(answers))
        below = np.setdiff1d(below, strong[index])
        count = min(strong.shape[1], len(below))
        weak[index, :count] = random.permutation(below)[:count]
    return strong, weak


def _at(distances: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Return the distances (N, n) of references from chosen crops (N, T), NaN for none."""
    found = np.take_along_axis(distances, np.maximum(chosen, 0), axis=1)
    return np.where(chosen >= 0, found, np.nan)


def other_crops(
    between: np.ndarray, drive: Drive, crops: Crops, strong: np.ndarray, weak: np.ndarray
) -> Tuple[np.ndarray, np.ndarray]:
    """Return the mean distances of a filter's other top crops from both alternatives, (N, T) each.

    The other crops are from other photographs than either alternative, so that nothing is gained by
    knowing the photograph.
    """
    right, wrong = np.full(strong.shape, np.nan), np.full(strong.shape, np.nan)
    for index, row in enumerate(drive.crops):
        row = row[row >= 0]
        for trial, (one, other) in enumerate(zip(strong[index], weak[index])):
            if one < 0 or other < 0:
                continue
            apart = (crops.picture[row] != crops.picture[one]) & (
                crops.picture[row] != crops.picture[other]
            )
            if apart.any():
                right[index, trial] = between[row[apart], one].mean()
                wrong[index, trial] = between[row[apart], other].mean()
    return right, wrong


def measure(study: Study) -> List[Row]:
    """Return the rows of claim 3."""
    rows, crops = Rows(QUESTION.number), study.crops
    for descriptor in study.descriptors:
        natural = descriptor.of(list(crops.pixels))
        between = descriptor.distances(natural)
        for layer in study.layers:
            trials: Dict[str, Tuple[np.ndarray, np.ndarray]] = {}
            for kind in KINDS:
                made = study.panels(kind, layer)
                drive = drives(study, kind, layer)
                strong, weak = pairs(drive, study.design.seed)
                features = study.features(descriptor, kind, layer)
                far = descriptor.distances(features, natural)  # of each panel from each crop
                far = far.reshape(len(made.filters), -1, len(crops)).mean(axis=1)
                trials[kind] = _at(far, strong), _at(far, weak)
                if kind == panels.FILTERS:
                    shifted = np.roll(far, 1, axis=0)
                    trials[WRONG] = _at(shifted, strong), _at(shifted, weak)
                    trials[CROPS] = other_crops(between, drive, crops, strong, weak)
            for subject, (right, wrong) in trials.items():
                rows.add(
                    right_choices(descriptor),
                    layer,
                    subject,
                    retrieval.two_alternatives,
                    right,
                    wrong,
                    chance=0.5,
                    number=int(np.isfinite(right - wrong).sum()),
                )
    return rows.found


def answer(rows: Sequence[Row], layers: Sequence[str]) -> Answer:
    """Return the verdict of claim 3."""
    quantity = rows[0].quantity
    own, wrong, crops, untrained = (
        values(rows, quantity, layers, subject)
        for subject in (panels.FILTERS, WRONG, CROPS, panels.UNTRAINED)
    )
    holds = [exceeds(one, max(0.5, other.value)) for one, other in zip(own, wrong)]
    finding = (
        f"by the filter's panels, {own[0]} of the choices are right at {layers[0]} and {own[-1]} at"
        f" {layers[-1]}; by another filter's {wrong[0]} and {wrong[-1]}, by its other top crops"
        f" {crops[0]} and {crops[-1]}, with untrained weights {untrained[0]} and {untrained[-1]}"
    )
    return of_layers(holds, [own, wrong]), finding


QUESTION = Question(
    number="3",
    title="A panel predicts natural answers",
    sentence="By this technique, we demonstrate that every filter extracts a specific texture"
    " (section 4): what a panel shows is what the filter answers to in pictures.",
    criterion="It holds at a layer if, by oriented bands and colour, a filter's panels are nearer"
    " to a crop that excites it strongly than to one that does not in more than half of the"
    " trials, and more often than another filter's panels are (the whole interval); it fails if"
    " they are at no layer.",
    kinds=KINDS,
    measure=measure,
    answer=answer,
)
