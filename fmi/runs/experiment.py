"""Experiments: the YAML of a figure, with values overridden by ``KEY=VALUE`` arguments."""

from __future__ import annotations

import contextlib
import logging
from pathlib import Path
from typing import (
    Any,
    Dict,
    FrozenSet,
    Iterable,
    List,
    Mapping,
    Optional,
    Sequence,
    Tuple,
    Type,
    Union,
)

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)
from typing_extensions import Annotated, Literal

from fmi import checks, pictures
from fmi import settings as presets
from fmi.call import ALL, Options
from fmi.errors import InputError, shown, unknown
from fmi.networks.base import split_filters
from fmi.sources import table

__all__ = [
    "FIGURES",
    "STAND_INS",
    "Experiment",
    "Fig1",
    "Fig2",
    "Fig3",
    "Fig4",
    "Fig5",
    "find",
    "packaged",
    "read",
]

log = logging.getLogger(__name__)

STAND_INS = {  # replacements for the paper's pictures if they are missing
    "golden_gate": "skimage:coffee",
    "tubingen": "skimage:astronaut",
    "frida_kahlo": "skimage:hubble_deep_field",
    "seated_nude": "skimage:immunohistochemistry",
    "starry_night": "skimage:retina",
    "the_scream": "skimage:rocket",
}
LARGEST = 1 << 20  # bytes of a YAML file

PresetName = Literal["code", "paper", "fast"]


class Experiment(BaseModel):
    """What all figures have in common.

    Attributes
    ----------
    pictures
        Names or paths of the content pictures.
    settings
        Name of a preset; ``None`` means the default of the network.
    results
        Folder for the sheet and for readable copies of its panels.
    store
        Folder of the store; ``None`` means that of :func:`fmi.runs.store.open_store`.
    network, weights, input, ctx, precision, memory, seed
        As in :class:`fmi.call.Options`.
    processes
        Number of processes that compute a figure on the CPU; ``None`` lets
        :func:`fmi.runs.plan.processes` choose it.
    overrides
        Single settings by name.
    folder
        Folder in which the pictures are looked for, if one was given.
    given
        Names of the values that were given as ``KEY=VALUE``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    figure: str
    pictures: checks.Names
    settings: Optional[PresetName] = None
    results: Optional[checks.Text] = None
    store: Optional[checks.Text] = None
    network: Optional[checks.Text] = None
    weights: checks.Text = "auto"
    input: Optional[checks.Text] = None
    ctx: Optional[checks.Text] = None
    precision: checks.Text = str(Options.precision)
    memory: checks.Memory = Options.memory
    seed: Annotated[checks.Seed, checks.FromText] = Options.seed
    processes: Optional[Annotated[checks.Processes, checks.FromText]] = None
    overrides: Dict[str, Any] = Field(default_factory=dict)
    folder: Optional[Path] = None
    given: FrozenSet[str] = frozenset()

    @property
    def results_folder(self) -> Path:
        """The folder for the sheet and for readable copies of its panels."""
        return Path(self.results or f"results/{self.figure}")

    @property
    def layer_names(self) -> List[str]:
        """The layers without filters, which ``weights="auto"`` must cover."""
        return []


One = Annotated[checks.Names, Field(max_length=1)]


class Fig1(Experiment):
    """A code before and after each modification, as `tiles` feature maps around one filter."""

    figure: Literal["fig1"]
    pictures: One
    layers: One
    filters: Annotated[checks.Numbers, Field(max_length=1)]
    tiles: Annotated[checks.Count, checks.FromText]

    @property
    def layer_names(self) -> List[str]:
        """The layers without filters."""
        return [split_filters(text)[0] for text in self.layers]


class Fig2(Experiment):
    """The content pictures."""

    figure: Literal["fig2"]


def _or_all(value: Any, check: ValidatorFunctionWrapHandler) -> Any:
    return ALL if value == ALL else check(value)


class Fig3(Experiment):
    """Feature map inversion of some filters; `chain` may differ between presets."""

    figure: Literal["fig3"]
    layers: checks.Names
    filters: Annotated[checks.Numbers, WrapValidator(_or_all)]  # or ALL
    chain: Union[bool, Dict[PresetName, bool]]

    @property
    def layer_names(self) -> List[str]:
        """The layers without filters."""
        return [split_filters(text)[0] for text in self.layers]

    def chained(self, preset: str) -> bool:
        """Return whether the filters are chained with a preset."""
        chain: Mapping[Any, bool] = (
            self.chain if isinstance(self.chain, dict) else {preset: self.chain}
        )
        return chain.get(preset, False)


class Fig4(Experiment):
    """Randomly modified code inversion, some draws for each layer."""

    figure: Literal["fig4"]
    layers: checks.Names
    draws: Annotated[checks.Count, checks.FromText]

    @property
    def layer_names(self) -> List[str]:
        """The layers, which may not name filters."""
        return list(self.layers)


class Fig5(Experiment):
    """Purposefully modified code inversion beside Gatys' style transfer, for some styles."""

    figure: Literal["fig5"]
    styles: checks.Names


FIGURES: Dict[str, Type[Experiment]] = {
    "fig1": Fig1,
    "fig2": Fig2,
    "fig3": Fig3,
    "fig4": Fig4,
    "fig5": Fig5,
}
OWN = ("figure", "overrides", "folder", "given")  # fields that are not variables


def packaged(figure: str) -> Path:
    """Return the YAML file of one of the paper's figures, which is part of the package.

    Raises
    ------
    InputError
        If there is no such figure.
    """
    if figure not in FIGURES:
        raise unknown("figure", figure, FIGURES)
    return Path(__file__).with_name(f"{figure}.yaml")


def read(
    path: Path,
    overrides: Sequence[str] = (),
    kinds: Mapping[str, Type[Experiment]] = FIGURES,
) -> Experiment:
    """Read the YAML file of an experiment and apply ``KEY=VALUE`` overrides.

    Parameters
    ----------
    path
        YAML file with the fields of one of the classes in `kinds`, and any field of
        :class:`fmi.settings.Settings`.
    overrides
        Text such as ``"LAYERS=relu1_2,relu2_2"``, with keys in upper or lower case and commas
        between the items of lists.
    kinds
        The classes of experiments, by the value of the key ``figure``.

    Raises
    ------
    InputError
        If a key is unknown or a value is not valid.
    """
    raw = _mapping(path)
    figure = raw.get("figure")
    if not isinstance(figure, str) or figure not in kinds:
        raise InputError(f"{path}: 'figure' must be one of {', '.join(kinds)}, not {shown(figure)}")
    kind = kinds[figure]
    own, single = _variables(kind)
    section = "gatys" if kind is Fig5 else None  # both transfers have the same settings
    _check_keys(raw, ["figure", *own, *single], f"key in {path}")
    given = _given(overrides)
    for key in given:
        others = [name for name, other in kinds.items() if key in sum(_variables(other), [])]
        if others and figure not in others:
            raise InputError(f"{figure} has no variable {key.upper()}, only {' and '.join(others)}")
    _check_keys(map(str.upper, given), [name.upper() for name in [*own, *single]], "variable")
    folder = _folder(given)
    merged = {**raw, **given}
    lacking = [n for n in own if kind.model_fields[n].is_required() and n not in merged]
    if lacking:
        raise InputError(f"{path} lacks the key {lacking[0]!r}")
    chosen = {name: value for name, value in merged.items() if name in single}
    presets.override(presets.CODE, chosen, section)  # check the values
    try:
        return kind(
            **{name: value for name, value in merged.items() if name not in single},
            overrides=chosen,
            folder=folder,
            given=frozenset(given) | (frozenset(["pictures"]) if folder else frozenset()),
        )
    except ValidationError as error:
        name = str(error.errors()[0]["loc"][0])
        raise checks.refusal(name, merged.get(name), error) from None


def _variables(kind: Type[Experiment]) -> Tuple[List[str], List[str]]:
    """Return the fields of an experiment that can be given, and the settings that it has."""
    transfer = presets.overridable(presets.Transfer) if kind is Fig5 else ()
    return [n for n in kind.model_fields if n not in OWN], [*presets.overridable(), *transfer]


class _Loader(yaml.SafeLoader):
    """A loader that refuses mappings in which a key occurs twice."""

    def construct_mapping(self, node: Any, deep: bool = False) -> Dict[Any, Any]:
        """Return the mapping of a node."""
        keys = [key for key, _ in node.value if isinstance(key.value, str)]
        for place, key in enumerate(keys):
            if key.value in [other.value for other in keys[:place]]:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key.value!r} occurs twice", key.start_mark
                )
        return super().construct_mapping(node, deep)


def _mapping(path: Path) -> Dict[str, Any]:
    """Return the content of a YAML file, which must be a mapping with text as keys."""
    try:
        if path.exists() and not path.is_file():
            raise InputError(f"{path} is not a file; give the YAML file of an experiment")
        if path.stat().st_size > LARGEST:
            raise InputError(f"{path} is too large for the YAML file of an experiment")
        content = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None
    except RecursionError:
        raise InputError(f"{path} cannot be read: it is nested too deeply") from None
    except (ValueError, OverflowError, TypeError, yaml.YAMLError) as error:
        raise InputError(f"{path} cannot be read: {' '.join(str(error).split())[:300]}") from None
    if not isinstance(content, dict):
        raise InputError(f"{path} must contain a mapping of 'key: value' lines")
    for key, value in content.items():
        if not isinstance(key, str):
            raise InputError(f"{path}: the key {shown(key)} must be text")
        if value is None:
            raise InputError(f"{path}: {key!r} has no value; give one, or remove the line")
    return content


def _given(overrides: Sequence[str]) -> Dict[str, str]:
    """Split ``KEY=VALUE`` arguments; the keys of the result are in lower case."""
    given = {}
    for text in overrides:
        key, equals, value = text.partition("=")
        if not equals or not value:
            raise InputError(f"{shown(text)} must have the form KEY=VALUE, such as STEPS=60")
        given[key.lower()] = value
    return given


def _folder(given: Dict[str, str]) -> Optional[Path]:
    """Remove PICTURES from `given` and return it, if it is a folder and not names of pictures."""
    named = given.get("pictures", "")
    folder = None
    with contextlib.suppress(OSError, ValueError):  # not a possible path
        folder = Path(named) if named and Path(named).is_dir() else None
    if folder or named == "auto":
        del given["pictures"]
    return folder


def _check_keys(given: Iterable[str], known: Sequence[str], kind: str) -> None:
    for key in given:
        if key not in known:
            raise unknown(kind, key, known)


def find(run: Experiment, names: Sequence[str], key: str) -> List[Path]:
    """Find the files of pictures.

    They are looked for in `run.folder`, or else in :func:`fmi.sources.table.folders`. If one of
    the paper's pictures is missing, those in :data:`STAND_INS` are used instead, with a warning,
    unless the pictures were requested by name.

    Parameters
    ----------
    run
        The experiment.
    names
        Names or paths of the pictures.
    key
        The field of the experiment that `names` come from.

    Raises
    ------
    InputError
        If a picture is missing.
    """
    folders = [run.folder] if run.folder else table.folders("pictures")
    try:
        return [pictures.find(name, folders) for name in names]
    except InputError as error:
        replaceable = all(name in STAND_INS for name in names)
        if run.folder or key in run.given or not replaceable:
            raise
        others = [STAND_INS[name] for name in names]
        log.warning("%s; using pictures of scikit-image instead: %s", error, ", ".join(others))
        return [pictures.find(name, []) for name in others]
