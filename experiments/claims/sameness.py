"""Claim 2: a filter's panels show one texture whatever the picture, and each filter another."""

from __future__ import annotations

from typing import Dict, List, Sequence, Tuple

import numpy as np

from experiments.claims import panels
from experiments.claims.question import MISSING, Answer, Question, Rows, exceeds, of_layers, values
from experiments.claims.study import Study
from experiments.claims.table import Row
from fmi.evidence import effects, retrieval
from fmi.evidence.intervals import Estimate
from fmi.evidence.textures import Descriptor

__all__ = ["QUESTION", "answer", "measure"]

AUC = "two panels of one filter are nearer than of two filters (ROC AUC)"
AGAIN = "filter found again among the panels from another picture"
VARIANCE = "variance of the panels due to the"
PARTS = ("filter", "picture", "interaction", "start")


def by(quantity: str, descriptor: Descriptor) -> str:
    """Return the name of a quantity with the descriptor that it was measured by."""
    return f"{quantity}, by {descriptor.name}"


def variance_by(part: str, descriptor: Descriptor) -> str:
    """Return the name of a part of the variance."""
    return by(f"{VARIANCE} {part}", descriptor)


def measure(study: Study) -> List[Row]:
    """Return the rows of claim 2."""
    rows = Rows(QUESTION.number)
    for layer in study.layers:
        for kind in QUESTION.kinds:
            made = study.panels(kind, layer)
            shape = made.inversions.shape
            places = retrieval.addresses(*shape)
            for descriptor in study.descriptors:
                features = study.features(descriptor, kind, layer)
                distances = descriptor.distances(features)
                number = len(made.filters)
                rows.add(
                    by(AUC, descriptor),
                    layer,
                    kind,
                    retrieval.roc_auc,
                    distances,
                    places,
                    chance=0.5,
                    number=number,
                )
                rows.add(
                    by(AGAIN, descriptor),
                    layer,
                    kind,
                    retrieval.found_again,
                    distances,
                    places,
                    chance=1 / number,
                    number=number,
                )
                if descriptor is study.descriptors[0]:
                    _add_variances(rows, layer, kind, descriptor, features.reshape(*shape, -1))
    return rows.found


def _add_variances(
    rows: Rows, layer: str, kind: str, descriptor: Descriptor, features: np.ndarray
) -> None:
    """Add the shares of the variance of features (N, K, S, D)."""
    cache: Dict[str, effects.VarianceShares] = {}

    def share(part: str) -> Estimate:
        if not cache:
            cache["found"] = effects.variance_shares(features)
        return getattr(cache["found"], part) or MISSING

    for part in PARTS if features.shape[2] > 1 else PARTS[:3]:
        rows.add(
            variance_by(part, descriptor),
            layer,
            kind,
            share,
            part,
            number=len(features),
        )


def _of(rows: Sequence[Row], start: str, layers: Sequence[str], subject: str) -> List[Estimate]:
    """Return a quantity by the first descriptor, the one with colour and without a network."""
    name = next(row.quantity for row in rows if row.quantity.startswith(start))
    return values(rows, name, layers, subject)


def answer(rows: Sequence[Row], layers: Sequence[str]) -> Answer:
    """Return the verdict of claim 2."""
    auc = _of(rows, AUC, layers, panels.FILTERS)
    again = {kind: _of(rows, AGAIN, layers, kind) for kind in QUESTION.kinds}
    own = again[panels.FILTERS]
    holds = [exceeds(one, 0.75) for one in auc]
    also = [exceeds(one, control.value) for one, control in zip(own, again[panels.UNTRAINED])]
    share, picture = (
        _of(rows, f"{VARIANCE} {part}", layers, panels.FILTERS) for part in ("filter", "picture")
    )
    ends: List[Tuple[str, Sequence[Estimate]]] = [
        ("found again", own),
        ("untrained weights", again[panels.UNTRAINED]),
        ("random directions", again[panels.DIRECTIONS]),
    ]
    told = ", ".join(f"{name} {each[0]} and {each[-1]}" for name, each in ends)
    finding = (
        f"at {layers[0]} and {layers[-1]}: {told}; of the variance, {share[0]} and {share[-1]} are"
        f" due to the filter, {picture[0]} and {picture[-1]} to the picture"
    )
    return of_layers(holds, [auc], also), finding


QUESTION = Question(
    number="2",
    title="The same texture from any picture",
    sentence="Inversion results of different feature maps have distinct textures, while the"
    " corresponding inversion results of two pictures have same textures including color and local"
    " structure (section 3.2).",
    criterion="It holds in part at a layer if, by oriented bands and colour, two panels of one"
    " filter from different pictures are nearer than two of different filters in more than 75 % of"
    " all pairs (the whole interval); it holds if, at all layers, filters are also found again more"
    " often than with untrained weights; it fails if it holds in part at no layer.",
    kinds=(panels.FILTERS, *panels.CONTROLS),
    measure=measure,
    answer=answer,
)
