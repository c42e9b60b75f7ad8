"""Experiments: the YAML of a figure, with values overridden by ``KEY=VALUE`` arguments."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Dict, Iterable, List, Mapping, Optional, Sequence

from fmi import pictures
from fmi import settings as presets
from fmi.call import TRANSFERS, replaced_layers
from fmi.errors import InputError, unknown
from fmi.networks import catalogue
from fmi.networks.base import Network, split_filters
from fmi.sources import table

__all__ = ["COMMON", "LISTS", "NUMBERS", "OWN", "STAND_INS", "TEXTS", "Experiment", "find", "read"]

log = logging.getLogger(__name__)

LISTS = ("pictures", "layers", "filters", "styles", "style_layers")
NUMBERS = ("draws", "seed", "tiles")
TEXTS = ("figure", "settings", "results", "network", "weights", "input", "ctx", "precision")
COMMON = (*TEXTS, "pictures", "seed")
OWN = {  # keys of each figure in addition to the common ones
    "fig1": ("layers", "filters", "tiles"),
    "fig2": (),
    "fig3": ("layers", "filters", "chain"),
    "fig4": ("layers", "draws"),
    "fig5": ("styles", "content_layer", "style_layers", "alpha", "beta"),
}
STAND_INS = {  # replacements for the paper's pictures if they are missing
    "golden_gate": "skimage:coffee",
    "tubingen": "skimage:astronaut",
    "frida_kahlo": "skimage:hubble_deep_field",
    "seated_nude": "skimage:immunohistochemistry",
    "starry_night": "skimage:retina",
    "the_scream": "skimage:rocket",
}


@dataclass(frozen=True)
class Experiment:
    """A figure to draw: the values of the YAML file and of the overrides.

    Attributes
    ----------
    figure
        ``"fig1"`` ... ``"fig5"``.
    values
        Values for the keys in :data:`OWN` and :data:`COMMON`.
    overrides
        Values of settings, as for :func:`fmi.settings.override`.
    network
        The network, after it has been loaded.
    """

    figure: str
    values: Mapping[str, Any]
    overrides: Mapping[str, Any]
    network: Optional[Network] = None

    def __getitem__(self, key: str) -> Any:
        return self.values[key]

    @property
    def results(self) -> Path:
        """The folder for all results."""
        return Path(self.values.get("results", f"results/{self.figure}"))

    def settings(self, section: Optional[str] = None) -> presets.Settings:
        """Return the settings of the inversions, or of one of the style transfers."""
        preset = presets.preset(self.values.get("settings", presets.DEFAULT))
        settings = presets.override(preset, self.overrides, section)
        if section and self.network:
            return replaced_layers(settings, section, self.network, self.overrides)
        return settings

    def options(self) -> Dict[str, Any]:
        """Return keywords for the functions of :mod:`fmi.invert`."""
        given = ("settings", "seed", "ctx", "precision")
        common = {k: self[k] for k in given if k in self.values}
        return {**common, "network": self.network, **self.overrides}

    def with_network(self) -> Experiment:
        """Return the experiment with the network loaded, and with the values that depend on it.

        These are the preset, whether Fig. 3 is chained, and the layers if the network has none of
        the layers in the YAML file.

        Raises
        ------
        InputError
            If the network does not exist or lacks a layer.
        """
        values = dict(self.values)
        layers = [split_filters(text)[0] for text in values.get("layers", ())]
        if self.figure == "fig5":
            layers = [
                name for kind in TRANSFERS for name in getattr(self.settings(kind), kind).layers
            ]
        network = catalogue.load(
            values.get("network"), values.get("weights", "auto"), values.get("input"), layers
        )
        name = values.setdefault("settings", network.settings)
        if name != presets.DEFAULT and "settings" not in self.values:
            log.info("%s: settings %r", network.name, name)
        if isinstance(values.get("chain"), dict):  # one value per preset
            values["chain"] = values["chain"].get(name, False)
        if "layers" in values:
            values["layers"] = self._layers_of(network, values["layers"])
        return replace(self, values=values, network=network)

    def _layers_of(self, network: Network, texts: Sequence[str]) -> List[str]:
        """Return the layers under the names in the network, with the given filters."""
        parts = [text.partition(":") for text in texts]
        if "layers" not in self["asked_for"] and not any(network.knows(n) for n, _, _ in parts):
            chosen = network.landmarks(first=self.figure == "fig4")
            chosen = chosen[-1:] if self.figure == "fig1" else chosen
            log.info("%s: layers %s", network.name, ", ".join(chosen))
            return chosen
        return [f"{network.layer(name).name}{colon}{rest}" for name, colon, rest in parts]


def read(path: Path, overrides: Sequence[str] = ()) -> Experiment:
    """Read the YAML file of an experiment and apply ``KEY=VALUE`` overrides.

    Parameters
    ----------
    path
        YAML file with the keys in :data:`COMMON`, those of its figure in :data:`OWN`, and any
        field of :class:`fmi.settings.Settings`.
    overrides
        Text such as ``"LAYERS=relu1_2,relu2_2"``, with keys in upper or lower case and commas
        between the items of lists.

    Raises
    ------
    InputError
        If a key is unknown or a value is not valid.
    """
    raw = presets.read_yaml(path)
    figure = raw.get("figure")
    if figure not in OWN:
        raise InputError(f"{path}: 'figure' must be one of {', '.join(OWN)}, not {figure!r}")
    own = COMMON + OWN[figure]
    known = own + presets.overridable()
    _check_keys(raw, known, f"key in {path}")
    given = _given(overrides, known)
    folder = _picture_folder(given)
    merged = {**raw, **given}
    fields = presets.field_names(presets.Transfer)
    lacking = [k for k in ("pictures", *OWN[figure]) if k not in merged and k not in fields]
    if lacking:
        raise InputError(
            f"{path} lacks the key {lacking[0]!r}; give it a value such as {_EXAMPLES[lacking[0]]}"
        )
    values = {k: _typed(k, v) for k, v in merged.items() if k in own and k not in fields}
    settings = {k: v for k, v in merged.items() if k not in values}
    values.update(
        folder=folder, asked_for=[k for k in ("pictures", "styles", "layers") if k in given]
    )
    preset = presets.preset(values.get("settings", presets.DEFAULT))
    presets.override(preset, settings, "gatys" if figure == "fig5" else None)
    return Experiment(figure, values, settings)


def _given(overrides: Sequence[str], known: Sequence[str]) -> Dict[str, str]:
    """Split ``KEY=VALUE`` arguments; the keys of the result are in lower case."""
    given = {}
    for text in overrides:
        key, equals, value = text.partition("=")
        if not equals or not value:
            raise InputError(f"{text!r} must have the form KEY=VALUE, such as LAYERS=relu1_2")
        given[key.lower()] = value
    _check_keys([key.upper() for key in given], [key.upper() for key in known], "variable")
    return given


def _picture_folder(given: Dict[str, str]) -> Optional[str]:
    """Remove PICTURES from `given` and return it, if it is a folder and not names of pictures."""
    named = given.get("pictures", "")
    folder = named if named and Path(named).is_dir() else None
    if folder or named == "auto":
        del given["pictures"]
    return folder


def _check_keys(given: Iterable[str], known: Sequence[str], kind: str) -> None:
    for key in given:
        if key not in known:
            raise unknown(kind, key, known)


def _typed(key: str, value: Any) -> Any:
    try:
        if key in LISTS:
            items = value.split(",") if isinstance(value, str) else list(value)
            return [int(item) for item in items] if key == "filters" else [str(i) for i in items]
        if key in NUMBERS:
            number = int(value)
            if number < (0 if key == "seed" else 1):
                raise ValueError
            return number
        if key == "chain" and not isinstance(value, dict):
            return {"1": True, "true": True, "0": False, "false": False}[str(value).lower()]
    except (TypeError, ValueError, KeyError):
        raise InputError(
            f"{key}={value!r} is not valid; give a value such as {_EXAMPLES[key]}"
        ) from None
    return str(value) if key in TEXTS else value


_EXAMPLES = {
    "pictures": "golden_gate,tubingen",
    "styles": "starry_night",
    "layers": "relu1_2,relu2_2",
    "style_layers": "relu1_1,relu2_1",
    "filters": "0,1,2",
    "draws": "2",
    "seed": "0",
    "tiles": "64",
    "chain": "1 or 0",
}


def find(run: Experiment, names: str) -> List[Path]:
    """Find the files of the pictures listed under a key.

    They are looked for in PICTURES=dir, or else in :func:`fmi.sources.table.folders`. If one of the
    paper's pictures is missing, those in :data:`STAND_INS` are used instead, with a warning, unless
    the pictures were requested by name.
    """
    folder = run.values.get("folder")
    folders = [folder] if folder else table.folders("pictures")
    try:
        return [pictures.find(name, folders) for name in run[names]]
    except InputError as error:
        if folder or names in run["asked_for"]:
            raise
        others = [STAND_INS[name] for name in run[names]]
        log.warning("%s; using pictures of scikit-image instead: %s", error, ", ".join(others))
        return [pictures.find(name, []) for name in others]
