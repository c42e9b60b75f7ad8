"""Claim 7: panels of higher layers have more colours and more intricate structures."""

from __future__ import annotations

import math
from typing import Callable, Dict, List, Sequence

import numpy as np

from experiments.claims import panels
from experiments.claims.question import Answer, Question, Rows, exceeds, missing, values
from experiments.claims.study import Study
from experiments.claims.table import ALL, FILTERS, NATURAL, Row, Verdict
from fmi.evidence import appearance, effects

__all__ = ["COLOURS", "QUESTION", "STRUCTURES", "answer", "measure"]

Number = Callable[[np.ndarray], float]
COLOURS: Dict[str, Number] = {
    "colourfulness": appearance.colourfulness,
    "entropy of the colours (bits)": appearance.colour_entropy,
}
STRUCTURES: Dict[str, Number] = {
    "bandwidth (octaves)": appearance.bandwidth,
    "oriented bands with much energy": appearance.significant_bands,
    "size when compressed (bytes a pixel)": appearance.compressed_size,
}
OTHERS: Dict[str, Number] = {
    "mean spatial frequency (cycles a pixel)": appearance.centroid,
    "anisotropy": appearance.anisotropy,
}
QUANTITIES = {**COLOURS, **STRUCTURES, **OTHERS}
KINDS = (panels.FILTERS, panels.UNTRAINED, panels.DIRECTIONS, panels.MAXIMISED)


def trend_of(quantity: str) -> str:
    """Return the name of the trend of a quantity over the layers."""
    return f"trend over depth: {quantity}"


def measure(study: Study) -> List[Row]:
    """Return the rows of claim 7."""
    rows = Rows(QUESTION.number)
    found: Dict[str, Dict[str, List[np.ndarray]]] = {q: {k: [] for k in KINDS} for q in QUANTITIES}
    for kind in KINDS:
        for layer in study.layers:
            made = study.panels(kind, layer)
            shown = made.pictures
            for quantity, number in QUANTITIES.items():
                each = np.array([number(picture) for picture in shown])
                array = each.reshape(made.inversions.shape)
                rows.mean(quantity, layer, kind, array, bounds=(0, math.inf))
                found[quantity][kind].append(array.mean(axis=2))
    for quantity, number in QUANTITIES.items():
        for kind, by_layer in found[quantity].items():
            rows.add(
                trend_of(quantity),
                ALL,
                kind,
                effects.trend,
                by_layer,
                chance=0,
                number=sum(len(array) for array in by_layer),
            )
        natural = np.array([[number(picture) for picture in study.content]])
        rows.mean(quantity, ALL, NATURAL, natural, bounds=(0, math.inf))
    return rows.found


def answer(rows: Sequence[Row], layers: Sequence[str]) -> Answer:
    """Return the verdict of claim 7."""
    del layers

    def of(quantities: Sequence[str], subject: str = FILTERS) -> List[effects.Estimate]:
        return [values(rows, trend_of(q), [ALL], subject)[0] for q in quantities]

    colours, structures = of(list(COLOURS)), of(list(STRUCTURES))
    more_colours = all(exceeds(one, 0) for one in colours)
    more_structure = sum(exceeds(one, 0) for one in structures) >= 2
    named = ", ".join(
        f"{name.split(' (')[0]} {one}"
        for name, one in zip([*COLOURS, *STRUCTURES], [*colours, *structures])
    )
    untrained = ", ".join(str(one) for one in of(list(COLOURS), panels.UNTRAINED))
    finding = f"trends over depth: {named}; colours with untrained weights: {untrained}"
    if missing([*colours, *structures]):
        return Verdict.UNMEASURED, finding
    if more_colours and more_structure:
        return Verdict.HOLDS, finding
    either = any(exceeds(one, 0) for one in [*colours, *structures])
    return (Verdict.IN_PART if either else Verdict.FAILS), finding


QUESTION = Question(
    number="7",
    title="More colours, more intricate structures",
    sentence="The texture at higher layers contains more colours and more intricate structures"
    " (section 1).",
    criterion="It holds if both measures of colour, and two of the three of structure, rise over"
    " the layers (the whole interval of the trend above 0); in part if one of the five does; it"
    " fails if none does.",
    kinds=KINDS,
    measure=measure,
    answer=answer,
)
