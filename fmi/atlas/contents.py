"""Contents: what an atlas shows, read from the folder of a sweep."""

from __future__ import annotations

import logging
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Union

import numpy as np
import yaml
from PIL import Image

from fmi import pictures
from fmi import settings as presets
from fmi.atlas.addresses import slug
from fmi.call import Options
from fmi.errors import InputError, brief
from fmi.evidence import crops
from fmi.evidence.crops import Crops
from fmi.inversion import Inversion
from fmi.networks.base import Layer, Network
from fmi.runs import experiment
from fmi.runs.figures import Run
from fmi.runs.sweep import Panel, panels
from fmi.runs.sweep import read as read_sweep

__all__ = ["FILE", "LARGEST_CROP", "SMALLEST_CROP", "Contents", "Natural", "Shown", "crop", "read"]

log = logging.getLogger(__name__)

FILE = "sweep.yaml"
SMALLEST_CROP, LARGEST_CROP = 24, 160  # pixels: of less, nothing is seen; of more, few fit
SCALES = (1.0, 0.5)
PLACES = ("results", "store", "processes", "memory")  # keys that name folders or the machine


@dataclass(frozen=True)
class Shown:
    """A content picture.

    Attributes
    ----------
    label
        Its name, which no other picture of the atlas has.
    pixels
        (H, W, 3) uint8 RGB, as large as its panels.
    source
        The Python expression of it in a call.
    """

    label: str
    pixels: np.ndarray
    source: str

    @property
    def slug(self) -> str:
        """Its name in addresses."""
        return slug(self.label)


@dataclass(frozen=True)
class Natural:
    """Natural crops of one size, and how much they excite the filters of a layer.

    Attributes
    ----------
    crops
        The crops.
    names
        Names of the photographs.
    responses
        (n, C) mean activations of the filters on the crops.
    """

    crops: Crops
    names: Sequence[str]
    responses: np.ndarray


@dataclass(frozen=True)
class Contents:
    """What an atlas shows.

    Attributes
    ----------
    title
        The title of the atlas.
    network
        What identifies the network (:meth:`fmi.networks.base.Network.describe`).
    layers
        The layers, in the order of the network.
    pictures
        The content pictures.
    panels
        By layer and filter, the key in the store of the panel of each picture, by its label.
    find
        Function that returns the result with a key, or ``None``.
    natural
        Function that returns the natural crops for a layer, or ``None``.
    sweep
        The YAML of the sweep, from which it can be repeated.
    keywords
        Keywords of :func:`fmi.invert.feature_map` that compute a panel anew.
    """

    title: str
    network: Mapping[str, Any]
    layers: Sequence[Layer]
    pictures: Sequence[Shown]
    panels: Mapping[str, Mapping[int, Mapping[str, str]]]
    find: Callable[[str], Optional[Inversion]]
    natural: Callable[[Layer], Optional[Natural]] = lambda _: None
    sweep: str = ""
    keywords: Mapping[str, Any] = field(default_factory=dict)

    def shell(self, layer: str, index: int) -> str:
        """Return the command that repeats the panels of one filter."""
        words = ["fmi", "sweep", FILE, f"LAYERS={layer}", f"FILTERS={index}"]
        words.append(f"RESULTS=results/{slug(layer)}_{index}")
        return " ".join(shlex.quote(word) for word in words)

    def python(self, picture: Shown, layer: str, index: int) -> str:
        """Return the call that repeats one panel."""
        given = "".join(f", {name}={value!r}" for name, value in self.keywords.items())
        return f"fmi.invert.feature_map({picture.source}, {layer!r}, {index}{given})"


def read(
    folder: Path, photographs: Union[None, str, Path] = None, title: Optional[str] = None
) -> Contents:
    """Read what an atlas shows; no panel is computed.

    Parameters
    ----------
    folder
        Folder of a sweep.
    photographs
        Folder of photographs for the natural crops (:func:`fmi.evidence.crops.photographs`).
    title
        The title; by default it names the network.

    Raises
    ------
    InputError
        If the folder is not that of a sweep, if its store has none of the panels, or if the
        pictures, the network or the photographs cannot be read.
    """
    file = folder / FILE
    if not file.is_file():
        raise InputError(
            f"{brief(folder)} is not the folder of a sweep: it has no {FILE}; run fmi sweep first"
        )
    run = Run(read_sweep(file))
    if not run.store.names():
        raise InputError(
            f"the store {brief(run.store.folder)} is empty; run fmi sweep first, or again"
        )
    listed = panels(run)
    network = run.network
    used = {panel.layer for panel in listed}
    return Contents(
        title=title or f"What the filters of {network.name} extract",
        network=network.describe(),
        layers=[layer for layer in network.layers if layer.name in used],
        pictures=_pictures(run),
        panels=_arranged(listed),
        find=run.store.find,
        natural=_Excitation(network, photographs),
        sweep=_portable(file),
        keywords=_keywords(run),
    )


def _pictures(run: Run) -> List[Shown]:
    """Return the content pictures as large as their panels."""
    asked = run.experiment
    edge = presets.override(presets.preset(run.preset), asked.overrides).long_edge
    found = []
    sources = map(_source, experiment.find(asked, asked.pictures, "pictures"), asked.pictures)
    for source, named in zip(sources, run.named(asked.pictures)):
        height, width = pictures.fitted(named.picture.pixels, edge)
        image = Image.fromarray(named.picture.pixels)
        resized = image.resize((width, height), Image.Resampling.LANCZOS)
        found.append(Shown(named.label, np.asarray(resized), source))
    return found


def _arranged(listed: Sequence[Panel]) -> Dict[str, Dict[int, Dict[str, str]]]:
    """Return the keys of panels by layer, filter and picture."""
    found: Dict[str, Dict[int, Dict[str, str]]] = {}
    for panel in listed:
        found.setdefault(panel.layer, {}).setdefault(panel.filter, {})[panel.picture] = panel.key
    return {layer: dict(sorted(filters.items())) for layer, filters in found.items()}


def _portable(file: Path) -> str:
    """Return the YAML of a sweep without what only holds on one machine."""
    content = yaml.safe_load(file.read_text(encoding="utf-8"))
    kept = {name: value for name, value in content.items() if name not in PLACES}
    return str(yaml.safe_dump(kept, sort_keys=False, allow_unicode=True))


def _source(file: Path, name: str) -> str:
    """Return the Python expression of a picture: with its path as it was given, if it was."""
    for known in pictures.SKIMAGE:
        if file == pictures.find(f"skimage:{known}", []):
            return f"fmi.pictures.find('skimage:{known}', [])"
    return repr(name if str(file) == name else file.name)


def _keywords(run: Run) -> Dict[str, Any]:
    """Return the keywords of a call that computes panels of a sweep, without the defaults."""
    asked = run.experiment
    chosen = {
        "network": asked.network,
        "weights": asked.weights,
        "input": asked.input,
        "settings": run.preset,
        "precision": run.precision.name,
        "ctx": asked.ctx,
        "seed": asked.seed,
        **asked.overrides,
    }
    return {name: v for name, v in chosen.items() if v != getattr(Options, name, None)}


def crop(receptive_field: int) -> int:
    """Return the side of natural crops for a receptive field, in pixels."""
    return min(max(receptive_field, SMALLEST_CROP), LARGEST_CROP)


class _Excitation:
    """How much natural crops excite the layers of a network; the last size is kept."""

    def __init__(self, network: Network, folder: Union[None, str, Path]) -> None:
        self._network = network
        self._photographs = crops.photographs(folder)
        self._cut: Dict[int, Crops] = {}

    def __call__(self, layer: Layer) -> Natural:
        """Return the crops of the size for a layer, with the responses of its filters."""
        size = crop(layer.receptive_field)
        if size not in self._cut:
            self._cut = {size: crops.cut(self._photographs, size, max(1, size // 2), SCALES)}
        found = self._cut[size]
        log.info("%s: %d natural crops of %d pixels", layer.name, len(found), size)
        return Natural(
            found,
            [one.name for one in self._photographs],
            crops.responses(self._network, list(found.pixels), [layer.name])[layer.name],
        )
