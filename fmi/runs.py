"""The paper's figures as runs: an experiment's YAML becomes panels, the panels a sheet.

A panel is a PNG, the same undenoised, and a JSON with all that is needed to repeat it. The JSON
holds a key made from everything that the picture depends on; a panel whose key is there already
is not computed again.
"""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Callable, Dict, Iterable, List, Mapping, Optional, Sequence, Tuple

import numpy as np
from PIL import Image
from tqdm.auto import tqdm

from fmi import codes, files, invert, pictures, sheets, vgg
from fmi import settings as presets
from fmi import weights as weights_
from fmi.device.mxnet import compute_type, context
from fmi.errors import InputError, unknown
from fmi.sources import table

log = logging.getLogger(__name__)

Found = Sequence[invert.Inversion]

LISTS = ("pictures", "layers", "filters", "styles", "style_layers")
NUMBERS = ("draws", "seed", "tiles")
TEXTS = ("figure", "settings", "results", "weights", "ctx", "precision")
COMMON = ("figure", "pictures", "settings", "seed", "results", "weights", "ctx", "precision")
OWN = {  # keys of each figure beside the common ones
    "fig1": ("layers", "filters", "tiles"),
    "fig2": (),
    "fig3": ("layers", "filters", "chain"),
    "fig4": ("layers", "draws"),
    "fig5": ("styles", "content_layer", "style_layers", "alpha", "beta"),
}
TITLES = {  # the paper's names of its pictures
    "golden_gate": "The Golden Gate Bridge",
    "tubingen": "Neckarfront with Hölderlinturm and Collegiate",
}
STAND_INS = {  # for the paper's pictures where they are not there
    "golden_gate": "skimage:coffee",
    "tubingen": "skimage:astronaut",
    "frida_kahlo": "skimage:hubble_deep_field",
    "seated_nude": "skimage:immunohistochemistry",
    "starry_night": "skimage:retina",
    "the_scream": "skimage:rocket",
}


@dataclass(frozen=True)
class Experiment:
    """A figure to draw: what the YAML says, with single values overridden.

    Attributes
    ----------
    figure
        ``"fig1"`` ... ``"fig5"``.
    values
        The keys of :data:`OWN` and :data:`COMMON` that are given.
    overrides
        Settings given besides, as for :func:`fmi.settings.override`.
    """

    figure: str
    values: Mapping[str, Any]
    overrides: Mapping[str, Any]

    def __getitem__(self, key: str) -> Any:
        return self.values[key]

    @property
    def results(self) -> Path:
        """The folder for everything that is written."""
        return Path(self.values.get("results", f"results/{self.figure}"))

    def settings(self, section: Optional[str] = None) -> presets.Settings:
        """The settings of its inversions, or of one of the style transfers."""
        return presets.override(presets.preset(self["settings"]), self.overrides, section)

    def options(self) -> Dict[str, Any]:
        """Keywords for the functions of :mod:`fmi.invert`."""
        given = ("settings", "seed", "weights", "ctx", "precision")
        return {**{k: self[k] for k in given if k in self.values}, **self.overrides}


def experiment(path: Path, overrides: Sequence[str] = ()) -> Experiment:
    """Read an experiment's YAML and lay ``KEY=VALUE`` texts over it.

    Parameters
    ----------
    path
        YAML with the keys of :data:`COMMON`, those of its figure in :data:`OWN`, and any field
        of :class:`fmi.settings.Settings`.
    overrides
        Such as ``"LAYERS=relu1_2,relu2_2"``; keys in upper or lower case, lists with commas.

    Raises
    ------
    InputError
        For an unknown key or a value that does not fit.
    """
    raw = presets.read_yaml(path)
    figure = raw.get("figure")
    if figure not in OWN:
        raise InputError(f"{path}: 'figure' should be one of {', '.join(OWN)}, not {figure!r}")
    own = COMMON + OWN[figure]
    known = own + presets.overridable()
    _check_keys(raw, known, f"key in {path}")
    given = _given(overrides, known)
    folder = _picture_folder(given)
    merged = {**raw, **given}
    fields = presets.field_names(presets.Transfer)
    lacking = [k for k in ("pictures", *OWN[figure]) if k not in merged and k not in fields]
    if lacking:
        raise InputError(f"{path} lacks '{lacking[0]}', such as {_EXAMPLES[lacking[0]]}")
    values = {k: _typed(k, v) for k, v in merged.items() if k in own and k not in fields}
    settings = {k: v for k, v in merged.items() if k not in values}
    values.update(folder=folder, asked_for=[key for key in ("pictures", "styles") if key in given])
    name = values.setdefault("settings", "code")
    presets.override(presets.preset(name), settings, "gatys" if figure == "fig5" else None)
    if isinstance(values.get("chain"), dict):  # a value for each preset
        values["chain"] = values["chain"].get(name, False)
    for layer in values.get("layers", ()):
        vgg.check_layer(layer)
    return Experiment(figure, values, settings)


def _given(overrides: Sequence[str], known: Sequence[str]) -> Dict[str, str]:
    """``KEY=VALUE`` texts by key in lower case."""
    given = {}
    for text in overrides:
        key, equals, value = text.partition("=")
        if not equals or not value:
            raise InputError(f"{text!r} should be KEY=VALUE, such as LAYERS=relu1_2")
        given[key.lower()] = value
    _check_keys([key.upper() for key in given], [key.upper() for key in known], "variable")
    return given


def _picture_folder(given: Dict[str, str]) -> Optional[str]:
    """Take PICTURES out of `given` where it says where the YAML's pictures are, not which."""
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
            f"{key}={value!r} is not what {key} takes, such as {_EXAMPLES[key]}"
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


@dataclass(frozen=True)
class Panel:
    """One picture of a figure.

    Attributes
    ----------
    stem
        Its files' name below the results folder, without suffix.
    place
        Arguments that tell it from the others of its job, such as ``{"filter": 3}``.
    """

    stem: str
    place: Mapping[str, Any]


@dataclass(frozen=True)
class Job:
    """Panels that are computed by one call of :mod:`fmi.invert`."""

    function: str
    sources: Mapping[str, Path]  # picture / content / style -> file
    layers: Tuple[str, ...]  # all that the network must reach
    panels: Tuple[Panel, ...]
    call: Callable[[Sequence[Panel]], Found]
    together: bool = False  # one missing panel asks for all of them

    @property
    def section(self) -> Optional[str]:
        """Which style transfer's settings it needs, if any."""
        return self.function if self.function in ("purposeful", "gatys") else None


def find(run: Experiment, names: str) -> List[Path]:
    """The files of the pictures listed under a key.

    They are looked for in PICTURES=dir, else where :func:`fmi.sources.table.folders` says. Where
    the paper's own pictures are not there, those of :data:`STAND_INS` take their place, with a
    warning, unless pictures were asked for by name.
    """
    folder = run.values.get("folder")
    folders = [folder] if folder else table.folders("pictures")
    try:
        return [pictures.find(name, folders) for name in run[names]]
    except InputError as error:
        if folder or names in run["asked_for"]:
            raise
        others = [STAND_INS[name] for name in run[names]]
        log.warning("%s; using scikit-image's: %s", error, ", ".join(others))
        return [pictures.find(name, []) for name in others]


def key(run: Experiment, job: Job, panel: Panel) -> str:
    """Digest of everything that the panel depends on."""
    content = {
        "function": job.function,
        "layers": job.layers,
        "place": dict(panel.place),
        "settings": presets.as_dict(run.settings(job.section), job.section),
        "seed": run["seed"],
        "precision": run["precision"],
        "device": str(run["ctx"]),
        "weights": run["weights"].sha256,
        "pictures": {role: pictures.read(path).sha256 for role, path in job.sources.items()},
        "versions": invert.versions(),
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def stored_key(results: Path, panel: Panel) -> Optional[str]:
    """The key of a panel that is there with all its files, else ``None``."""
    stem = results / panel.stem
    try:
        record = json.loads(stem.with_suffix(".json").read_text(encoding="utf-8"))
        complete = stem.with_suffix(".png").is_file() and _undenoised(stem).is_file()
        return str(record["key"]) if complete else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _undenoised(stem: Path) -> Path:
    return stem.with_name(f"{stem.name}_undenoised.png")


def check(run: Experiment, job: Job) -> None:
    """Refuse what cannot be computed before anything is.

    Raises
    ------
    InputError
        For a picture too small for its layers, weights that lack one, or a filter that is not.
    """
    settings = run.settings(job.section)
    for path in job.sources.values():
        picture = pictures.read(path)
        size = pictures.fitted(picture.pixels, settings.long_edge)
        invert.check_size(picture, size, vgg.deepest(job.layers))
    if job.function == "feature_map":
        count = len(run["weights"].arrays[vgg.convolutions_before(job.layers[0])[-1] + "_bias"])
        invert.check_filters([p.place["filter"] for p in job.panels], job.layers[0], count)


def compute(run: Experiment, jobs: Sequence[Job]) -> None:
    """Compute the panels that are not there yet and save each.

    Raises
    ------
    KeyboardInterrupt
        After Ctrl-C, once all finished panels are saved.
    """
    for job in jobs:
        check(run, job)
    plan = []
    for job in jobs:
        keys = {panel.stem: key(run, job, panel) for panel in job.panels}
        missing = [p for p in job.panels if stored_key(run.results, p) != keys[p.stem]]
        plan.append((job, keys, list(job.panels) if missing and job.together else missing))
    panels = sum(len(job.panels) for job in jobs)
    missing_panels = sum(len(missing) for _, _, missing in plan)
    log.info("%s: %d of %d panels to compute", run.figure, missing_panels, panels)
    with tqdm(total=missing_panels, desc=run.figure, unit="panel", disable=None) as bar:
        for job, keys, missing in plan:
            if not missing:
                continue
            found = job.call(missing)
            for panel, inversion in zip(missing, found):
                if inversion.stopped == "interrupted":
                    raise KeyboardInterrupt
                path = run.results / f"{panel.stem}.png"
                inversion.save(path, undenoised=True, key=keys[panel.stem])
                log.info(
                    "%s: %d steps, %.0f s, stopped by %s",
                    path,
                    inversion.steps,
                    inversion.seconds,
                    inversion.stopped,
                )
                bar.update()


def draw(run: Experiment) -> List[Path]:
    """Compute what is missing, assemble the figure, and return the files of the sheet.

    Raises
    ------
    InputError
        For anything that cannot be used; nothing is written half.
    KeyboardInterrupt
        After Ctrl-C; finished panels are kept.
    """
    layers = _layers(run)
    note = ""
    usual = invert.Options()
    if layers:  # one network, device and precision for all panels
        weights = weights_.load(run.values.get("weights", usual.weights), layers)
        ctx = context(run.values.get("ctx"))
        precision = compute_type(run.values.get("precision", usual.precision), ctx)
        seed = run.values.get("seed", usual.seed)
        chosen = {"weights": weights, "ctx": ctx, "precision": precision, "seed": seed}
        run = replace(run, values={**run.values, **chosen})
        note = "drawn with fmi's embedded network, not VGG-19" if weights.embedded else ""
    sheet = sheets.sheet(DRAWERS[run.figure](run), note)
    return list(sheets.save(sheet, run.results / run.figure))


def _layers(run: Experiment) -> List[str]:
    """All layers that a figure's network must reach."""
    if run.figure != "fig5":
        return list(run.values.get("layers", ()))
    schemes = [getattr(run.settings(name), name) for name in ("gatys", "purposeful")]
    return [layer for scheme in schemes for layer in (scheme.content_layer, *scheme.style_layers)]


def _panel(run: Experiment, stem: str) -> np.ndarray:
    with Image.open(run.results / f"{stem}.png") as image:
        return np.asarray(image.convert("RGB"))


def _title(path: Path) -> str:
    return TITLES.get(path.stem, path.stem)


def _fig1(run: Experiment) -> List[sheets.Block]:
    """A code before and after each modification, as feature-map tiles."""
    file, layer, chosen = find(run, "pictures")[0], run["layers"][0], run["filters"][0]
    tiles = run["tiles"]
    code = invert.activations(file, layer, **run.options())[layer]
    channels = code.shape[1]
    invert.check_filters([chosen], layer, channels)
    shares = codes.simplex_shares(np.random.RandomState(run["seed"]), channels)
    stages = {
        "code": ("code", code),
        "isolated": (f"filter {chosen} isolated (Eq. 2)", codes.isolate(code, [chosen])),
        "reallocated": ("reallocated (Eq. 3)", codes.reallocate(code, invert.row(shares, code))),
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
    """The content pictures."""
    files = find(run, "pictures")
    titles = [_title(file) for file in files]
    return [sheets.Block([[pictures.read(file).pixels for file in files]], columns=titles)]


def _fig3(run: Experiment) -> List[sheets.Block]:
    """Rows of layers, columns of filters, a block for each content picture."""
    files, chain, filters = find(run, "pictures"), run["chain"], run["filters"]
    jobs = []
    for file in files:
        for layer in run["layers"]:
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
    return [
        sheets.Block(
            [
                [_panel(run, f"{f.stem}/{layer}_filter{i}") for i in filters]
                for layer in run["layers"]
            ],
            rows=run["layers"],
            columns=[str(index) for index in filters],
            caption=f"({chr(97 + n)}) {_title(f)}" if len(files) > 1 else _title(f),
        )
        for n, f in enumerate(files)
    ]


def _fig4(run: Experiment) -> List[sheets.Block]:
    """Columns of layers, rows of draws, a block for each content picture."""
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
    """Rows of styles; the style, then Gatys and PMCI for each content picture."""
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

                reached = (scheme.content_layer, *scheme.style_layers)
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
