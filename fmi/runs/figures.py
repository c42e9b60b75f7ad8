"""The figures of the paper: the panels of each figure, and their arrangement on a sheet."""

from __future__ import annotations

import functools
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple, Type, Union, cast

import numpy as np

from fmi import codes, files, pictures, request, sheets
from fmi import settings as presets
from fmi.call import Call, in_one_line, layers_of, number_format
from fmi.device.mxnet import Context, context
from fmi.device.precision import Precision
from fmi.errors import InputError
from fmi.networks import catalogue
from fmi.networks.base import Network, split_filters
from fmi.pictures import Picture
from fmi.runs.experiment import Experiment, Fig1, Fig2, Fig3, Fig4, Fig5, find, packaged, read
from fmi.runs.panels import Job, Team, compute, distinct
from fmi.runs.store import Store, open_store
from fmi.sheets import Block

__all__ = ["TITLES", "Named", "Run", "blocks", "draw"]

log = logging.getLogger(__name__)


TITLES = {  # of the paper's pictures, and of scikit-image's whose file names say little
    "golden_gate": "The Golden Gate Bridge",
    "tubingen": "Neckarfront with Hölderlinturm and Collegiate",
    "starry_night": "The Starry Night",
    "the_scream": "The Scream",
    "frida_kahlo": "Frida Kahlo",
    "seated_nude": "Seated Nude",
    "ihc": "Immunohistochemistry",
    "hubble_deep_field": "Hubble Deep Field",
}
WIDEST = 10  # panels in a row
LONGEST = 60  # characters of the name of a picture in the names of its files


@dataclass(frozen=True)
class Named:
    """A picture and the name of its files, which no other picture of the figure has."""

    picture: Picture
    label: str

    @property
    def title(self) -> str:
        """The title on the sheet, which tells pictures of the same name apart."""
        own = self.picture.name
        return TITLES.get(own, own) if self.label == own[:LONGEST] else self.label


class Run:
    """An experiment with its network, device and store.

    Parameters
    ----------
    experiment
        The experiment.

    Raises
    ------
    InputError
        If the network or the device cannot be used, or if the network lacks a layer.
    """

    def __init__(self, experiment: Experiment) -> None:
        self.experiment = experiment
        self.store: Store = open_store(experiment.store)
        self.results = experiment.results_folder

    @functools.cached_property
    def network(self) -> Network:
        """The network; for style transfer, ``weights="auto"`` must have the preset's layers."""
        e = self.experiment
        layers = e.layer_names
        if isinstance(e, Fig5):
            preset = presets.preset(e.settings or presets.DEFAULT)
            chosen = [presets.override(preset, e.overrides, kind) for kind in presets.TRANSFERS]
            layers = [
                name
                for s, kind in zip(chosen, presets.TRANSFERS)
                for name in getattr(s, kind).layers
            ]
        return catalogue.load(e.network, e.weights, e.input, layers)

    @functools.cached_property
    def preset(self) -> str:
        """The name of the preset: the one that was asked for, or the default of the network."""
        if self.experiment.settings:
            return self.experiment.settings
        if self.network.settings != presets.DEFAULT:
            log.info("%s: settings %r", self.network.name, self.network.settings)
        return self.network.settings

    @functools.cached_property
    def ctx(self) -> Context:
        """The device."""
        return context(self.experiment.ctx)

    @functools.cached_property
    def precision(self) -> Precision:
        """The number format, which is the same for all panels."""
        return number_format(self.experiment.precision, self.network, self.ctx)

    @property
    def options(self) -> Dict[str, Any]:
        """Keywords for the functions of :mod:`fmi.request`."""
        return {
            "network": self.network,
            "settings": self.preset,
            "ctx": self.ctx,
            "precision": self.precision,
            "memory": self.experiment.memory,
            "store": self.store,
            **self.experiment.overrides,
        }

    @property
    def note(self) -> str:
        """What differs from the published figures: network, preset, settings, chain; or nothing."""
        network, e = self.network.note, self.experiment
        values = [f"{name}={_words(value)}" for name, value in e.overrides.items()]
        if isinstance(e, Fig3):
            usual = cast(Fig3, read(packaged("fig3"))).chained(self.preset)
            values += [f"chain={int(not usual)}"] * (e.chained(self.preset) != usual)
        if not network and not values and self.preset == presets.DEFAULT:
            return ""
        return ", ".join([*([network] if network else []), f"preset {self.preset}", *values])

    def named(self, names: Sequence[str], key: str = "pictures") -> List[Named]:
        """Read pictures of the experiment, each once."""
        found = [pictures.read(path) for path in find(self.experiment, names, key)]
        labels = distinct([picture.name[:LONGEST] for picture in found])
        return [Named(picture, label) for picture, label in zip(found, labels)]

    def layers(
        self, texts: Sequence[str], first: bool = False
    ) -> List[Tuple[str, Tuple[int, ...]]]:
        """Return layers under their names in the network, and the filters given with them.

        If the network has none of the layers in the YAML file, they are replaced by
        representative ones.
        """
        parts = [split_filters(text) for text in texts]
        knows = any(self.network.knows(name) for name, _ in parts)
        if "layers" not in self.experiment.given and not knows:
            chosen = self.network.landmarks(first=first)
            log.info("%s: layers %s", self.network.name, ", ".join(chosen))
            return [(name, ()) for name in chosen]
        return [(self.network.layer(name).name, filters) for name, filters in parts]

    def panels(self, jobs: Sequence[Job]) -> List[List[np.ndarray]]:
        """Return the panels of all jobs, which are computed if the store lacks them."""
        return compute(self.experiment.figure, jobs, self.store, self.results, self.team())

    def team(self) -> Optional[Team]:
        """Return what worker processes need; a GPU is used by this process alone."""
        number = self.experiment.processes
        if self.ctx.device_type == "gpu":
            if (number or 1) > 1:
                raise InputError(
                    f"processes={number} is for the CPU, but {self.ctx} is used: omit it, or set"
                    " ctx=cpu"
                )
            return None
        return Team(self.resolved, number)

    @property
    def resolved(self) -> Experiment:
        """The experiment with everything resolved that depends on the machine."""
        resolved = {"settings": self.preset, "ctx": str(self.ctx), "precision": self.precision}
        return self.experiment.model_copy(update=resolved)


def draw(experiment: Experiment) -> List[Path]:
    """Compute the missing panels, assemble the figure, and return the files of the sheet.

    Raises
    ------
    InputError
        If a value cannot be used.
    KeyboardInterrupt
        After Ctrl-C; finished panels are in the store.
    """
    run = Run(experiment)
    found = blocks(run)
    note = "" if isinstance(experiment, Fig2) else run.note
    return list(sheets.save(sheets.sheet(found, note), run.results / experiment.figure))


def blocks(run: Run) -> List[Block]:
    """Return the blocks of the sheet of an experiment.

    Raises
    ------
    InputError, KeyboardInterrupt
        As for :func:`draw`.
    """
    return DRAWERS[type(run.experiment)](run, run.experiment)


def _fig1(run: Run, experiment: Fig1) -> List[Block]:
    """Draw a code before and after each modification, as feature-map tiles."""
    named = run.named(experiment.pictures)[0]
    layer, own = run.layers(experiment.layers)[-1]
    chosen = (own or experiment.filters)[0]
    run.network.check_filters([chosen], layer)
    options = {**run.options, "seed": experiment.seed}
    call = in_one_line(Call)("activations", [layer], options, {"content": named.picture})
    code = in_one_line(lambda: call.content)()[layer]
    channels, tiles = code.shape[1], experiment.tiles
    shares = codes.shares(call.settings.shares, channels, experiment.seed, 0, layer)
    stages = {
        "code": ("code", code),
        "isolated": (f"filter {chosen} isolated (Eq. 2)", codes.isolate(code, [chosen])),
        "reallocated": (
            "reallocated (Eq. 3)",
            codes.reallocate(code, call.to_device(shares[None], "float64")),
        ),
    }
    first = min(chosen // tiles * tiles, max(channels - tiles, 0))  # the tiles with the filter
    panels, maxima = [], []
    for stem, (title, values) in stages.items():
        maps = values[0, first : first + tiles].asnumpy()
        maxima.append(float(np.abs(maps).max()))
        panels.append(sheets.tiles(maps))
        pictures.save_png(run.results / f"{stem}.png", panels[-1])
        where = {"first_map": first, "maps": len(maps)}
        files.save_json(run.results / f"{stem}.json", {**call.record, "title": title, **where})
    caption = f"{named.title}, {layer}: feature maps {first}-{first + len(maps) - 1} of {channels}"
    columns = [title for title, _ in stages.values()]
    return [Block([panels], columns=columns, caption=caption, maxima=[maxima])]


def _fig2(run: Run, experiment: Fig2) -> List[Block]:
    """Draw the content pictures."""
    named = run.named(experiment.pictures)
    return [Block([[one.picture.pixels for one in named]], columns=[one.title for one in named])]


def _fig3(run: Run, experiment: Fig3) -> List[Block]:
    """Draw rows of layers and columns of filters, in one block for each content picture.

    If there are more than :data:`WIDEST` filters of a layer, each layer has a block of its own.
    """
    named, chain = run.named(experiment.pictures), experiment.chained(run.preset)
    layers = run.layers(experiment.layers)
    rows = [(name, own or _filters(run, name, experiment.filters)) for name, own in layers]
    options = {**run.options, "seed": experiment.seed}
    jobs = [
        Job(
            request.feature_map(one.picture, layer, filters, chain, None, options),
            tuple(distinct([f"{one.label}/{layer}_filter{index}" for index in filters])),
        )
        for one in named
        for layer, filters in rows
    ]
    panels = run.panels(jobs)
    same = len({filters for _, filters in rows}) == 1
    # With the paper's own filters, the chain is the published one.
    others = "filters" in experiment.given or any(own for _, own in layers)
    told = ", chained" if chain and others else ""
    captions = [
        f"({_letter(n)}) {one.title}{told}" if len(named) > 1 else f"{one.title}{told}"
        for n, one in enumerate(named)
    ]
    blocks = []
    for n, caption in enumerate(captions):
        own = panels[n * len(rows) : (n + 1) * len(rows)]
        if max(len(filters) for _, filters in rows) > WIDEST:
            blocks += [
                _wrapped(row, layer, filters, f"{caption}, {layer}")
                for row, (layer, filters) in zip(own, rows)
            ]
            continue
        blocks.append(
            Block(
                own,
                rows=[name if same else f"{name}:{','.join(map(str, f))}" for name, f in rows],
                columns=[str(index) for index in rows[0][1]] if same else (),
                caption=caption,
            )
        )
    return blocks


def _filters(run: Run, layer: str, filters: Union[str, Tuple[int, ...]]) -> Tuple[int, ...]:
    """Return the numbers of filters, which may be all of a layer."""
    if isinstance(filters, str):
        return tuple(range(run.network.layer(layer).channels))
    return filters


def _wrapped(
    panels: Sequence[np.ndarray], layer: str, filters: Sequence[int], caption: str
) -> Block:
    """Return a block of the filters of one layer, each with its title."""
    titles = [f"{layer}:{index}" for index in filters]
    return Block(
        sheets.in_rows(panels, WIDEST), titles=sheets.in_rows(titles, WIDEST), caption=caption
    )


def _words(value: Any) -> str:
    """Return a setting as it is written on the command line."""
    return ",".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def _letter(number: int) -> str:
    """Return a letter for each of 26 numbers, and the number of the others."""
    return chr(ord("a") + number) if number < 26 else str(number + 1)


def _fig4(run: Run, experiment: Fig4) -> List[Block]:
    """Draw columns of layers and rows of draws, in one block for each content picture."""
    named, draws = run.named(experiment.pictures), experiment.draws
    layers_of(experiment.layers)  # refuses filters
    layers = [name for name, _ in run.layers(experiment.layers, first=True)]
    jobs = [
        Job(
            request.random(one.picture, layer, draws, experiment.seed, None, run.options),
            tuple(f"{one.label}/{layer}_draw{n}" for n in range(draws)),
        )
        for one in named
        for layer in layers
    ]
    panels = run.panels(jobs)
    return [
        Block(
            list(zip(*panels[n * len(layers) : (n + 1) * len(layers)])),
            rows=[f"draw {index}" for index in range(draws)],
            columns=layers,
            caption=one.title,
        )
        for n, one in enumerate(named)
    ]


def _fig5(run: Run, experiment: Fig5) -> List[Block]:
    """Draw the content pictures, and a row for each style: the style, Gatys and PMCI of each."""
    named, styles = run.named(experiment.pictures), run.named(experiment.styles, "styles")
    methods = {"gatys": request.gatys, "purposeful": request.purposeful}
    options = {**run.options, "seed": experiment.seed}
    jobs = [
        Job(
            method(one.picture, style.picture, options),
            (f"{one.label}/{style.label}_{name}",),
        )
        for style in styles
        for one in named
        for name, method in methods.items()
    ]
    panels = [panel for (panel,) in run.panels(jobs)]
    count = len(named) * len(methods)
    shown = [style.picture.pixels for style in styles]
    if jobs[0].request.call.settings.style_size == "content":
        height, width, _ = panels[0].shape
        shown = [sheets.warped(pixels, (height, width)) for pixels in shown]
    rows = [[first, *panels[n * count : (n + 1) * count]] for n, first in enumerate(shown)]
    contents = [panel for one in named for panel in (one.picture.pixels, None)]
    titles = [title for one in named for title in (one.title, "")]
    return [
        Block([[None, *contents]], rows=["content"], columns=["", *titles]),
        Block(
            rows,
            rows=[style.title for style in styles],
            columns=["style"] + ["Gatys", "PMCI"] * len(named),
        ),
    ]


DRAWERS: Dict[Type[Experiment], Callable[[Run, Any], List[Block]]] = {
    Fig1: _fig1,
    Fig2: _fig2,
    Fig3: _fig3,
    Fig4: _fig4,
    Fig5: _fig5,
}
