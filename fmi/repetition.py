"""Repetitions: pictures computed again from their records, and compared with them.

>>> from fmi import repetition
>>> record = repetition.read("panel.json")  # doctest: +SKIP
>>> again = repetition.repeat(record, {"content": "photo.jpg"})  # doctest: +SKIP

A record is what :meth:`fmi.inversion.Inversion.save` writes beside a picture, or
:attr:`fmi.inversion.Inversion.record`. Of pictures and networks, it holds names and digests.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import (
    Any,
    Dict,
    Iterator,
    List,
    Mapping,
    Optional,
    Sequence,
    Tuple,
    Type,
    TypeVar,
    Union,
    cast,
)

from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from typing_extensions import Annotated, Literal

from fmi import checks, descent, files, pictures, records, request
from fmi import settings as presets
from fmi.call import Init, in_one_line
from fmi.device.mxnet import Context
from fmi.device.precision import Precision
from fmi.errors import SHOWN, InputError, brief, shown
from fmi.inversion import Inversion, Place
from fmi.networks import catalogue
from fmi.networks.base import Input, Network, Triple
from fmi.pictures import Picture, Source
from fmi.request import Request
from fmi.settings import TRANSFERS, Settings, Transfer, Weighting
from fmi.sources import table

__all__ = ["Comparison", "Repetition", "ask", "compare", "read", "repeat"]

log = logging.getLogger(__name__)

LARGEST = 1 << 26  # bytes of a file with a record; a million losses take 20 MB
DEEPEST = 16  # dictionaries and lists within each other; records have 3
PNG = b"\x89PNG\r\n\x1a\n"
# Which of the pictures of a call: the entry that says so.
PLACES = {
    "feature_map": "filter",
    "maximise": "filter",
    "random": "draw",
    "direction": "direction",
}
GIVEN = ("init", "mask")  # pictures of which a record holds nothing but a digest after resizing
RESIZING = ("numpy", "pillow", "scikit-image", "scipy")  # packages that this digest depends on


# --- what a record holds ---

Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Number = Annotated[float, Field(ge=-1e12, le=1e12, allow_inf_nan=False)]
Exponent = Annotated[int, Field(ge=-8, le=8)]  # of the size of a layer; larger ones overflow
Three = Annotated[List[Number], Field(min_length=3, max_length=3)]


class _Entries(BaseModel):
    """Entries of a record; those that fmi does not know are told by :func:`compare`."""

    model_config = ConfigDict(strict=True, frozen=True, extra="ignore")


class _Picture(_Entries):
    name: str
    sha256: Digest


class _Input(_Entries):
    channels: str
    scale: Number
    mean: Three
    std: Three


class _Network(_Entries):
    name: checks.Text
    sha256: Digest
    source: Optional[str] = None
    embedded: bool = False
    input: Optional[_Input] = None


class _Weighting(_Entries):
    model_config = ConfigDict(extra="forbid")

    factor: Number
    channels: Exponent
    positions: Exponent


class _Record(_Entries):
    function: Literal[
        "code",
        "feature_map",
        "direction",
        "random",
        "purposeful",
        "gatys",
        "rank_match",
        "maximise",
    ]
    layers: Annotated[List[checks.Text], Field(min_length=1)]
    nodes: Optional[List[int]] = None  # which operators of a symbol the layers are
    settings: Dict[str, Any]
    seed: checks.Seed
    precision: Literal["float32", "bfloat16", "float16"]
    precision_reason: str = ""
    device: str
    network: _Network
    pictures: Dict[str, _Picture]
    versions: Dict[str, str]
    init: Optional[Annotated[str, Field(pattern=r"^(content|[0-9a-f]{64})$")]] = None
    mask: Optional[Digest] = None
    preserve_color: bool = False
    style_weights: Optional[List[Number]] = None
    strength: Optional[checks.Strength] = None
    filter: Optional[checks.Index] = None
    chain: bool = False
    filters_before: List[checks.Index] = []
    draw: Optional[checks.Seed] = None
    direction: Optional[List[Number]] = None

    @property
    def section(self) -> Optional[str]:
        """The section of the settings of style transfer."""
        return self.function if self.function in TRANSFERS else None

    @property
    def given(self) -> List[str]:
        """The pictures of which only a digest is known, and which must be given."""
        digests = {"init": self.init, "mask": self.mask}
        return [role for role in GIVEN if digests[role] not in (None, "content")]


M = TypeVar("M", bound=BaseModel)


def _line(text: object) -> str:
    """Return a text from a file for a message: one line, shortened if it is long."""
    return brief("".join(c if c.isprintable() else ascii(c)[1:-1] for c in str(text)))


def _refused(error: ValidationError, name: str, where: str = "") -> InputError:
    """Return the error for the first entry that pydantic has refused."""
    first = error.errors(include_url=False)[0]
    entry = ".".join(_line(part) for part in (*filter(None, [where]), *first["loc"]))
    if first["type"] == "missing":
        return InputError(f"{name} is not the record of a picture, as it lacks {entry}")
    if first["type"] == "extra_forbidden":
        return InputError(f"{name}: {entry} is unknown to this version of fmi")
    return InputError(f"{name}: {checks.refusal(entry, first['input'], error)}")


def _checked(model: Type[M], entries: Any, name: str, where: str = "") -> M:
    try:
        return model.model_validate(entries)
    except ValidationError as error:
        raise _refused(error, name, where) from None


def _plain(record: Any, name: str) -> Dict[str, Any]:
    """Return a record as it is in a file: strict JSON, whose nesting has a limit."""
    if not isinstance(record, Mapping):
        raise InputError(f"{name} is not the record of a picture: {shown(record)}")
    try:
        found: Dict[str, Any] = json.loads(files.json_text(record))
    except InputError as error:
        raise InputError(f"{name} is not the record of a picture: {error}") from None
    level: List[Any] = [found]
    for _ in range(DEEPEST):
        inner = [list(x.values()) if isinstance(x, dict) else x for x in level]
        level = [x for values in inner for x in values if isinstance(x, (dict, list))]
    if level:
        raise InputError(
            f"{name} is not the record of a picture: it has more than {DEEPEST} levels"
        )
    return found


def read(path: Union[str, Path]) -> Dict[str, Any]:
    """Read the record of a picture.

    Parameters
    ----------
    path
        The JSON file beside a picture, or the PNG itself, which contains the record too.

    Returns
    -------
    dict
        The entries, as plain data.

    Raises
    ------
    InputError
        If the file cannot be read, or if it holds no record.
    """
    path = Path(path)
    name = _line(path)
    try:
        if not path.is_file():  # a pipe might never end
            raise InputError(f"{name} is not a file; give the JSON or the PNG of a result")
        if path.stat().st_size > LARGEST:
            raise InputError(f"{name} is too large for the record of a picture")
        data = path.read_bytes()
    except (OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{name} cannot be read: {reason}") from None
    if not data.startswith(PNG) and path.suffix.lower() in pictures.SUFFIXES:
        raise _without(name)
    try:
        entries = json.loads(
            _text_in(data, name) if data.startswith(PNG) else data,
            parse_constant=_refuse_constant,
            parse_float=_finite,
        )
    except InputError:
        raise
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"{name} is not the record of a picture, as it cannot be read as JSON:"
            f" {brief(' '.join(str(error).split()))}"
        ) from None
    found = _plain(entries, name)
    _settings(_checked(_Record, found, name), name)
    return found


def _text_in(data: bytes, name: str) -> str:
    """Return the record in the text chunk of a PNG."""
    try:
        with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            text = image.info.get("fmi")
    except Exception as error:  # PIL raises nearly anything on a damaged file
        line = brief(" ".join(str(error).split()))
        raise InputError(f"{name} cannot be read as a picture: {line}") from None
    if not isinstance(text, str):
        raise _without(name)
    return text


def _without(name: str) -> InputError:
    return InputError(f"{name} contains no record of fmi; give the JSON file beside it")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is not a finite number")
    return value


def _refuse_constant(text: str) -> float:
    raise ValueError(f"{text} is not a finite number")


# --- from a record to a request ---


@dataclass(frozen=True)
class Repetition:
    """A picture that is to be computed again; everything that it needs has been found and checked.

    Attributes
    ----------
    record
        The record of the first computation.
    request
        The request for the same picture.
    name
        Name of the record for messages.
    """

    record: Mapping[str, Any]
    request: Request
    name: str = "the record"

    @in_one_line
    def compute(self) -> Inversion:
        """Compute the picture, and log how its record compares with the first one.

        Returns
        -------
        Inversion
            The picture, (H, W, 3) float32 RGB on the 0-255 scale. After Ctrl-C, it has stopped as
            ``"interrupted"``.

        Raises
        ------
        InputError
            If a filter before this one in a chain diverges, or if memory does not suffice.
        KeyboardInterrupt
            If Ctrl-C ends a chain before its last filter.
        """
        found = self.request.compute()
        wanted = self.request.places[-1]
        if len(found) < len(self.request.places):  # only a chain has several
            if self.request.call.interrupted or not found or found[-1].stopped == "interrupted":
                raise KeyboardInterrupt
            which = found[-1].record["filter"]
            raise InputError(
                f"filter {which}, before {wanted} in the chain, has {found[-1].stopped}"
            )
        told = compare(self.record, found[-1].describe())
        level = logging.INFO if told.same and not told.outcome else logging.WARNING
        if found[-1].stopped != "interrupted":
            log.log(level, "%s: %s", self.name, told)
        return found[-1]


def repeat(
    record: Mapping[str, Any],
    pictures: Optional[Mapping[str, Init]] = None,
    others: Sequence[Source] = (),
    folders: Sequence[Union[str, Path]] = (),
    **options: Any,
) -> Inversion:
    """Compute a picture again from its record, and log how the new record compares with it.

    Parameters
    ----------
    record, pictures, others, folders, **options
        As for :func:`ask`.

    Returns
    -------
    Inversion
        The picture, (H, W, 3) float32 RGB on the 0-255 scale. With the same versions, on the same
        machine, its array has the same bits as the first one.

    Raises
    ------
    InputError
        As for :func:`ask` and :meth:`Repetition.compute`.
    """
    return ask(record, pictures, others, folders, **options).compute()


@in_one_line
def ask(
    record: Mapping[str, Any],
    pictures: Optional[Mapping[str, Init]] = None,
    others: Sequence[Source] = (),
    folders: Sequence[Union[str, Path]] = (),
    *,
    network: Any = None,
    weights: Any = "auto",
    ctx: Union[None, str, Context] = None,
    precision: Union[None, str, Precision] = None,
    memory: Optional[float] = None,
    progress: Optional[bool] = None,
    callback: Optional[descent.Callback] = None,
    name: str = "the record",
) -> Repetition:
    """Find and check what a record needs to be computed again.

    Parameters
    ----------
    record
        The record, as from :func:`read` or :attr:`fmi.inversion.Inversion.record`.
    pictures
        Pictures by their role: ``"content"``, ``"style"``, ``"style_2"`` ..., ``"init"`` or
        ``"mask"``. Of the last two, a record holds nothing but a digest, so that they must be
        given; the others are looked for by their names if they are missing here.
    others
        Further pictures, whose roles their digests tell.
    folders
        Folders in which to look for pictures first. Afterwards, the current folder, those of
        :func:`fmi.sources.table.folders` and the pictures of scikit-image are searched.
    network, weights
        The network, as for :func:`fmi.networks.catalogue.load`, if its name in the record does not
        suffice to find it.
    ctx, precision
        Device and number format; by default, those of the record.
    memory, progress, callback
        As in :class:`fmi.call.Options`.
    name
        Name of the record for messages.

    Raises
    ------
    InputError
        If the record is damaged or of a later version; if a picture or the network is missing or
        has another digest; or if the device or the number format cannot be used.
    """
    entries = _plain(record, name)
    held = _checked(_Record, entries, name)
    settings = _settings(held, name)
    _check_roles(held, name)
    given = dict(pictures or {})
    found = _pictures(held, given, others, folders)
    keywords: Dict[str, Any] = {
        "settings": settings,
        "network": _network(held, network, weights),
        "ctx": held.device if ctx is None else ctx,
        "precision": (
            Precision(held.precision, held.precision_reason) if precision is None else precision
        ),
        "init": given["init"] if "init" in held.given else held.init,
        "mask": given.get("mask"),
        "preserve_color": held.preserve_color,
        "progress": progress,
        "callback": callback,
        **({} if memory is None else {"memory": memory}),
    }
    asked = _request(held, found, keywords, name)
    _check_given(held, asked.records[-1], entries)
    return Repetition(entries, asked, name)


def _settings(record: _Record, name: str) -> Settings:
    """Return the settings of a record."""
    given, section = record.settings, record.section
    known = presets.as_dict(presets.CODE, section)
    for word, names in (
        (
            "has settings that this version of fmi does not know",
            [n for n in given if n not in known],
        ),
        ("lacks settings of this version of fmi", [n for n in known if n not in given]),
    ):
        if names:
            wrote = record.versions.get("fmi")
            told = ", ".join(map(_line, names[:SHOWN]))
            hint = f"; it was written by fmi {_line(wrote)}" if wrote else ""
            raise InputError(f"{name} {word}: {told}{hint}")
    try:
        own = {n: given[n] for n in presets.field_names(Settings) if n not in TRANSFERS}
        found = replace(presets.CODE, **own)
        if section:
            scheme = {n: given[n] for n in presets.field_names(Transfer)}
            for part in ("content", "style"):
                held = _checked(_Weighting, scheme[part], name, f"settings.{part}")
                scheme[part] = Weighting(held.factor, held.channels, held.positions)
            found = replace(found, **{section: replace(getattr(found, section), **scheme)})
    except ValidationError as error:
        raise _refused(error, name, "settings") from None
    for entry, value in presets.as_dict(found, section).items():
        if value != given[entry]:  # it has been converted, for example from text
            raise InputError(
                f"{name}: settings.{entry}={shown(given[entry])} has another type than {value!r}"
            )
    return found


def _check_roles(record: _Record, name: str) -> None:
    """Check that a record names the pictures of its function, and what goes with them."""
    roles = list(record.pictures)
    if record.section:
        count = max(1, len(roles) - 1)
        right = ["content", "style", *(f"style_{n}" for n in range(2, count + 1))]
        if count > 1 and record.style_weights is None:
            raise InputError(f"{name} has several style pictures, but lacks style_weights")
    else:
        right = ["content", "style"] if record.function == "rank_match" else ["content"]
    if set(roles) != set(right):
        raise InputError(
            f"{name} has the pictures {shown(roles)}, but {record.function} needs"
            f" {', '.join(right[:SHOWN])}"
        )


def _request(
    record: _Record, found: Mapping[str, Picture], keywords: Dict[str, Any], name: str
) -> Request:
    """Return the request for the picture of a record."""
    content, layers, function = found["content"], list(record.layers), record.function
    place = PLACES.get(function)
    if place and getattr(record, place) is None:
        raise InputError(f"{name} is not the record of a picture, as it lacks {place}")
    if function == "random":
        asked = request.random(content, None, 1, record.seed, layers, keywords)
        return asked.only(Place(draw=record.draw))
    keywords = {**keywords, "seed": record.seed}
    if function == "code":
        return request.code(content, None, layers, keywords)
    if function == "feature_map":
        before = record.filters_before if record.chain else []
        chosen = [*before, cast(int, record.filter)]
        return request.feature_map(content, None, chosen, record.chain, layers, keywords)
    if function == "maximise":
        return request.maximise(content, layers, record.filter, keywords)
    if function == "rank_match":
        return request.rank_match(content, found["style"], None, layers, keywords)
    if function == "direction":
        values = record.direction or []
        asked = request.direction(content, layers, values, keywords)
        if not math.isclose(math.fsum(v * v for v in values), 1, rel_tol=1e-9):
            raise InputError(f"{name}: direction={shown(values)} must be a unit vector")
        return asked.only(Place(direction=tuple(values)))  # not normalised again: the same bits
    styles = [found["style"], *(found[f"style_{n}"] for n in range(2, len(found)))]
    transfer = request.purposeful if function == "purposeful" else request.gatys
    own = {n: record.settings[n] for n in ("content_layer", "style_layers")}  # never replaced
    weights = record.style_weights if len(styles) > 1 else None
    return transfer(content, styles, {**keywords, **own}, weights, record.strength)


# --- the network ---


def _network(record: _Record, network: Any, weights: Any) -> Network:
    """Return the network of a record, after checking its digest and which nodes its layers are."""
    wanted, how = record.network, None
    if wanted.input is not None:
        mean, std = (cast(Triple, tuple(each)) for each in (wanted.input.mean, wanted.input.std))
        how = Input(wanted.input.channels, wanted.input.scale, mean, std)
    if network is None and str(weights) == "auto":
        network, weights = _named(wanted)
    if isinstance(network, Network):
        found = network
    else:
        found = catalogue.load(network, weights, how, record.layers)
    described = found.describe()
    if described["sha256"] != wanted.sha256:
        raise InputError(
            f"network {shown(described['name'])} has the sha256 {described['sha256']}, but the"
            f" record is of {shown(wanted.name)}, {wanted.sha256}: give that network with"
            " --weights or --network (in Python, weights= or network=)"
        )
    if record.nodes is not None and found.nodes(record.layers) != record.nodes:
        raise InputError(
            f"network {shown(described['name'])} has other names for its layers than that of the"
            f" record: its {', '.join(map(_line, record.layers[:SHOWN]))} would be another layer;"
            " give the network with the names of the record"
        )
    return found


def _named(wanted: _Network) -> Tuple[Optional[str], str]:
    """Return the arguments network= and weights= that the name of a network stands for."""
    if wanted.embedded:
        return None, "embedded"
    if wanted.source is not None and wanted.source in table.models():
        return None, wanted.source
    if wanted.input is not None and wanted.name in catalogue.zoo():
        return wanted.name, "auto"
    for folder in table.folders("models") if wanted.input is None else []:
        with contextlib.suppress(OSError):
            for file in sorted(folder.glob("*")):
                named = file.stem == wanted.name and file.suffix in table.SUFFIXES
                right = named and table.is_file(file)
                if right and files.file_digest(file, "sha256") == wanted.sha256:
                    return None, str(file)
    raise InputError(
        f"network {shown(wanted.name)} (sha256 {wanted.sha256}) was not found by its name: give"
        " its file with --weights or --network (in Python, weights= or network=)"
    )


# --- the pictures ---


def _pictures(
    record: _Record,
    given: Dict[str, Init],
    others: Sequence[Source],
    folders: Sequence[Union[str, Path]],
) -> Dict[str, Picture]:
    """Return the pictures of a record by their roles, after checking their digests."""
    roles = [*record.pictures, *record.given]
    for role in given:
        if role not in roles:
            raise InputError(
                f"the record needs no picture {shown(role)}, but {', '.join(roles[:SHOWN])}"
            )
    for source in others:
        found = pictures.read(source)
        own = [role for role, one in record.pictures.items() if _same(found, one)]
        if not own:
            raise InputError(
                f"{found.name} (sha256 {found.sha256}) is none of the pictures of the record,"
                f" {_listed(record)}; if it is the initial picture or the mask, say so:"
                " --picture init=FILE or mask=FILE"
            )
        given.update({role: found for role in own if role not in given})
    for role in record.given:
        if given.get(role) is None:
            what = "initial picture" if role == "init" else "mask"
            raise InputError(
                f"of the {what}, a record holds nothing but a digest: give the picture with"
                f" {_hint(role)}"
            )
    return {
        role: _right(role, one, given[role]) if role in given else _find(role, one, folders)
        for role, one in record.pictures.items()
    }


def _same(found: Picture, wanted: _Picture) -> bool:
    """Return whether this is the picture, as a file, or the pixels if it was an array."""
    return wanted.sha256 in (found.sha256, files.array_digest(found.pixels))


def _right(role: str, wanted: _Picture, source: Any) -> Picture:
    """Return a picture that has been given for a role, after checking its digest."""
    found = pictures.read(source)
    if not _same(found, wanted):
        raise InputError(
            f"{found.name} (sha256 {found.sha256}) is not the {brief(role)} picture of the record,"
            f" {shown(wanted.name)} (sha256 {wanted.sha256}): give that one with {_hint(role)}"
        )
    return replace(found, sha256=wanted.sha256)


def _find(role: str, wanted: _Picture, folders: Sequence[Union[str, Path]]) -> Picture:
    """Find the picture of a role by its name, among files of this name by its digest."""
    places = [*folders, Path(), *table.folders("pictures")]
    seen: List[Path] = []
    for path in _candidates(wanted.name, places):
        if path not in seen and table.is_file(path):
            seen.append(path)
            with contextlib.suppress(OSError, InputError):
                found = pictures.read(path)
                if _same(found, wanted):
                    return replace(found, sha256=wanted.sha256)
    if seen:
        told = f"{brief(seen[0])} is another picture than the {role} picture of the record,"
    else:
        where = ", ".join(brief(place) for place in places)
        told = f"the {role} picture of the record was not found in {where}:"
    raise InputError(
        f"{told} {shown(wanted.name)} (sha256 {wanted.sha256}); give its file with {_hint(role)}"
    )


def _candidates(name: str, places: Sequence[Union[str, Path]]) -> Iterator[Path]:
    yield from pictures.named(name, places)
    for key, (file, _) in pictures.SKIMAGE.items():
        if Path(file).stem == name:
            with contextlib.suppress(InputError):  # scikit-image without its pictures
                yield pictures.find(f"skimage:{key}", [])


def _check_given(record: _Record, new: Mapping[str, Any], entries: Mapping[str, Any]) -> None:
    """Check the digests of `init` and `mask`, unless other versions resize pictures differently."""
    versions = new["versions"]
    if any(versions[package] != record.versions.get(package) for package in RESIZING):
        return  # compare() tells that the digest differs
    for role in record.given:
        if new[role] != entries[role]:
            raise InputError(
                f"the picture given as {role} is not that of the record: resized, its sha256 is"
                f" {new[role]}, not {entries[role]}; give that one with {_hint(role)}"
            )


def _listed(record: _Record) -> str:
    some = list(record.pictures.items())[:SHOWN]
    return ", ".join(f"{role} {shown(one.name)} (sha256 {one.sha256})" for role, one in some)


def _hint(role: str) -> str:
    return f"--picture {role}=FILE (in Python, pictures={{{role!r}: ...}})"


# --- the comparison of two records ---


@dataclass(frozen=True)
class Comparison:
    """How the record of a repetition compares with the first one.

    Attributes
    ----------
    versions
        Packages whose versions differ, such as ``"numpy 1.26.4 -> 2.0.0"``.
    entries
        Other entries that shape a picture and differ.
    outcome
        Entries of the outcome that differ; ``None`` if one of the records has no outcome.
    same
        Whether it is the same computation: the records have the same key.
    """

    versions: Tuple[str, ...]
    entries: Tuple[str, ...]
    outcome: Optional[Tuple[str, ...]]
    same: bool

    def __str__(self) -> str:
        parts = []
        if self.same:
            parts.append("the same computation")
        if self.versions and not self.same:
            parts.append(f"computed with other versions: {_joined(self.versions)}")
        if self.entries and not self.same:
            parts.append(f"not the same computation: {_joined(self.entries)}")
        if self.outcome is not None:
            cause = ", as with another CPU or number of threads" if self.same else ""
            differs = f"another outcome{cause}: {_joined(self.outcome)}"
            parts.append(differs if self.outcome else "the same outcome")
        return "; ".join(parts)


def compare(first: Mapping[str, Any], second: Mapping[str, Any]) -> Comparison:
    """Compare the records of two computations.

    Parameters
    ----------
    first, second
        Records, with or without their outcome.

    Raises
    ------
    InputError
        If one of them is no record.
    """
    old, new = _plain(first, "the first record"), _plain(second, "the second record")
    one, two = records.shaping(old), records.shaping(new)
    if "nodes" not in one:  # the first records had the names of the layers alone
        two.pop("nodes", None)
    packages = _changes(one.pop("versions", {}), two.pop("versions", {}))
    versions, entries = (
        tuple(f"{name} {change}" for name, change in changes)
        for changes in (packages, _changes(one, two))
    )
    key = records.key(new)
    same = key in (old.get("key"), records.key(old)) or not (versions or entries)
    both = [record.get("outcome") for record in (old, new)]
    outcome = None
    if all(isinstance(each, dict) for each in both):
        outcome = tuple(f"{name} {change}" for name, change in _changes(both[0], both[1]))
    return Comparison(versions, entries, outcome, same)


def _changes(old: Any, new: Any) -> Iterator[Tuple[str, str]]:
    """Yield the names of values that differ, and from what to what they have changed."""
    one, two = dict(_leaves(old)), dict(_leaves(new))
    for name in sorted({*one, *two}):
        if name not in one or name not in two or one[name] != two[name]:
            yield name, f"{_value(one, name)} -> {_value(two, name)}"


def _leaves(values: Mapping[str, Any], within: str = "") -> Iterator[Tuple[str, Any]]:
    for name, value in values.items():
        full = f"{within}{name}"
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{full}.")
        else:
            yield full, value


def _value(values: Mapping[str, Any], name: str) -> str:
    if name not in values:
        return "nothing"
    value = values[name]
    if not isinstance(value, str):
        return shown(value)
    return value[:12] if len(value) == 64 else brief(value)  # of a digest, its beginning


def _joined(changes: Sequence[str]) -> str:
    return ", ".join([*map(_line, changes[:SHOWN]), *(["..."] if len(changes) > SHOWN else [])])
