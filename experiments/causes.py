"""Why panels of Fig. 3 and 5 differ from the published ones: one change at a time.

    python -m experiments.causes relu5_2 fig3.png --weights W.npz [--only VARIANT,...]
    python -m experiments.causes gatys fig5.png --weights W.npz [--picture tubingen]

Draws filters 0-4 of a layer as Fig. 3 does with each of :data:`CHAINS`, or Gatys' style transfers
as Fig. 5 does with each of :data:`TRANSFERS`, and compares each panel with the published figure.
Prints a line for each panel, and writes the table as JSON.
"""

from __future__ import annotations

import argparse
import collections
import functools
import logging
import sys
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Callable, Deque, Dict, List, Mapping, Optional, Sequence

import numpy as np

from experiments.compare import Reached, Row, compare
from experiments.outcome import finished
from experiments.published import SHEETS, Panels
from fmi import checks, codes, files, invert, losses, pictures
from fmi.call import Call
from fmi.descent import State
from fmi.device.mxnet import NDArray
from fmi.errors import FmiError, unknown
from fmi.inversion import Inversion, Place
from fmi.networks import catalogue, weights
from fmi.runs.store import open_store
from fmi.settings import CODE
from fmi.sources import table

Arrays = Dict[str, np.ndarray]


def rounded(arrays: Mapping[str, np.ndarray], blocks: Sequence[int]) -> Arrays:
    """Return weights with the kernels of some blocks in 8 bits, as the copy of blocks 4-5 has them.

    Each kernel has 256 equidistant values from its smallest to its largest, but its tap (2, 2) and
    the biases are exact.
    """
    found = dict(arrays)
    for name, kernel in arrays.items():
        if name.endswith("_weight") and int(name[4]) in blocks:
            low, high = float(kernel.min()), float(kernel.max())
            step = (high - low) / 255
            made = (low + step * np.round((kernel - low) / step)).astype(np.float16)
            found[name] = made.astype(np.float32)
            found[name][:, :, 2, 2] = kernel[:, :, 2, 2]
    return found


def noisy(arrays: Mapping[str, np.ndarray], blocks: Sequence[int], seed: int) -> Arrays:
    """Return weights with noise of the size of :func:`rounded`'s in the kernels of some blocks."""
    random, found = np.random.RandomState(seed), dict(arrays)
    for name, kernel in arrays.items():
        if name.endswith("_weight") and int(name[4]) in blocks:
            step = (float(kernel.max()) - float(kernel.min())) / 255
            noise = random.uniform(-step / 2, step / 2, kernel.shape).astype(np.float32)
            noise[:, :, 2, 2] = 0
            found[name] = kernel + noise
    return found


@dataclass(frozen=True)
class Variant:
    """A change.

    Attributes
    ----------
    options
        Keywords of the inversion.
    change
        Function that changes the weights.
    back
        How many steps before the last the picture is taken whose code makes the next target.
    anew
        Filters whose target is made from the content picture, as that of the first is.
    """

    options: Mapping[str, Any] = field(default_factory=dict)
    change: Optional[Callable[[Mapping[str, np.ndarray]], Arrays]] = None
    back: int = 0
    anew: Sequence[int] = ()


CHAINS = {
    "as drawn": Variant(),
    "float32": Variant({"precision": "float32"}),
    **{f"seed {seed}": Variant({"seed": seed}) for seed in range(1, 5)},
    "target one step earlier": Variant(back=1),  # the 2016 script runs the code before the step
    **{f"chain begun anew at {n}": Variant(anew=[n]) for n in range(1, 5)},
    "no chain (Eq. 2)": Variant(anew=range(5)),
    "sizes rounded down in pooling": Variant({"pool_rounding": "down"}),  # later than July 2016
    "twice the loss": Variant({"code_weight": 1}),  # Eq. 1; the 2016 code has half of it
    "32 times the loss": Variant({"code_weight": 16}),
    "twice the loss and begun anew at 3": Variant({"code_weight": 1}, anew=[3]),
    "stop 10 times later": Variant({"stop": 5e-4}),
    "stop twice as early": Variant({"stop": 1e-2}),
    "blocks 1-3 in 8 bits": Variant(change=lambda arrays: rounded(arrays, (1, 2, 3))),
    "noise in blocks 4-5": Variant(change=lambda arrays: noisy(arrays, (4, 5), 0)),
    "other noise in blocks 4-5": Variant(change=lambda arrays: noisy(arrays, (4, 5), 1)),
}
TRANSFERS = {
    "as drawn": Variant(),
    "float32": Variant({"precision": "float32"}),
    "seed 1": Variant({"seed": 1}),
    "start from the content picture": Variant({"init": "content"}),
    "stop 10 times later": Variant({"stop": 5e-4}),
    "learning rate lowered every 80 steps": Variant({"decay_every": 80}),  # MXNet's own example
    "content layer relu4_2": Variant({"content_layer": "relu4_2"}),  # Gatys et al. 2016
    "twice the loss": Variant({"alpha": 20, "beta": 2}),
    "a tenth of the content weight": Variant({"alpha": 1}),
    "three style layers": Variant({"style_layers": ("relu1_1", "relu2_1", "relu3_1")}),
    "style picture of its own size": Variant({"style_size": "own"}),
    "maximum pooling": Variant({"pool": "max"}),
    "noise in blocks 4-5": Variant(change=lambda arrays: noisy(arrays, (4, 5), 0)),
}
Drawing = Callable[[Variant, Mapping[str, Any]], Dict[str, Inversion]]


@dataclass(frozen=True)
class Subject:
    """What is drawn.

    Attributes
    ----------
    sheet
        The published figure.
    variants
        The changes.
    layers
        The layers that are needed.
    draw
        Function of a variant and of the keywords of its inversions; it returns the inversions by
        the names of their panels.
    """

    sheet: str
    variants: Mapping[str, Variant]
    layers: Sequence[str]
    draw: Drawing


def subject(chosen: argparse.Namespace) -> Subject:
    """Return what the command line asks for."""
    folders = table.folders("pictures")
    picture = pictures.find(chosen.picture, folders)
    if chosen.what == "gatys":
        names = checks.checked("styles", chosen.styles, checks.Names)
        styles = {f"{chosen.picture}/{n}_gatys": pictures.find(n, folders) for n in names}
        draw = functools.partial(transfers, picture, styles)
        return Subject("fig5", TRANSFERS, CODE.gatys.layers, draw)
    filters = checks.checked("filters", chosen.filters, checks.Numbers)
    draw = functools.partial(chain, picture, chosen.what, filters)
    return Subject("fig3", CHAINS, [chosen.what], draw)


def chain(
    picture: Path, layer: str, filters: Sequence[int], variant: Variant, options: Mapping[str, Any]
) -> Dict[str, Inversion]:
    """Return the inversions of a chain of filters, by the names of their panels."""
    names = [f"{layer}_filter{index}" for index in filters]
    if not variant.back:
        given: Dict[str, Any] = {**options, "store": open_store(), "chain": True}
        starts = [n for n, index in enumerate(filters) if n == 0 or index in variant.anew]
        parts = [filters[n:end] for n, end in zip(starts, [*starts[1:], len(filters)])]
        drawn: List[Inversion] = []
        for part in parts:
            drawn += finished(invert.feature_map(picture, layer, part, **given))
        return dict(zip(names, drawn))
    recent: Deque[NDArray] = collections.deque(maxlen=variant.back + 1)

    def remember(state: State) -> None:
        recent.append(state.image)

    call = Call("feature_map", [layer], {**options, "callback": remember}, {"content": picture})
    code = call.content
    found = {}
    for n, (name, index) in enumerate(zip(names, filters)):
        targets = {layer: codes.isolate(code[layer], [index])}
        loss = losses.all_codes(targets, call.settings.code_weight)
        place = Place(index, tuple(filters[:n]))
        made = call.invert([place], lambda _, loss=loss: loss)  # type: ignore[misc]
        (found[name],) = finished(made)
        code = call.truncated(recent[0])
    return found


def transfers(
    content: Path, styles: Mapping[str, Path], _: Variant, options: Mapping[str, Any]
) -> Dict[str, Inversion]:
    """Return Gatys' style transfers to a content picture, by the names of their panels."""
    given: Dict[str, Any] = {**options, "store": open_store()}
    found = {}
    for name, style in styles.items():
        (found[name],) = finished([invert.gatys(content, style, **given)])
    return found


def rows_of(
    variant: Variant, given: weights.Weights, published: Panels, drawing: Drawing
) -> List[Row]:
    """Draw a variant and compare it."""
    measuring = network = catalogue.load(weights=given)
    with tempfile.TemporaryDirectory() as folder:
        if variant.change:
            path = Path(folder) / "changed.npz"
            np.savez(path, **variant.change(given.arrays))  # type: ignore[arg-type]
            network = catalogue.load(weights=path)
        options = {"precision": "bfloat16", **variant.options, "network": network}
        found = drawing(variant, options)
    panels = {name: np.asarray(one.image) for name, one in found.items()}
    reached = {name: Reached.of(one.describe()["outcome"], one.loss) for name, one in found.items()}
    return compare(panels, published, measuring, reached)


def main() -> int:
    """Print the table; the exit status is 2 for a mistake in the input, 130 after Ctrl-C."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", metavar="LAYER|gatys", help="a layer of Fig. 3, or gatys of Fig. 5")
    parser.add_argument("published", type=Path, help="the published figure")
    parser.add_argument("--weights", default="vgg19")
    parser.add_argument("--picture", default="golden_gate", help="the content picture")
    parser.add_argument("--filters", default="0,1,2,3,4", help="of a layer")
    parser.add_argument("--styles", default=",".join(SHEETS["fig5"].rows), help="of gatys")
    parser.add_argument("--only", help="names of variants with commas between; default: all")
    parser.add_argument("--json", type=Path, help="a file to write the table to")
    chosen = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    rows: Dict[str, List[Dict[str, Any]]] = {}
    try:
        asked = subject(chosen)
        names = chosen.only.split(",") if chosen.only else list(asked.variants)
        for name in names:
            if name not in asked.variants:
                raise unknown("variant", name, asked.variants)
        published = SHEETS[asked.sheet].read(chosen.published)
        given = weights.load(chosen.weights, asked.layers)
        for name in names:
            for row in rows_of(asked.variants[name], given, published, asked.draw):
                sys.stdout.write(f"{name}, {row}\n")
                rows.setdefault(name, []).append(asdict(row))
            sys.stdout.flush()
            if chosen.json:
                files.save_json(chosen.json, rows)
    except FmiError as error:
        sys.stderr.write(f"causes: {error}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write("causes: interrupted; finished panels are kept\n")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
