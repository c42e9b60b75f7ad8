"""Claim 1: an inversion enhances its own feature map, and weakens the others."""

from __future__ import annotations

import functools
import math
from typing import List, Sequence

import numpy as np

from experiments.claims import panels
from experiments.claims.drives import rows_of
from experiments.claims.panels import Panels
from experiments.claims.question import (
    Answer,
    Question,
    Rows,
    exceeds,
    geometric,
    listed,
    of_layers,
    values,
)
from experiments.claims.study import Study
from experiments.claims.table import FILTERS, NATURAL, Row
from fmi.evidence import retrieval

__all__ = ["QUESTION", "answer", "measure", "own_shares"]

SHARE = "share of the code's energy in the wanted feature map"
GAIN = "the same, doublings from the content picture"
EXPLAINED = "part of the target that is explained"
FIRST = "filters excited most by their own panel, of all panels"
OWN = "panels that excite their own filter most, of all filters"
RANK = "rank of the own filter in a panel (0: first, 1: last)"


def excitation(study: Study, made: Panels) -> np.ndarray:
    """Return the mean activation of each feature map on panels, (N, K, S, C).

    The panels are measured as a viewer has them, in 8 bits, but before denoising.
    """
    pictures = [np.asarray(one.undenoised) for one in made.inversions.flat]
    means = study.responses(made.kind, pictures, [made.layer])[made.layer]
    return means.reshape(*made.inversions.shape, -1).astype(np.float64)


def own_shares(means: np.ndarray, filters: np.ndarray) -> np.ndarray:
    """Return the share of the energy in the own feature map of codes (N, ..., C), (N, ...).

    It is NaN where the whole code is 0.
    """
    own = np.stack([means[index, ..., number] for index, number in enumerate(filters)])
    total = means.sum(axis=-1)
    return np.divide(own, total, out=np.full(own.shape, np.nan), where=total > 0)


def undriven(filters: np.ndarray, share: np.ndarray, natural: np.ndarray) -> str:
    """Return a note with the filters whose share is not above that in the content pictures."""
    names = filters[~(share > natural)]
    return f"not driven: {listed(names)}" if len(names) else ""


def measure(study: Study) -> List[Row]:
    """Return the rows of claim 1."""
    rows = Rows(QUESTION.number)
    for layer in study.layers:
        filters, channels = study.filters(layer), study.network.layer(layer).channels
        content = study.responses_to("content")[layer].astype(np.float64)  # (K, C)
        natural = own_shares(np.repeat(content[None], len(filters), axis=0), filters)
        for kind in QUESTION.kinds:
            made = study.panels(kind, layer)
            means = excitation(study, made)
            if kind != panels.DIRECTIONS:
                share = own_shares(means, filters)
                note = ""
                if kind == FILTERS:
                    note = undriven(filters, share.mean(axis=(1, 2)), natural.mean(axis=1))
                rows.mean(SHARE, layer, kind, share, chance=1 / channels, bounds=(0, 1), note=note)
                if kind != panels.UNTRAINED:
                    rows.mean(GAIN, layer, kind, geometric(share, natural[..., None]), chance=0)
            if kind != panels.MAXIMISED:
                explained = made.numbers("explained")
                rows.mean(EXPLAINED, layer, kind, explained, chance=0, bounds=(-math.inf, 1))
            answers, own = means, filters
            if kind == panels.DIRECTIONS:  # the answers of directions, compared with each other
                answers, own = means @ rows_of(study, kind, layer).T, np.arange(len(filters))
            _add_ranks(rows, layer, kind, answers, own)
        rows.mean(SHARE, layer, NATURAL, natural, chance=1 / channels, bounds=(0, 1))
    return rows.found


def _add_ranks(rows: Rows, layer: str, kind: str, answers: np.ndarray, own: np.ndarray) -> None:
    """Add the rows about the order of excitations (N, K, S, C)."""
    ranks = functools.lru_cache(maxsize=1)(lambda: retrieval.ranks(answers, own.tolist()))
    for quantity, name, chance in (
        (FIRST, "filters", 1 / len(own)),
        (OWN, "panels", 1 / answers.shape[-1]),
        (RANK, "rank", 0.5),
    ):
        number = len(own)
        rows.add(
            quantity, layer, kind, lambda n: getattr(ranks(), n), name, chance=chance, number=number
        )


def answer(rows: Sequence[Row], layers: Sequence[str]) -> Answer:
    """Return the verdict of claim 1."""
    gain, first = values(rows, GAIN, layers), values(rows, FIRST, layers)
    holds = [exceeds(one, 1) and exceeds(other, 0.5) for one, other in zip(gain, first)]
    share, untrained = values(rows, SHARE, layers), values(rows, FIRST, layers, panels.UNTRAINED)
    finding = (
        f"of the code's energy, {share[0]} is in the wanted feature map at {layers[0]} and"
        f" {share[-1]} at {layers[-1]}; {first[0]} and {first[-1]} of the filters are excited most"
        f" by their own panel (untrained weights: {untrained[0]} and {untrained[-1]})"
    )
    return of_layers(holds, [gain, first]), finding


QUESTION = Question(
    number="1",
    title="An inversion enhances its own feature map",
    sentence="For a filter of interest, FMI enhances the corresponding feature map and weakens the"
    " rest feature maps at the same time (section 1).",
    criterion="It holds at a layer if the wanted feature map's share of the code's energy is more"
    " than doubled from the content picture to its panels, and more than half of the filters are"
    " excited most by their own panel (the whole intervals); it fails if it does at no layer.",
    kinds=(panels.FILTERS, *panels.CONTROLS),
    measure=measure,
    answer=answer,
)
