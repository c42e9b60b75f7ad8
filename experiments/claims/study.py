"""A study: one network, its panels, and what else the claims are measured on."""

from __future__ import annotations

import contextlib
import functools
import logging
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Sequence

import numpy as np
from PIL import Image

from experiments.claims import controls, panels
from experiments.claims.design import Design, drawn
from experiments.claims.panels import Panels, Place
from fmi import pictures
from fmi.errors import InputError
from fmi.evidence import crops, maps, textures
from fmi.evidence.crops import Crops
from fmi.evidence.textures import Descriptor
from fmi.networks import catalogue
from fmi.networks.base import Network
from fmi.pictures import Picture
from fmi.runs.figures import Run

__all__ = ["CROP", "Study"]

log = logging.getLogger(__name__)

LONG_EDGE = {True: 128, False: 224}  # of the panels, by whether the network is the embedded one
CROP = 128  # side of the natural crops in pixels, a multiple of all patches that are shuffled
STRIDE = 64
SCALES = (1.0, 0.5)
OTHERS = ("vgg19", "vgg16-hed")  # networks that may be here beside the embedded one


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
        self.layers = self._named(design.layers)
        self._panels: Dict[str, Panels] = {}

    def _named(self, texts: Sequence[str]) -> List[str]:
        """Return the names of layers, each once, in the order of computation.

        Raises
        ------
        InputError
            If one is no activation, or if filters are given.
        """
        chosen = self.run.layers(texts)
        ways = [one.name for one in self.network.layers if one.kind == "activation"]
        for name, filters in chosen:
            if name not in ways:
                raise InputError(
                    f"LAYERS: {name} is no activation, and the claims are about the energies of"
                    f" activations, such as {ways[-1]}"
                )
            if filters:
                raise InputError(
                    f"LAYERS: the filters of {name} are drawn with the seed, N of them;"
                    " name the layer alone"
                )
        return [name for name in ways if name in dict(chosen)]

    @property
    def folder(self) -> Path:
        """The folder of the results, one for each network."""
        given = self.design.results
        return Path(given) if given else self.run.results / self.network.name.replace(" ", "_")

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
        path = self.folder / "untrained.npz"
        return controls.untrained(self.network, self.pictures, self.long_edge, path)

    def filters(self, layer: str) -> np.ndarray:
        """Return the filters of a layer that are measured, (N,)."""
        channels = self.network.layer(layer).channels
        return drawn(layer, channels, self.design.n, self.design.seed)

    def starts(self, kind: str) -> int:
        """Return the number of initial pictures of each panel of one kind."""
        if kind == panels.MAXIMISED:  # K of them take the place of content pictures
            return 1
        few = kind in panels.CONTROLS
        return min(self.design.starts, self.design.control_starts) if few else self.design.starts

    # --- natural pictures ---

    @functools.cached_property
    def content(self) -> List[np.ndarray]:
        """The content pictures at the size of the panels, (H, W, 3) uint8 RGB."""
        return [self.shown(picture) for picture in self.pictures]

    def shown(self, picture: Picture) -> np.ndarray:
        """Return a picture at the size of the panels, (H, W, 3) uint8 RGB."""
        height, width = pictures.fitted(picture.pixels, self.long_edge)
        image = Image.fromarray(picture.pixels)
        return np.asarray(image.resize((width, height), Image.Resampling.LANCZOS))

    @functools.cached_property
    def photographs(self) -> List[Picture]:
        """Photographs from which natural crops are cut."""
        return crops.photographs(self.design.photos)

    @functools.cached_property
    def crops(self) -> Crops:
        """Natural crops."""
        return crops.cut(self.photographs, CROP, STRIDE, SCALES)

    def responses(
        self, kind: str, given: Sequence[np.ndarray], layers: Optional[Sequence[str]] = None
    ) -> Dict[str, np.ndarray]:
        """Return the mean activation of each feature map on pictures.

        Parameters
        ----------
        kind
            The kind of panels whose network is asked: the untrained one, or the network itself.
        given
            Pictures (H, W, 3) uint8 RGB.
        layers
            Names of layers; by default those of the study.

        Returns
        -------
        dict
            (n, C) for each layer, computed in float32.
        """
        network = self.untrained if kind == panels.UNTRAINED else self.network
        return crops.responses(network, given, self.layers if layers is None else layers)

    @functools.lru_cache(maxsize=None)  # noqa: B019 - a study lives as long as the process
    def responses_to(self, what: str, kind: str = panels.FILTERS) -> Dict[str, np.ndarray]:
        """Return :meth:`responses` to the ``"content"`` pictures or to the natural ``"crops"``."""
        given = self.content if what == "content" else list(self.crops.pixels)
        return self.responses(kind, given, self.way)

    def codes(self, given: Sequence[np.ndarray], layer: str) -> List[np.ndarray]:
        """Return the codes (C, M, N) of pictures at a layer of the network."""
        found: List[np.ndarray] = []
        for _, code in maps.in_batches(self.network, given, [layer]):
            found += list(code[self.network.layer(layer).name].asnumpy())
        return found

    @property
    def way(self) -> List[str]:
        """All activations up to the last layer of the study, in the order of computation."""
        last = self.network.deepest(self.layers)
        names = [one.name for one in self.network.layers if one.kind == "activation"]
        return names[: names.index(last) + 1]

    @property
    def first_layers(self) -> List[str]:
        """The first activations of each size of the feature maps, as in Fig. 4."""
        return self.network.landmarks(first=True)[:5]

    # --- other networks, and descriptors ---

    @functools.cached_property
    def other(self) -> Optional[Network]:
        """Another network: the embedded one, or beside it a VGG if one is here."""
        if not controls.family(self.network).weights.embedded:
            return catalogue.load(weights="embedded")
        for name in OTHERS:
            try:
                return catalogue.load(weights=name)
            except InputError as error:
                log.info("%s", error)
        text = "no network beside %s is here; distances on another one are left out"
        log.warning(text, self.network.name)
        return None

    @functools.cached_property
    def vgg(self) -> Network:
        """A VGG for the texture term of DISTS: another one if it is here, else the network."""
        own = controls.family(self.network).weights.sha256
        for name in OTHERS:
            with contextlib.suppress(InputError):
                found = catalogue.load(weights=name)
                if controls.family(found).weights.sha256 != own:
                    return found
        return self.network

    @functools.cached_property
    def descriptors(self) -> List[Descriptor]:
        """The descriptors of textures, with colour and without a network first."""
        precision = self.run.precision.name  # on another network, it shapes distances by 1 % or so
        found: List[Descriptor] = [
            textures.OrientedBands(),
            textures.OrientedBands(colour=False),
        ]
        if self.other is not None:
            layers = tuple(self.other.landmarks(first=True)[:3])
            found.append(textures.GramMatrices(self.other, layers, precision=precision))
        layers = tuple(self.vgg.landmarks()[:4])
        found.append(textures.MapMeans(self.vgg, layers, precision=precision))
        return found

    @functools.lru_cache(maxsize=None)  # noqa: B019 - as above
    def features(self, descriptor: Descriptor, kind: str, layer: str) -> np.ndarray:
        """Return the descriptors of panels, (N * K * S, D)."""
        return descriptor.of(self.panels(kind, layer).pictures)

    # --- panels ---

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

    def panels(self, kind: str, layer: str, count: Optional[Callable[[int], Any]] = None) -> Panels:
        """Return the panels of one kind at one layer, which are computed at first use."""
        key = f"{kind} {layer}"
        if key not in self._panels:
            done = count or (lambda _: None)
            self._panels[key] = panels.compute(kind, self.place(layer), self.starts(kind), done)
        return self._panels[key]

    def number(self, kinds: Sequence[str]) -> int:
        """Return the number of panels of some kinds at all layers."""
        filters = sum(len(self.filters(layer)) for layer in self.layers)
        return filters * len(self.pictures) * sum(map(self.starts, kinds))
