"""Files and digests: write files atomically, and identify files by their content."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any, Callable, Dict, Mapping

import numpy as np

from fmi.errors import InputError

__all__ = ["array_digest", "digests", "file_digest", "save_json", "write_whole"]


def array_digest(array: np.ndarray) -> str:
    """Return the sha256 of the shape and the values of an array."""
    content = repr(array.shape).encode() + np.ascontiguousarray(array).tobytes()
    return hashlib.sha256(content).hexdigest()


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` create a temporary file next to `path`, then rename it to `path`.

    An incomplete file is never left behind.

    Raises
    ------
    InputError
        If the file cannot be written.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(beside)
        beside.replace(path)
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror or error}") from None
    finally:
        if beside.exists():
            beside.unlink()


def save_json(path: Path, record: Mapping[str, Any]) -> None:
    """Write plain data as JSON; an incomplete file is never left behind.

    Raises
    ------
    InputError
        If the file cannot be written.
    """
    lines = json.dumps(record, indent=1, sort_keys=True) + "\n"
    write_whole(path, lambda beside: beside.write_text(lines, encoding="utf-8"))


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
