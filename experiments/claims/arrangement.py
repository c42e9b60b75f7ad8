"""Claim 4: texture or shape, what is left of an answer when the arrangement is destroyed."""

from __future__ import annotations

import functools
import logging
from typing import Callable, Dict, List, Sequence

import numpy as np

from experiments.claims import panels
from experiments.claims.drives import TOP, Drive, drives
from experiments.claims.question import Answer, Question, Rows, exceeds, of_layers, values
from experiments.claims.study import Study
from experiments.claims.table import FILTERS, Row
from experiments.outcome import finished
from fmi import invert
from fmi.evidence import surrogates

__all__ = ["PATCHES", "QUESTION", "answer", "measure"]

log = logging.getLogger(__name__)

PATCHES = (4, 8, 16, 32, 64)
DECISIVE = 32  # pixels: larger than most textures, smaller than objects
PHASES = "answer left after random phases"
RESYNTHESIS = "answer left in a texture with the same Gram matrices"
KINDS = (panels.FILTERS, panels.UNTRAINED, panels.DIRECTIONS)
Change = Callable[..., np.ndarray]


def left_after(patch: int) -> str:
    """Return the name of the quantity for patches of a size."""
    return f"answer left after shuffling patches of {patch} pixels"


def changes(study: Study) -> Dict[str, Change]:
    """Return what is done to crops: functions of a picture and of a keyword ``seed``."""
    found: Dict[str, Change] = {
        left_after(patch): functools.partial(surrogates.shuffled, patch=patch) for patch in PATCHES
    }
    found[PHASES] = surrogates.phase_randomised
    found[RESYNTHESIS] = functools.partial(resynthesised, study)
    return found


def resynthesised(study: Study, picture: np.ndarray, seed: int) -> np.ndarray:
    """Return a texture with the Gram matrices of a picture (Gatys et al. 2015).

    They are those of another network where one is here, so that a filter's answer is not asked for
    by the synthesis itself.
    """
    given = {**study.options, "network": study.other or study.network, "long_edge": len(picture)}
    (found,) = finished([invert.gatys(picture, picture, alpha=0, seed=seed, **given)])
    return np.asarray(found.undenoised)


def left(answers: np.ndarray, drive: Drive) -> np.ndarray:
    """Return the part of an answer that is left, 1 for all and 0 for that of any natural crop.

    Parameters
    ----------
    answers
        Answers to the changed crops, (N, T).
    drive
        The filters' answers to the crops themselves.

    Returns
    -------
    numpy.ndarray
        (N,), of the sums over the crops; NaN for a filter that no crop excites.
    """
    whole = np.nansum(drive.answers - drive.mean[:, None], axis=1)
    rest = np.nansum(answers - drive.mean[:, None], axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(whole > 0, rest / whole, np.nan)


def measure(study: Study) -> List[Row]:
    """Return the rows of claim 4."""
    rows, number = Rows(QUESTION.number), TOP // 2
    driven = {
        (kind, layer): drives(study, kind, layer, number)
        for kind in KINDS
        for layer in study.layers
    }
    needed = np.unique(np.concatenate([d.crops[d.crops >= 0] for d in driven.values()]))
    for quantity, change in changes(study).items():
        chosen = needed
        if quantity == RESYNTHESIS:  # slow: of each filter the first crop alone, no controls
            first = [d.crops[:, :1] for (kind, _), d in driven.items() if kind == FILTERS]
            chosen = np.unique(np.concatenate(first))
            chosen = chosen[chosen >= 0]
        changed = [change(study.crops.pixels[index], seed=int(index)) for index in chosen]
        networks = {
            kind: study.responses(kind, changed) for kind in (panels.FILTERS, panels.UNTRAINED)
        }
        for kind in KINDS:
            if quantity == RESYNTHESIS and kind != FILTERS:
                continue
            responses = networks[panels.UNTRAINED if kind == panels.UNTRAINED else FILTERS]
            for layer in study.layers:
                drive = driven[kind, layer]
                if quantity == RESYNTHESIS:
                    drive = drive.first(1)
                answers = drive.at(responses[layer], chosen)
                part = left(answers, drive)
                rows.mean(quantity, layer, kind, part[:, None], chance=0)
        log.info("%s", quantity)
    return rows.found


def answer(rows: Sequence[Row], layers: Sequence[str]) -> Answer:
    """Return the verdict of claim 4."""
    decisive = values(rows, left_after(DECISIVE), layers)
    small = values(rows, left_after(min(PATCHES)), layers)
    holds = [exceeds(one, 0.5) for one in decisive]
    resynthesis = values(rows, RESYNTHESIS, layers)
    finding = (
        f"after shuffling patches of {DECISIVE} pixels, {decisive[0]} of the answer is left at"
        f" {layers[0]} and {decisive[-1]} at {layers[-1]}; of {min(PATCHES)} pixels, {small[0]} and"
        f" {small[-1]}; in a texture with the same Gram matrices, {resynthesis[0]} and"
        f" {resynthesis[-1]}"
    )
    return of_layers(holds, [decisive]), finding


QUESTION = Question(
    number="4",
    title="Texture or shape",
    sentence="Every filter in CNNs extracts a specific texture (section 1): what a filter answers"
    " to does not depend on how its texture is arranged to objects.",
    criterion=f"It holds at a layer if more than half of a filter's answer to its top natural crops"
    f" (above that to all crops) is left when patches of {DECISIVE} pixels are shuffled (the whole"
    " interval above .5); it fails if it does at none.",
    kinds=(),
    measure=measure,
    answer=answer,
)
