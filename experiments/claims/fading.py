"""Claim 8: the content fades with depth when energies are reallocated at random (Fig. 4)."""

from __future__ import annotations

import math
from typing import Dict, List, Sequence

import numpy as np

from experiments.claims.question import Answer, Question, Rows, exceeds, missing, values
from experiments.claims.study import Study
from experiments.claims.table import ALL, Row, Verdict
from experiments.outcome import finished
from fmi import invert
from fmi.evidence import effects
from fmi.evidence.panels import kept
from fmi.inversion import Inversion

__all__ = ["QUESTION", "answer", "measure"]

SSIM = "structural similarity to the content picture"
DISTANCE = "distance of the code from the content picture's, in lengths of the latter"
BOUNDS = {SSIM: (-1, 1), DISTANCE: (0, math.inf)}
RANDOM = "random energies (Eq. 3-4)"
CODE = "code itself (Eq. 1)"
OTHER = "another content picture"
TREND = {SSIM: f"trend over depth: {SSIM}", DISTANCE: f"trend over depth: {DISTANCE}"}


def inversions(study: Study, layer: str) -> Dict[str, np.ndarray]:
    """Return the inversions of randomly modified codes and of the codes, (draws, K) each."""
    given = {**study.options, "network": study.network}
    random = [
        finished(invert.random(picture, layer, study.design.draws, study.design.seed, **given))
        for picture in study.pictures
    ]
    code = [finished([invert.code(picture, layer, **given)]) for picture in study.pictures]
    return {RANDOM: _objects(random).T, CODE: _objects(code).T}


def _objects(rows: Sequence[Sequence[Inversion]]) -> np.ndarray:
    found = np.empty((len(rows), len(rows[0])), dtype=object)
    for index, row in enumerate(rows):
        found[index] = row
    return found


def code_distances(study: Study, pictures: Sequence[np.ndarray], layer: str) -> np.ndarray:
    """Return ``||F - P|| / ||P||`` at a layer, where P is the code of each content picture.

    Parameters
    ----------
    study
        The study.
    pictures
        Pictures (H, W, 3) uint8 RGB, a multiple of K in the order of the content pictures.
    layer
        Name of the layer.
    """
    found = study.codes(pictures, layer)
    wanted = study.codes(study.content, layer)
    pairs = [(one, wanted[index % len(wanted)]) for index, one in enumerate(found)]
    return np.array([np.linalg.norm(f - p) / np.linalg.norm(p) for f, p in pairs])


def measure(study: Study) -> List[Row]:
    """Return the rows of claim 8."""
    rows, layers = Rows(QUESTION.number), study.first_layers
    deepest = layers[-1]
    found: Dict[str, List[np.ndarray]] = {SSIM: [], DISTANCE: []}
    for layer in layers:
        for subject, made in inversions(study, layer).items():
            shown = [np.asarray(one.image) for one in made.flat]
            similar = [kept(p, study.content[n % made.shape[1]]).ssim for n, p in enumerate(shown)]
            measured = {
                SSIM: np.reshape(similar, made.shape),
                DISTANCE: np.reshape(code_distances(study, shown, deepest), made.shape),
            }
            for quantity, numbers in measured.items():
                label = quantity if quantity == SSIM else f"{quantity}, at {deepest}"
                rows.mean(label, layer, subject, numbers, bounds=BOUNDS[quantity])
                if subject == RANDOM:
                    found[quantity].append(numbers)
            if subject == RANDOM:
                others = [
                    [kept(p, c).ssim for k, c in enumerate(study.content) if k != n % made.shape[1]]
                    for n, p in enumerate(shown)
                ]
                array = np.reshape(np.mean(others, axis=1), made.shape)
                rows.mean(SSIM, layer, OTHER, array, bounds=BOUNDS[SSIM])
    for quantity, by_layer in found.items():
        rows.add(
            TREND[quantity],
            ALL,
            RANDOM,
            effects.trend,
            by_layer,
            chance=0,
            number=sum(numbers.size for numbers in by_layer),
        )
    return rows.found


def answer(rows: Sequence[Row], layers: Sequence[str]) -> Answer:
    """Return the verdict of claim 8."""
    del layers
    order = list(dict.fromkeys(row.layer for row in rows if row.layer != ALL))
    similar, other = (values(rows, SSIM, order, subject) for subject in (RANDOM, OTHER))
    (trend,) = values(rows, TREND[SSIM], [ALL], RANDOM)
    fades = trend.high < 0
    seen = [exceeds(one, another.high) for one, another in zip(similar, other)]
    finding = (
        f"similarity falls from {similar[0]} at {order[0]} to {similar[-1]} at {order[-1]}"
        f" (trend {trend}); it exceeds that to another picture at {sum(seen)} of {len(seen)} layers"
    )
    if missing([trend]):
        return Verdict.UNMEASURED, finding
    if not fades:
        return Verdict.FAILS, finding
    return (Verdict.HOLDS if seen[0] else Verdict.IN_PART), finding


QUESTION = Question(
    number="8",
    title="Content fades with depth",
    sentence="Inversion results at higher layers contain less content details and more specific"
    " texture (section 3.3, of randomly modified codes).",
    criterion="It holds if the structural similarity to the content picture falls over the layers"
    " (trend below 0 with its whole interval) and is, at the first layer, above that to another"
    " content picture; it fails if the trend is not below 0.",
    kinds=(),
    measure=measure,
    answer=answer,
)
