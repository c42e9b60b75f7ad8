"""A study: one network, its panels, and what else the claims are measured on."""

from __future__ import annotations

import functools
import logging
from typing import Any, Callable, Dict, List, Optional, Sequence

import numpy as np

from experiments.claims import controls, panels
from experiments.claims.design import Design, drawn
from experiments.claims.panels import Panels, Place
from fmi.errors import InputError
from fmi.networks.base import Network
from fmi.pictures import Picture
from fmi.runs.figures import Run

__all__ = ["Study"]

log = logging.getLogger(__name__)

LONG_EDGE = {True: 128, False: 224}  # of the panels, by whether the network is the embedded one


class Study:
    """One network with what the claims are measured on; everything is computed when first used.

    Parameters
    ----------
    design
        What the claims are measured over.

    Attributes
    ----------
    run
        The network, the device and the pictures of the experiment.
    network
        The network.
    pictures
        The content pictures, K of them.
    layers
        Names of the layers.
    """

    def __init__(self, design: Design) -> None:
        self.design = design
        self.run = Run(design)
        self.network: Network = controls.family(self.run.network)
        named = self.run.named(design.pictures)
        if len(named) < design.k:
            raise InputError(f"K={design.k} exceeds the number of pictures, {len(named)}")
        self.pictures: List[Picture] = [one.picture for one in named[: design.k]]
        self.layers = [name for name, _ in self.run.layers(design.layers)]
        self._panels: Dict[str, Panels] = {}

    @property
    def long_edge(self) -> int:
        """Long edge of the panels in pixels."""
        embedded = controls.family(self.network).weights.embedded
        return int(self.design.overrides.get("long_edge", LONG_EDGE[embedded]))

    @property
    def options(self) -> Dict[str, Any]:
        """Keywords of all inversions, but for the network."""
        own = {name: value for name, value in self.run.options.items() if name != "network"}
        return {**own, "long_edge": self.long_edge, "progress": False}

    @functools.cached_property
    def untrained(self) -> Network:
        """The untrained counterpart of the network."""
        path = self.run.results / "untrained.npz"
        return controls.untrained(self.network, self.pictures, self.long_edge, path)

    def filters(self, layer: str) -> np.ndarray:
        """Return the filters of a layer that are measured, (N,)."""
        channels = self.network.layer(layer).channels
        return drawn(layer, channels, self.design.n, self.design.seed)

    def starts(self, kind: str) -> int:
        """Return the number of initial pictures of one kind of panels."""
        design = self.design
        few = kind in panels.CONTROLS and kind != panels.MAXIMISED
        return min(design.starts, design.control_starts) if few else design.starts

    def place(self, layer: str) -> Place:
        """Return what the panels of a layer are computed of."""
        return Place(
            self.network,
            lambda: self.untrained,
            layer,
            self.filters(layer),
            self.pictures,
            self.design.seed,
            self.options,
        )

    def panels(
        self, kind: str, layer: str, count: Optional[Callable[[int], None]] = None
    ) -> Panels:
        """Return the panels of one kind at one layer, which are computed at first use."""
        key = f"{kind} {layer}"
        if key not in self._panels:
            done = count or (lambda _: None)
            self._panels[key] = panels.compute(kind, self.place(layer), self.starts(kind), done)
        return self._panels[key]

    def number(self, kinds: Sequence[str]) -> int:
        """Return the number of panels of some kinds at all layers."""
        total = 0
        for layer in self.layers:
            for kind in kinds:
                pictures = 1 if kind == panels.MAXIMISED else len(self.pictures)
                total += len(self.filters(layer)) * pictures * self.starts(kind)
        return total
