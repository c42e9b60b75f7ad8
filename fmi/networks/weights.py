"""Weights of VGG networks: find, read, convert to canonical form, and identify by digest."""

from __future__ import annotations

import functools
import json
import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple, Union

import numpy as np

from fmi import files
from fmi.errors import InputError, unknown
from fmi.networks.canonical import canonical
from fmi.networks.names import named_arrays
from fmi.networks.topology import Topology
from fmi.sources import formats, table
from fmi.sources.table import Layout, Source

__all__ = ["LARGEST", "PHOTOGRAPHS", "Weights", "embedded_path", "load", "read"]

log = logging.getLogger(__name__)

LARGEST = 2 << 30  # largest file in bytes; VGG-19 with its dense layers takes 575 MB
PHOTOGRAPHS = "vgg16-hed"  # trained on photographs; the only source that needs nothing but pip


@dataclass(frozen=True, eq=False)
class Weights:
    """The weights of a VGG network in canonical form.

    Attributes
    ----------
    name
        Name of the file without its suffix.
    path, sha256
        The file and its digest.
    mean
        RGB colour on the 0-255 scale to subtract from a picture.
    arrays
        ``conv1_1_weight`` (O, I, 3, 3), ``conv1_1_bias`` (O,) ... float32, read-only.
    format
        Key of :data:`fmi.sources.formats.FORMATS`.
    layout
        The preprocessing that the original network expects.
    topology
        Member of the VGG family.
    source
        Name of the entry of ``models/sources.yaml`` with this digest, or ``None``.
    embedded
        Whether this is the small network that comes with the package, which is not VGG-19.
    """

    name: str
    path: Path
    sha256: str
    mean: Tuple[float, float, float]
    arrays: Mapping[str, np.ndarray]
    format: str
    layout: Layout
    topology: Topology
    source: Optional[str] = None
    embedded: bool = False

    @property
    def verified(self) -> bool:
        """Whether the digest is a known one."""
        return self.source is not None

    @property
    def covers(self) -> Tuple[str, ...]:
        """The available convolutions, from the first one up to the first gap."""
        names = self.topology.convolutions
        there = [f"{name}_weight" in self.arrays for name in names]
        return names[: there.index(False) if False in there else None]

    def describe(self) -> Dict[str, object]:
        """Return what identifies the weights, for the record of an inversion."""
        return {
            "name": self.name,
            "network": self.topology.name,
            "sha256": self.sha256,
            "source": self.source,
            "verified": self.verified,
            "embedded": self.embedded,
            "mean": list(self.mean),
        }


def load(weights: Union[str, Path, Weights] = "auto", layers: Sequence[str] = ()) -> Weights:
    """Load weights that cover `layers`.

    Parameters
    ----------
    weights
        One of

        - a path;
        - the name of a source (``fmi weights list``); ``"vgg19"`` stands for the weights of
          Simonyan & Zisserman from any source, or a file of unknown digest whose name begins
          with ``vgg19``;
        - ``"embedded"``: the small network that comes with the package;
        - ``"auto"``: the first of VGG-19, ``vgg16-hed`` and the embedded network that is
          available and covers the layers, with a warning if it is not VGG-19;
        - loaded weights.
    layers
        Names of layers.

    Raises
    ------
    InputError
        If the weights do not exist, cannot be read, or lack a layer; the message names the first
        missing convolution.
    """
    if isinstance(weights, Weights):
        return _covering(weights, layers)
    text = str(weights)
    known = table.models()
    if text == "embedded":
        return _covering(_embedded(), layers)
    if text == "vgg19":
        return _vgg19(layers, original=True)
    if text in known:
        return _covering(_named(known[text]), layers)
    if text == "auto":
        return _best(layers)
    if os.sep not in text and "." not in text:
        raise unknown("weights", text, ("auto", "embedded", *known, "or a path"))
    return _covering(_with_warnings(read(weights)), layers)


def _best(layers: Sequence[str]) -> Weights:
    """Return VGG-19 if it is available and covers the layers, else the next best network."""
    try:
        return _vgg19(layers, original=False)
    except InputError as error:
        problem = error
    photographs = table.models()[PHOTOGRAPHS]
    if table.find(photographs) is not None:
        try:
            found = _covering(_named(photographs), layers)
            _warn(f"using {PHOTOGRAPHS}, a VGG-16 trained on photographs, not VGG-19: {problem}")
            return found
        except InputError as error:
            log.warning("%s cannot be used: %s", PHOTOGRAPHS, error)
    if not embedded_path().is_file():
        raise problem
    found = _covering(_embedded(), layers)
    _warn(f"using the small embedded network, not VGG-19: {problem}")
    return found


def embedded_path() -> Path:
    """Return the path of the embedded network."""
    return table.table_folder() / "embedded.npz"


def _embedded_digest() -> str:
    path = embedded_path()
    return files.file_digest(path, "sha256") if path.is_file() else ""


def _embedded() -> Weights:
    path = embedded_path()
    if not path.is_file():
        raise InputError(f"the embedded network {path} is missing; reinstall fmi")
    return read(path)


def _named(source: Source) -> Weights:
    path = table.find(source)
    if path is None:
        raise _missing(source.file, source.name)
    found = read(path)
    if found.source != source.name:
        raise InputError(
            f"{path} does not match the digest of {source.name} ({source.digest}): its sha256 is"
            f" {found.sha256}; delete it and fetch it again: fmi weights fetch {source.name}"
        )
    return _with_warnings(found)


def _vgg19(layers: Sequence[str], original: bool) -> Weights:
    """Return the weights of 2014 with a known digest, else a file with an unknown digest.

    Unless `original` is true, a retrained network is the last resort.
    """
    known = {source.file: source for source in table.models().values()}
    problems: List[InputError] = []
    first: List[Tuple[Path, Optional[Source]]] = []
    unverified: List[Tuple[Path, Optional[Source]]] = []
    last: List[Tuple[Path, Optional[Source]]] = []
    for path in table.candidates():
        source = known.get(path.name)
        if source is None:
            unverified.append((path, None))
        elif source.default:
            first.append((path, source))
        elif not original:
            last.append((path, source))
    for path, source in [*first, *unverified, *last]:
        try:
            found = _named_at(path, source) if source else read(path)
            return _with_warnings(_covering(found, layers))
        except InputError as error:
            problems.append(error)
    for problem in problems[1:]:
        log.debug("%s", problem)
    raise problems[0] if problems else _missing("vgg19.params", "vgg19")


def _named_at(path: Path, source: Source) -> Weights:
    found = read(path)
    if found.source != source.name:
        raise InputError(
            f"{path} is damaged: its sha256 is {found.sha256}, but the digest of {source.name} is"
            f" {source.digest}; delete it and fetch it again: fmi weights fetch {source.name}"
        )
    return found


def _missing(file: str, name: str) -> InputError:
    places = ", ".join(str(folder) for folder in table.folders("models"))
    what = "VGG-19" if name.startswith("vgg19") else name
    return InputError(
        f"no weights of {what} ({file}) were found in {places}; fetch them: fmi weights fetch"
        f" {name}; or add their folder to FMI_MODELS, or choose others, such as 'embedded' or a"
        " path (--weights, WEIGHTS=, weights=)"
    )


def _covering(weights: Weights, layers: Sequence[str]) -> Weights:
    """Return the weights after checking that they contain everything that the layers need."""
    member = weights.topology
    for name in layers:
        if name not in member.layers:
            raise unknown(f"layer of {member.name}", name, member.layers)
    needed = member.convolutions_before(member.deepest(layers)) if layers else ()
    for name in needed:
        if f"{name}_weight" not in weights.arrays:
            raise InputError(
                f"{weights.path} lacks {name}, but the requested layers need {needed[0]} to"
                f" {needed[-1]}; choose shallower layers or other weights"
            )
    return weights


@functools.lru_cache(maxsize=None)
def _warn(message: str) -> None:
    """Log a warning once per process, since a figure loads the same weights many times."""
    log.warning("%s", message)


def _with_warnings(weights: Weights) -> Weights:
    """Return the weights, with a warning if they are not the known original ones."""
    notes = []
    if not weights.verified and not weights.embedded:
        notes.append(f"unknown digest (sha256 {weights.sha256})")
    if not weights.layout.original:
        notes.append("retrained network, whose filters differ from those in the published Fig. 3")
    if notes:
        _warn(f"{weights.path}: {'; '.join(notes)}")
    return weights


# --- reading ---


def read(path: Union[str, Path]) -> Weights:
    """Read a weights file; its format and layout are detected from the content.

    Raises
    ------
    InputError
        If the file is missing or damaged, or contains no VGG network.
    """
    path = Path(path)
    try:
        status = path.stat()
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        raise InputError(
            f"weights {path} cannot be read: {getattr(error, 'strerror', error)}"
        ) from None
    if not path.is_file():
        raise InputError(f"weights {path} is not a file")
    if status.st_size > LARGEST:
        raise InputError(f"weights file {path} is too large for a VGG network")
    return _read(path, (status.st_mtime_ns, status.st_size, status.st_ino))


@functools.lru_cache(maxsize=2)
def _read(path: Path, _state: Tuple[int, int, int]) -> Weights:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"weights {path} cannot be read: {error.strerror}") from None
    source = table.identify(data, table.models())
    known = table.layouts()[source.layout] if source else None
    try:
        form, arrays = formats.read(data)
        text = arrays.pop(formats.METADATA, None)
        layout, member, named = named_arrays(arrays, known)
        mean = arrays.get("averageImage", _metadata(text).get("mean"))
        one_form, colour = canonical(named, member, layout, mean)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    sha256 = files.digests(data)["sha256"]
    return Weights(
        name=path.stem,
        path=path,
        sha256=sha256,
        mean=colour,
        arrays=one_form,
        format=form,
        layout=layout,
        topology=member,
        source=source.name if source else None,
        embedded=sha256 == _embedded_digest(),
    )


def _metadata(text: Optional[np.ndarray]) -> Dict[str, Any]:
    if text is None:
        return {}
    try:
        found = json.loads(str(text))
    except (ValueError, RecursionError):
        raise InputError("its metadata is damaged") from None
    return found if isinstance(found, dict) else {}
