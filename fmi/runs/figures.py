"""The figures of the paper: the panels of each figure, and their arrangement on a sheet."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any, List, Sequence, Tuple

import numpy as np
from PIL import Image

from fmi import codes, files, invert, pictures, sheets
from fmi.call import Options, number_format
from fmi.device.mxnet import context, mx
from fmi.networks.base import split_filters
from fmi.runs.experiment import Experiment, find
from fmi.runs.panels import Found, Job, Panel, compute

__all__ = ["DRAWERS", "TITLES", "draw"]

log = logging.getLogger(__name__)


TITLES = {  # titles of the pictures in the paper
    "golden_gate": "The Golden Gate Bridge",
    "tubingen": "Neckarfront with Hölderlinturm and Collegiate",
}


def draw(run: Experiment) -> List[Path]:
    """Compute the missing panels, assemble the figure, and return the files of the sheet.

    Raises
    ------
    InputError
        If a value cannot be used.
    KeyboardInterrupt
        After Ctrl-C; finished panels are kept.
    """
    note = ""
    if run.figure != "fig2":  # one network, device and precision for all panels
        run = run.with_network()
        assert run.network is not None
        usual = Options()
        ctx = context(run.values.get("ctx"))
        asked = run.values.get("precision", usual.precision)
        precision = number_format(asked, run.network, ctx)
        seed = run.values.get("seed", usual.seed)
        note = run.network.note
        run = replace(run, values={**run.values, "ctx": ctx, "precision": precision, "seed": seed})
    sheet = sheets.sheet(DRAWERS[run.figure](run), note)
    return list(sheets.save(sheet, run.results / run.figure))


def _panel(run: Experiment, stem: str) -> np.ndarray:
    with Image.open(run.results / f"{stem}.png") as image:
        return np.asarray(image.convert("RGB"))


def _title(path: Path) -> str:
    return TITLES.get(path.stem, path.stem)


def _fig1(run: Experiment) -> List[sheets.Block]:
    """A code before and after each modification, as feature-map tiles."""
    file = find(run, "pictures")[0]
    layer, filters = _rows(run)[0]
    chosen = filters[0]
    tiles = run["tiles"]
    code = invert.activations(file, layer, **run.options())[layer]
    channels = code.shape[1]
    assert run.network is not None
    run.network.check_filters([chosen], layer)
    shares = codes.simplex_shares(np.random.RandomState(run["seed"]), channels)
    row = mx.nd.array(shares[None], ctx=code.context, dtype="float64")
    stages = {
        "code": ("code", code),
        "isolated": (f"filter {chosen} isolated (Eq. 2)", codes.isolate(code, [chosen])),
        "reallocated": ("reallocated (Eq. 3)", codes.reallocate(code, row)),
    }
    first = min(chosen // tiles * tiles, max(channels - tiles, 0))  # the tiles with the filter
    panels = []
    for stem, (title, values) in stages.items():
        maps = values[0, first : first + tiles].asnumpy()
        panels.append(sheets.tiles(maps))
        pictures.save_png(run.results / f"{stem}.png", panels[-1])
        shown = {"layer": layer, "picture": file.stem, "first_map": first, "maps": len(maps)}
        files.save_json(run.results / f"{stem}.json", {"title": title, **shown})
    caption = f"{_title(file)}, {layer}: feature maps {first}-{first + len(maps) - 1} of {channels}"
    return [
        sheets.Block([panels], columns=[title for title, _ in stages.values()], caption=caption)
    ]


def _fig2(run: Experiment) -> List[sheets.Block]:
    """Draw the content pictures."""
    files = find(run, "pictures")
    titles = [_title(file) for file in files]
    return [sheets.Block([[pictures.read(file).pixels for file in files]], columns=titles)]


def _fig3(run: Experiment) -> List[sheets.Block]:
    """Draw rows of layers and columns of filters, in one block for each content picture."""
    files, chain, rows = find(run, "pictures"), run["chain"], _rows(run)
    jobs = []
    for file in files:
        for layer, filters in rows:
            panels = tuple(
                Panel(
                    f"{file.stem}/{layer}_filter{index}",
                    {"filter": index, "after": filters[:place] if chain else []},
                )
                for place, index in enumerate(filters)
            )

            def call(missing: Sequence[Panel], file: Path = file, layer: str = layer) -> Found:
                chosen = [panel.place["filter"] for panel in missing]
                return invert.feature_map(file, layer, chosen, chain=chain, **run.options())

            jobs.append(Job("feature_map", {"content": file}, (layer,), panels, call, chain))
    compute(run, jobs)
    same = len({tuple(filters) for _, filters in rows}) == 1
    return [
        sheets.Block(
            [
                [_panel(run, f"{f.stem}/{layer}_filter{i}") for i in filters]
                for layer, filters in rows
            ],
            rows=[n if same else f"{n}:{','.join(map(str, chosen))}" for n, chosen in rows],
            columns=[str(index) for index in rows[0][1]] if same else (),
            caption=f"({chr(97 + n)}) {_title(f)}" if len(files) > 1 else _title(f),
        )
        for n, f in enumerate(files)
    ]


def _rows(run: Experiment) -> List[Tuple[str, List[int]]]:
    """Return layers and their filters; ``relu3_2:17`` has filters of its own."""
    parts = [split_filters(text) for text in run["layers"]]
    return [(name, list(filters) or run["filters"]) for name, filters in parts]


def _fig4(run: Experiment) -> List[sheets.Block]:
    """Draw columns of layers and rows of draws, in one block for each content picture."""
    files, draws = find(run, "pictures"), run["draws"]
    jobs = []
    for file in files:
        for layer in run["layers"]:
            panels = tuple(Panel(f"{file.stem}/{layer}_draw{i}", {"draw": i}) for i in range(draws))

            def call(_: Sequence[Panel], file: Path = file, layer: str = layer) -> Found:
                return invert.random(file, layer, draws=draws, **run.options())

            jobs.append(Job("random", {"content": file}, (layer,), panels, call, together=True))
    compute(run, jobs)
    return [
        sheets.Block(
            [
                [_panel(run, f"{f.stem}/{layer}_draw{i}") for layer in run["layers"]]
                for i in range(draws)
            ],
            columns=run["layers"],
            caption=_title(f) if len(files) > 1 else "",
        )
        for f in files
    ]


def _fig5(run: Experiment) -> List[sheets.Block]:
    """Draw a row for each style: the style, then Gatys and PMCI for each content picture."""
    files, styles = find(run, "pictures"), find(run, "styles")
    methods = {"gatys": invert.gatys, "purposeful": invert.purposeful}
    jobs = []
    for style in styles:
        for file in files:
            for name, method in methods.items():
                scheme = getattr(run.settings(name), name)
                used = {"content": file, "style": style}
                panel = Panel(f"{file.stem}/{style.stem}_{name}", {})

                def call(_: Sequence[Panel], method: Any = method, used: Any = used) -> Found:
                    return [method(**used, **run.options())]

                reached = scheme.layers
                jobs.append(Job(name, used, reached, (panel,), call))
    compute(run, jobs)
    height, width, _ = _panel(run, f"{files[0].stem}/{styles[0].stem}_gatys").shape
    rows = [
        [sheets.warped(pictures.read(style).pixels, (height, width))]
        + [_panel(run, f"{f.stem}/{style.stem}_{name}") for f in files for name in methods]
        for style in styles
    ]
    letters = [chr(65 + index) for index in range(len(styles))]
    return [sheets.Block(rows, rows=letters, columns=["style"] + ["Gatys", "PMCI"] * len(files))]


DRAWERS = {"fig1": _fig1, "fig2": _fig2, "fig3": _fig3, "fig4": _fig4, "fig5": _fig5}
