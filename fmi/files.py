"""Files: written whole or not at all, shared between processes, and identified by digests."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import hashlib
import json
import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, Optional

import numpy as np

from fmi.errors import InputError, brief

__all__ = [
    "array_digest",
    "digests",
    "file_digest",
    "is_locked",
    "json_text",
    "locked",
    "prepare",
    "remove",
    "save_json",
    "sweep",
    "user_cache",
    "write_folder",
    "write_whole",
]

PART = ".part"  # suffix of temporary files and folders, which also begin with a dot


def array_digest(array: np.ndarray) -> str:
    """Return the sha256 of the shape and the values of an array."""
    content = repr(array.shape).encode() + np.ascontiguousarray(array).tobytes()
    return hashlib.sha256(content).hexdigest()


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` write a temporary file next to `path`, then rename it to `path`.

    An incomplete file is never visible under `path`. If the process is killed, the temporary file
    is removed by the next process that writes into the same folder.

    Raises
    ------
    InputError
        If the file cannot be written.
    """
    with _refused(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        sweep(path.parent)
        with _temporary(lambda: _file_in(path.parent)) as beside:
            write(beside)
            beside.replace(path)


def write_folder(path: Path, fill: Callable[[Path], object]) -> None:
    """Let `fill` write the files of a temporary folder next to `path`, then rename it to `path`.

    If another process has created `path` in the meantime, its folder is kept.

    Raises
    ------
    InputError
        If the folder cannot be written.
    """
    with _refused(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        sweep(path.parent)
        with _temporary(lambda: _folder_in(path.parent)) as beside:
            fill(beside)
            try:
                beside.rename(path)
            except OSError as error:
                if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                    raise


def prepare(folder: Path) -> None:
    """Create a folder, if it does not exist, and check that files can be written into it.

    Raises
    ------
    InputError
        If they cannot.
    """
    with _refused(folder):
        folder.mkdir(parents=True, exist_ok=True)
        sweep(folder)
        with _temporary(lambda: _file_in(folder)):
            pass


def remove(path: Path) -> None:
    """Remove a file or a folder at once, whatever it is.

    Raises
    ------
    InputError
        If it cannot be removed.
    """
    with _refused(path, "removed"), _temporary(lambda: _folder_in(path.parent)) as aside:
        path.rename(aside / "removed")


@contextlib.contextmanager
def locked(path: Path, wait: bool) -> Iterator[bool]:
    """Hold a lock that only one thread of all processes can hold; it ends with its process.

    Parameters
    ----------
    path
        File of the lock; it exists while the lock is held.
    wait
        Whether to wait until the lock is free.

    Yields
    ------
    bool
        Whether the lock is held.

    Raises
    ------
    InputError
        If the file cannot be created.
    """
    with _refused(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = _acquired(path, os.O_RDWR | os.O_CREAT, wait)
    try:
        yield handle is not None
    finally:
        if handle is not None:
            with contextlib.suppress(OSError):
                path.unlink()  # while the lock is held, so that nobody else holds it
            os.close(handle)


def is_locked(path: Path) -> bool:
    """Return whether a process holds the lock of :func:`locked`, without taking it."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # a file system without locks
        return False
    finally:
        os.close(handle)
    return False


def _acquired(path: Path, flags: int, wait: bool) -> Optional[int]:
    """Open and lock `path`; return the file descriptor, or ``None`` if the lock is taken."""
    while True:
        handle = os.open(path, flags, 0o666)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            os.close(handle)
            return None
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS):
                os.close(handle)
                raise
            return handle  # a file system without locks: work is done twice at worst
        except BaseException:
            os.close(handle)
            raise
        with contextlib.suppress(OSError):
            if os.path.samestat(os.fstat(handle), path.stat()):
                return handle
        os.close(handle)  # another process has removed the file before the lock was taken


@contextlib.contextmanager
def _refused(path: Path, what: str = "written") -> Iterator[None]:
    """Report errors of the operating system as an :class:`InputError`."""
    try:
        yield
    except (OSError, ValueError) as error:
        if not isinstance(error, OSError) and "null" not in str(error):
            raise  # not a null character in the name
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{brief(path)} cannot be {what}: {reason}") from None


def _file_in(folder: Path) -> Path:
    handle, name = tempfile.mkstemp(PART, ".", folder)
    os.close(handle)
    return Path(name)


def _folder_in(folder: Path) -> Path:
    return Path(tempfile.mkdtemp(PART, ".", folder))


@contextlib.contextmanager
def _temporary(make: Callable[[], Path]) -> Iterator[Path]:
    """Yield a new file or folder, locked so that :func:`sweep` spares it; remove what is left."""
    while True:
        path = make()
        try:
            handle = _acquired(path, os.O_RDONLY, wait=True)
            break
        except FileNotFoundError:  # swept before it was locked
            continue
    try:
        path.chmod((0o777 if path.is_dir() else 0o666) & ~_umask())
        yield path
    finally:
        _remove(path)
        if handle is not None:
            os.close(handle)


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink()


@functools.lru_cache(maxsize=None)
def sweep(folder: Path) -> None:
    """Remove temporary files and folders of processes that were killed, once per process."""
    for path in folder.glob(f".*{PART}"):
        with contextlib.suppress(OSError):
            handle = os.open(path, os.O_RDONLY)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _remove(path)
            finally:
                os.close(handle)


def user_cache() -> Optional[Path]:
    """Return the folder in the user's cache, or ``None`` if the user has no home directory."""
    import pooch

    try:
        cache = Path(pooch.os_cache("fmi"))
    except RuntimeError:
        return None
    return cache if cache.is_absolute() else None  # older versions keep the "~"


@functools.lru_cache(maxsize=None)
def _umask() -> int:
    """Return the umask of the process; setting it, the usual way, is not safe with threads."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
        return int(re.findall(r"^Umask:\s*(\d+)", status, re.MULTILINE)[0], 8)
    except (OSError, IndexError):
        return 0o022


def json_text(content: Any) -> str:
    """Return plain data as strict JSON.

    Raises
    ------
    InputError
        If the data contain NaN, infinity, or objects that JSON cannot represent.
    """
    try:
        return json.dumps(content, indent=1, sort_keys=True, allow_nan=False) + "\n"
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"a record cannot be written as JSON: {error}") from None


def save_json(path: Path, content: Any) -> None:
    """Write plain data as strict JSON; an incomplete file is never visible.

    Raises
    ------
    InputError
        If the data cannot be represented, or if the file cannot be written.
    """
    text = json_text(content)
    write_whole(path, lambda beside: beside.write_text(text, encoding="utf-8"))


def digests(data: bytes) -> Dict[str, str]:
    """Return all kinds of digests that the tables use, in hexadecimal."""
    blob = b"blob %d\0" % len(data)
    return {
        "sha256": hashlib.sha256(data).hexdigest(),
        "sha1": hashlib.sha1(data).hexdigest(),
        "md5": hashlib.md5(data).hexdigest(),
        "git": hashlib.sha1(blob + data).hexdigest(),
    }


def file_digest(path: Path, kind: str) -> str:
    """Return a digest of a file; `kind` is a key of :func:`digests`."""
    made = hashlib.new("sha1" if kind == "git" else kind)
    if kind == "git":
        made.update(b"blob %d\0" % path.stat().st_size)
    with path.open("rb") as stream:
        for chunk in iter(lambda: stream.read(1 << 20), b""):
            made.update(chunk)
    return made.hexdigest()
