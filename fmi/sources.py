"""Weights and pictures that can be fetched: the tables in ``models/``, lookup, fetching.

A file gets its name only once its digest is right, so that a file that is there is whole.
"""

from __future__ import annotations

import errno
import functools
import logging
import os
import shutil
import socket
import tempfile
import threading
import time
import urllib.parse
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Dict, List, Mapping, Optional, Tuple

import yaml

from fmi import files
from fmi.errors import FetchError, unknown

log = logging.getLogger(__name__)

VARIABLES = {"models": "FMI_MODELS", "pictures": "FMI_PICTURES"}
WORDS = {"models": "weights", "pictures": "pictures"}  # of the command line
CHUNK = 1 << 16
CANDIDATES = ("vgg19*", "*vgg-verydeep-19*")  # names of files that may be VGG-19
SUFFIXES = (".params", ".npz", ".h5", ".hdf5", ".pth", ".pt", ".safetensors", ".mat")


@dataclass(frozen=True)
class Source:
    """An entry of a table; ``models/sources.yaml`` tells what each value means."""

    name: str
    kind: str  # "models" or "pictures"
    file: str
    urls: Tuple[str, ...]
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

    def matches(self, path: Path) -> bool:
        """Whether the file has the digest of this source."""
        kind, expected = self.digest.split(":")
        return files.file_digest(path, kind).startswith(expected)


@dataclass(frozen=True)
class Layout:
    """How a network takes a picture; ``models/sources.yaml`` tells what each value means."""

    name: str
    channels: str
    kernel: str
    scale: float
    mean: Tuple[float, float, float]
    std: Tuple[float, float, float]
    original: bool

    def describe(self) -> str:
        """One line for a person."""
        mean, std = (", ".join(f"{v:g}" for v in values) for values in (self.mean, self.std))
        return (
            f"{self.channels} scaled to 0-{self.scale:g}, minus ({mean}), divided by ({std});"
            f" kernels {self.kernel}"
        )


@dataclass(frozen=True)
class Patience:
    """How long to wait, in seconds, and how often to try.

    Attributes
    ----------
    connect, read
        For a connection, and for the next bytes.
    first
        For any answer at all from any address; a machine without internet is told so after it.
    tries
        For each address that did answer.
    pause
        Before the second try; twice as long before the third.
    """

    connect: float = 4
    read: float = 30
    first: float = 9
    tries: int = 3
    pause: float = 1


def table_folder() -> Path:
    """The folder of the tables: inside an installed package, beside it in a checkout."""
    here = Path(__file__).resolve().parent
    inside = here / "models"
    return inside if (inside / "sources.yaml").is_file() else here.parent / "models"


@functools.lru_cache(maxsize=None)
def _table(file: str) -> Dict[str, Any]:
    return dict(yaml.safe_load((table_folder() / file).read_text(encoding="utf-8")))


def layouts() -> Dict[str, Layout]:
    """Layouts by name."""
    found = {}
    for name, entry in _table("sources.yaml")["layouts"].items():
        triples = {key: tuple(float(v) for v in entry[key]) for key in ("mean", "std")}
        found[name] = Layout(name=name, **{**entry, **triples})
    return found


def models() -> Dict[str, Source]:
    """Weights by name, in the table's order."""
    return _sources("models", _table("sources.yaml")["sources"], "")


def pictures() -> Dict[str, Source]:
    """The paper's pictures by name."""
    table = _table("pictures.yaml")
    return _sources("pictures", table["pictures"], table["base"])


def _sources(kind: str, entries: Mapping[str, Any], base: str) -> Dict[str, Source]:
    return {
        name: Source(
            name=name,
            kind=kind,
            **{**entry, "urls": tuple(urllib.parse.urljoin(base, url) for url in entry["urls"])},
        )
        for name, entry in entries.items()
    }


def get(table: Mapping[str, Source], name: str) -> Source:
    """The entry of a name.

    Raises
    ------
    InputError
        If there is none; the message names the nearest ones.
    """
    if name not in table:
        raise unknown("source", name, table)
    return table[name]


def named_folders(kind: str) -> List[Path]:
    """The folders that ``FMI_MODELS`` or ``FMI_PICTURES`` names, separated by colons."""
    named = os.environ.get(VARIABLES[kind], "").split(os.pathsep)
    return [Path(folder).expanduser() for folder in named if folder]


def _checkout(kind: str) -> Optional[Path]:
    root = Path(__file__).resolve().parent.parent
    return root / kind if (root / "setup.py").is_file() else None


def _cache(kind: str) -> Path:
    import pooch

    return Path(pooch.os_cache("fmi")) / kind


def folders(kind: str) -> List[Path]:
    """Where files are looked for, in this order.

    Parameters
    ----------
    kind
        ``"models"`` or ``"pictures"``.

    Returns
    -------
    list of Path
        The folders of ``FMI_MODELS`` or ``FMI_PICTURES``, that of the checkout, the user's cache.
    """
    checkout = _checkout(kind)
    return [*named_folders(kind), *([checkout] if checkout else []), _cache(kind)]


def destination(kind: str) -> Path:
    """Where a fetched file goes: into the checkout, else into the user's cache."""
    checkout = _checkout(kind)
    if checkout and os.access(checkout if checkout.exists() else checkout.parent, os.W_OK):
        return checkout
    return _cache(kind)


def find(source: Source) -> Optional[Path]:
    """The first file of the source's name in :func:`folders`, its digest not checked."""
    files = (folder / source.file for folder in folders(source.kind))
    return next((file for file in files if file.is_file()), None)


def candidates() -> List[Path]:
    """Files that may be VGG-19 by their names, in the order of the folders."""
    return [
        file
        for folder in folders("models")
        for file in sorted({f for pattern in CANDIDATES for f in folder.glob(pattern)})
        if file.is_file() and file.suffix in SUFFIXES
    ]


def identify(data: bytes, table: Mapping[str, Source]) -> Optional[Source]:
    """The source that these bytes are, by digest."""
    made = files.digests(data)
    for source in table.values():
        kind, expected = source.digest.split(":")
        if made[kind].startswith(expected):
            return source
    return None


def offline() -> bool:
    """Whether ``FMI_OFFLINE`` forbids the network."""
    return os.environ.get("FMI_OFFLINE", "") not in ("", "0")


def fetch(
    source: Source,
    folder: Optional[Path] = None,
    patience: Optional[Patience] = None,
    forbidden: bool = False,
) -> Path:
    """The file of a source, downloaded unless it is there.

    Each address is tried in turn. Several processes may fetch the same file at once: each one
    writes a file of its own, and renames it.

    Parameters
    ----------
    source
        What to fetch.
    folder
        Where to; by default :func:`destination`, unless it is in one of :func:`folders` already.
    patience
        Time-outs and tries.
    forbidden
        Leave the network alone, as ``FMI_OFFLINE=1`` does.

    Returns
    -------
    Path
        The file, its digest checked.

    Raises
    ------
    FetchError
        If it cannot be had; the message tells how to get it by hand and how to go on without.
    """
    there = [folder] if folder else folders(source.kind)
    for place in there:
        path = place / source.file
        if path.is_file():
            if source.matches(path):
                return path
            log.warning("%s has not the digest of %s (%s)", path, source.name, source.digest)
    target = (folder or destination(source.kind)) / source.file
    if forbidden or offline():
        raise _unavailable(source, there, target, "the network is forbidden: offline")
    problems = _attempts(source, target, patience or Patience())
    if problems:
        raise _unavailable(source, there, target, "; ".join(problems))
    return target


def _attempts(source: Source, target: Path, patience: Patience) -> List[str]:
    """Try the addresses in turn; nothing if one worked, else what went wrong with each."""
    import requests

    last_call = time.monotonic() + patience.first - patience.connect
    problems: List[str] = []
    sink = _Sink(source)
    for url in source.urls:
        if not sink.answered and time.monotonic() > last_call:
            break  # no internet, most likely: further addresses would only take more time
        for attempt in range(patience.tries):
            time.sleep(patience.pause * attempt)
            sink = _Sink(source)
            try:
                _download(source, url, target, sink, patience)
                log.info("%s fetched from %s", target, url)
                return []
            except (_Wrong, requests.exceptions.RequestException) as error:
                problem = f"{url}: {_reason(error)}"
                log.debug("try %d of %s", attempt + 1, problem)
            except OSError as error:
                raise FetchError(
                    f"{target} cannot be written: {error.strerror or error}; make room, or fetch"
                    " into another folder with --folder"
                ) from None
            if not (sink.answered and sink.worth_another_try):
                break
        problems.append(problem)
    return problems


class _Wrong(Exception):
    """What came is not the file."""


class _Sink:
    """Takes the bytes of a download and refuses more than the file can have."""

    def __init__(self, source: Source, stream: Optional[IO[bytes]] = None) -> None:
        self.limit = source.size + source.size // 4 + (1 << 16)
        self.least = source.size - source.size // 50
        self.received = 0
        self.answered = False
        self.worth_another_try = True
        self.stream = stream

    def write(self, chunk: bytes) -> None:
        self.answered = True
        self.received += len(chunk)
        if self.received > self.limit:
            self.worth_another_try = False
            raise _Wrong("sends more bytes than the file has")
        assert self.stream is not None
        self.stream.write(chunk)

    def flush(self) -> None:
        """Not after each chunk; closing the file does it."""


def _download(source: Source, url: str, target: Path, sink: _Sink, patience: Patience) -> None:
    import pooch
    from tqdm.auto import tqdm

    sink.answered = _reached(url, patience.connect)
    target.parent.mkdir(parents=True, exist_ok=True)
    if shutil.disk_usage(target.parent).free < source.size:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    handle, name = tempfile.mkstemp(".part", f".{target.name}.", target.parent)
    beside = Path(name)
    try:
        with os.fdopen(handle, "wb") as stream, tqdm(
            desc=source.file, total=source.size, unit="B", unit_scale=True, disable=None
        ) as bar:
            sink.stream = stream
            get_url = pooch.HTTPDownloader(
                progressbar=bar, chunk_size=CHUNK, timeout=(patience.connect, patience.read)
            )
            try:
                get_url(url, sink, None)
            except _status_error() as error:
                sink.answered = True
                sink.worth_another_try = error.response.status_code >= 500
                raise
        if source.member:
            _unpack(beside, source)
        if not source.matches(beside):
            sink.worth_another_try = sink.received < sink.least  # cut short, and nobody noticed
            kind, expected = source.digest.split(":")
            raise _Wrong(
                f"{sink.received} bytes with {kind} {files.file_digest(beside, kind)},"
                f" not {expected}"
            )
        beside.chmod(0o644)  # mkstemp's files are for their owner alone
        beside.replace(target)
    finally:
        if beside.exists():
            beside.unlink()


def _status_error() -> Any:
    import requests

    return requests.exceptions.HTTPError


def _unpack(path: Path, source: Source) -> None:
    """Replace a .zip by the one file in it that is wanted."""
    out = path.with_name(f"{path.name}.member")
    try:
        with zipfile.ZipFile(path) as archive, out.open("wb") as stream:
            shutil.copyfileobj(archive.open(source.member), _Sink(source, stream), CHUNK)
        out.replace(path)
    except (zipfile.BadZipFile, KeyError, RuntimeError, NotImplementedError, EOFError) as error:
        raise _Wrong(f"is no .zip with {source.member}: {error}") from None
    finally:
        if out.exists():
            out.unlink()


def _reached(url: str, seconds: float) -> bool:
    """Look up the host and connect to it once, within `seconds` altogether; not with a proxy.

    A look-up has no time-out of its own, and a host may have a dozen addresses, each of which
    would be given the whole time.
    """
    import requests

    if requests.utils.get_environ_proxies(url):
        return False  # the proxy does both
    parts = urllib.parse.urlsplit(url)
    host, port = parts.hostname or "", parts.port or {"http": 80}.get(parts.scheme, 443)
    problems: List[str] = [f"no connection to {host} in time"]

    def reach() -> None:
        try:
            socket.create_connection((host, port), seconds).close()
            problems.clear()
        except socket.gaierror:
            problems[:] = [f"the name {host} cannot be looked up"]
        except (OSError, UnicodeError) as error:
            problems[:] = [f"no connection to {host}: {error}"]

    thread = threading.Thread(target=reach, daemon=True)
    thread.start()
    thread.join(seconds)
    if problems:
        raise requests.exceptions.ConnectionError(problems[0])
    return True


def _reason(error: Exception) -> str:
    """A library's many-storeyed exception in a few words."""
    import requests

    if isinstance(error, requests.exceptions.HTTPError):
        return f"HTTP status {error.response.status_code}"
    if isinstance(error, requests.exceptions.ProxyError):
        return "the proxy cannot be reached"
    if isinstance(error, requests.exceptions.ConnectTimeout):
        return "no connection in time"
    if isinstance(error, requests.exceptions.ReadTimeout):
        return "no answer in time"
    text = str(error)
    if "Read timed out" in text:
        return "no answer in time"
    if "IncompleteRead" in text or isinstance(error, requests.exceptions.ChunkedEncodingError):
        return "the download was cut in the middle"
    if isinstance(error, requests.exceptions.SSLError):
        return "the certificate is not accepted"
    return text.splitlines()[0][:200] if text else type(error).__name__


def _unavailable(source: Source, there: List[Path], target: Path, problem: str) -> FetchError:
    places = ", ".join(str(place) for place in dict.fromkeys([*there, target.parent]))
    what = f" ({source.member} inside it)" if source.member else ""
    without = {
        "models": "to go on without it, use the embedded network: WEIGHTS=embedded",
        "pictures": "to go on without it, give a picture of your own by its path",
    }
    return FetchError(
        f"{source.file} ({source.name}, {source.size / 1e6:.3g} MB) is not in {places} and cannot"
        f" be fetched ({problem}); by hand: download {source.urls[0]}{what} on any machine with"
        f" internet and put it there as {target} ({source.digest});"
        f" {without[source.kind]}"
    )


@dataclass
class Found:
    """A file of the table's, or one that might be.

    Attributes
    ----------
    source
        The entry of its name.
    path
        ``None`` if it is nowhere.
    state
        ``"missing"``, ``"right"`` or ``"wrong digest"``.
    """

    source: Source
    path: Optional[Path] = None
    state: str = field(default="missing")


def survey(table: Mapping[str, Source]) -> List[Found]:
    """Every source, where its file is, and whether its digest is right."""
    result = []
    for source in table.values():
        path = find(source)
        if path is None:
            result.append(Found(source))
        else:
            right = source.matches(path)
            result.append(Found(source, path, "right" if right else "wrong digest"))
    return result
