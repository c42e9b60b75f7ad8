"""Claim 6: sums of feature maps decide style, as Gram matrices do."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, List, Sequence, Tuple

import numpy as np

from experiments.claims.question import Answer, Question, Rows, exceeds, values
from experiments.claims.study import CROP, Study
from experiments.claims.table import ALL, Row, Verdict
from experiments.embedded import textures as procedural
from experiments.outcome import finished
from fmi import invert, pictures
from fmi.errors import InputError
from fmi.evidence import crops, effects, retrieval
from fmi.evidence.textures import (
    Colours,
    Descriptor,
    GramMatrices,
    MapMoments,
    MapSums,
    OrientedBands,
)

__all__ = ["QUESTION", "Labelled", "answer", "measure", "of_folder"]

RETRIEVAL = "textures of one class found first (mean average precision)"
DIFFERENCE = "the same, difference of sums from"
CORRELATION = "rank correlation with the distances by Gram matrices"
SYNTHESIS = "distance of a synthesis from its texture, of that of another texture"
NAMED = "results of Fig. 5 whose style is named by the nearest style picture"
CLASSES, EACH = 40, 5  # procedural textures: classes, and canvases of each
SMALL = 64  # side of the parts that are harder to tell apart, in grey
HELD_OUT = 14  # the first canvases of each class have trained the embedded network
GREY = ("brick", "grass", "gravel")  # of scikit-image
SYNTHESES = 8


@dataclass(frozen=True)
class Labelled:
    """Textures with their classes.

    Attributes
    ----------
    name
        What they are called in a table.
    pixels
        Pictures (H, W, 3) uint8 RGB.
    labels
        The class of each.
    """

    name: str
    pixels: List[np.ndarray]
    labels: List[str]


def drawn(seed: int) -> Labelled:
    """Return procedural textures, canvases that have trained no network."""
    random = np.random.RandomState(seed)
    classes = random.permutation(len(procedural.classes()))[:CLASSES]
    pairs = [(int(label), HELD_OUT + number) for label in classes for number in range(EACH)]
    pixels = [procedural.canvas(label, number) for label, number in pairs]
    return Labelled("procedural textures", pixels, [str(label) for label, _ in pairs])


def harder(seed: int) -> Labelled:
    """Return small parts of the same canvases in grey."""
    found = drawn(seed)
    parts = [crops.cut([p], SMALL, 2 * p.shape[0]).pixels[0] for p in found.pixels]
    levels = [np.rint(p @ (0.2126, 0.7152, 0.0722)).astype(np.uint8) for p in parts]
    pixels = [np.repeat(level[..., None], 3, axis=2) for level in levels]
    return Labelled(f"{SMALL} pixels of them in grey", pixels, found.labels)


def bundled() -> Labelled:
    """Return parts of the textures in scikit-image's wheel."""
    found, labels = [], []
    for picture in crops.photographs():
        if picture.name in GREY:
            parts = crops.cut([picture], CROP, CROP)
            found += list(parts.pixels)
            labels += [picture.name] * len(parts)
    return Labelled("brick, grass and gravel", found, labels)


def of_folder(folder: Path) -> Labelled:
    """Return the textures of a folder with a folder for each class, brought to one size.

    Raises
    ------
    InputError
        If there are not at least two classes with two pictures each.
    """
    found, labels = [], []
    try:
        classes = sorted(path for path in folder.iterdir() if path.is_dir())
    except OSError as error:
        raise InputError(f"TEXTURES={folder} cannot be read: {error.strerror}") from None
    for each in classes:
        for file in sorted(each.iterdir()):
            if file.suffix.lower() in pictures.SUFFIXES:
                pixels = pictures.read(file).pixels
                size = min(pixels.shape[:2])
                found.append(crops.cut([pixels[:size, :size]], CROP, CROP, [CROP / size]).pixels[0])
                labels.append(each.name)
    counts = [labels.count(label) for label in set(labels)]
    if sum(count > 1 for count in counts) < 2:
        raise InputError(
            f"TEXTURES={folder} holds {len(labels)} pictures in {len(counts)} folders; it must"
            " have a folder for each class, and at least two classes with two pictures"
        )
    return Labelled(folder.name, found, labels)


def sets(study: Study) -> List[Labelled]:
    """Return the sets of labelled textures."""
    seed = study.design.seed
    found = [drawn(seed), harder(seed), bundled()]
    if study.design.textures:
        found.append(of_folder(Path(study.design.textures)))
    return found


def kinds(study: Study) -> List[Descriptor]:
    """Return the statistics that are compared, that of Eq. 5 first."""
    layers = tuple(study.first_layers)
    return [
        MapSums(study.network, layers),
        GramMatrices(study.network, layers),
        MapMoments(study.network, layers),
        Colours(),
    ]


def measure(study: Study) -> List[Row]:
    """Return the rows of claim 6."""
    rows = Rows(QUESTION.number)
    for each in sets(study):
        _retrieve(rows, study, each)
    _synthesise(rows, study)
    _name_styles(rows, study)
    return rows.found


def _retrieve(rows: Rows, study: Study, each: Labelled) -> None:
    """Add how well textures are found, and how distances by different statistics agree."""
    found = {kind.name: kind.distances(kind.of(each.pixels)) for kind in kinds(study)}
    sums, gram, *_ = found
    number = len(each.labels)
    classes = np.unique(each.labels, return_inverse=True)[1]
    precision = {}
    for name, distances in found.items():
        rows.add(
            f"{RETRIEVAL}, {each.name}",
            ALL,
            name,
            retrieval.mean_average_precision,
            distances,
            each.labels,
            chance=retrieval.chance_average_precision(each.labels),
            number=number,
        )
        precision[name] = retrieval.average_precision(distances, each.labels)
        if name != gram:
            quantity = f"{CORRELATION}, {each.name}"
            pairs = number * (number - 1) // 2
            rows.add(
                quantity,
                ALL,
                name,
                effects.spearman,
                distances,
                found[gram],
                chance=0,
                number=pairs,
            )
    for name in list(found)[1:]:
        by_class = [
            [np.nanmean((precision[sums] - precision[name])[classes == one])]
            for one in range(classes.max() + 1)
        ]
        quantity = f"{DIFFERENCE}, {each.name}"
        rows.mean(quantity, ALL, name, np.array(by_class), chance=0, bounds=(-1, 1))


def _synthesise(rows: Rows, study: Study) -> None:
    """Add how near syntheses from sums, and from Gram matrices, come to their texture."""
    labelled = drawn(study.design.seed)
    first = list(range(0, len(labelled.labels), EACH))[:SYNTHESES]
    chosen = [labelled.pixels[index][:CROP, :CROP] for index in first]
    again = [labelled.pixels[index + 1][:CROP, :CROP] for index in first]
    layers = tuple(study.first_layers)
    given = {
        **study.options,
        "network": study.network,
        "long_edge": CROP,
        "alpha": 0,
        "style_layers": layers,
    }
    made = {
        "from sums (Eq. 5)": [finished([invert.purposeful(p, p, **given)])[0] for p in chosen],
        "from Gram matrices": [finished([invert.gatys(p, p, **given)])[0] for p in chosen],
    }
    shown = {name: [np.asarray(one.undenoised) for one in found] for name, found in made.items()}
    shown["another canvas of the class"] = again
    for descriptor in study.descriptors:
        own = descriptor.of(chosen)
        between = descriptor.distances(own)
        far = (between.sum(axis=1) / (len(own) - 1))[:, None]
        for subject, found in shown.items():
            near = np.diag(descriptor.distances(descriptor.of(found), own))[:, None]
            quantity = f"{SYNTHESIS}, by {descriptor.name}"
            rows.mean(quantity, ALL, subject, near / far, chance=1, bounds=(0, math.inf))


def _name_styles(rows: Rows, study: Study) -> None:
    """Add how often the style of a result is named right by the nearest style picture."""
    styles = [one.picture for one in study.run.named(study.design.styles, "styles")]
    given = {**study.options, "network": study.network}
    made: Dict[str, List[Tuple[int, int, np.ndarray]]] = {"PMCI (Eq. 5)": [], "Gatys et al.": []}
    for column, picture in enumerate(study.pictures):
        for row, style in enumerate(styles):
            for name, function in zip(made, (invert.purposeful, invert.gatys)):
                (one,) = finished([function(picture, style, **given)])
                made[name].append((column, row, np.asarray(one.image)))
    made["content picture, unchanged"] = [
        (column, row, picture)
        for column, picture in enumerate(study.content)
        for row in range(len(styles))
    ]
    layers = tuple(study.first_layers)
    judges = [MapSums(study.network, layers), OrientedBands()]
    if study.other is not None:
        judges.append(GramMatrices(study.other))
    wanted = [study.shown(style) for style in styles]
    for judge in judges:
        own = judge.of(wanted)
        for name, found in made.items():
            nearest = judge.distances(judge.of([one for _, _, one in found]), own).argmin(axis=1)
            right = np.full((len(study.pictures), len(styles)), np.nan)
            for (column, row, _), chosen in zip(found, nearest):
                right[column, row] = chosen == row
            rows.mean(
                f"{NAMED}, by {judge.name}",
                ALL,
                name,
                right,
                chance=1 / len(styles),
                binary=True,
            )


def answer(rows: Sequence[Row], layers: Sequence[str]) -> Answer:
    """Return the verdict of claim 6."""
    del layers
    names = [row.quantity for row in rows]
    quantity = next(name for name in names if name.startswith(RETRIEVAL))
    sums, gram, _, colour = (row.subject for row in rows if row.quantity == quantity)
    (precision,), (by_gram,), (by_colour,) = (
        values(rows, quantity, [ALL], subject) for subject in (sums, gram, colour)
    )
    correlation = next(
        row.estimate for row in rows if row.quantity.startswith(CORRELATION) and row.subject == sums
    )
    named = [
        row for row in rows if row.quantity.startswith(NAMED) and row.subject.startswith("PMCI")
    ]
    right = named[1]  # not by the sums themselves, which the inversion asked for
    chance = right.chance or 0
    as_well = precision.value > by_gram.value - 0.05
    finding = (
        f"textures are found by sums with {precision}, by Gram matrices with {by_gram}, by colour"
        f" alone with {by_colour}; the distances correlate by {correlation}; the style of"
        f" {right.estimate} of Eq. 5's results is named right by oriented bands and colour (chance"
        f" {chance:.2f})"
    )
    if as_well and exceeds(correlation, 0.7) and exceeds(right.estimate, chance):
        return Verdict.HOLDS, finding
    some = as_well or exceeds(correlation, 0.7) or exceeds(right.estimate, chance)
    return (Verdict.IN_PART if some else Verdict.FAILS), finding


QUESTION = Question(
    number="6",
    title="Sums of feature maps decide style",
    sentence="The combination weights of feature maps decide the image style. Like the sum of"
    " feature maps along channel axis, Gram matrix also guides the energy of every feature map of"
    " generated image (section 4).",
    criterion="It holds if sums find procedural textures of the same class as well as Gram matrices"
    " (a mean average precision not more than .05 below), if both distances correlate by more than"
    " .7, and if the style of Eq. 5's results is named right by oriented bands and colour more"
    " often than by chance (the whole intervals); in part if one of these does; else it fails.",
    kinds=(),
    measure=measure,
    answer=answer,
)
