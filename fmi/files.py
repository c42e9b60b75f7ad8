"""Files and digests: write a file whole or not at all, and tell what it is by its content."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any, Callable, Dict, Mapping

import numpy as np

from fmi.errors import InputError


def array_digest(array: np.ndarray) -> str:
    """sha256 of an array's shape and values."""
    content = repr(array.shape).encode() + np.ascontiguousarray(array).tobytes()
    return hashlib.sha256(content).hexdigest()


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a file beside `path` and rename it, so that no half-written file stays.

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
    """Write plain data as JSON, whole or not at all.

    Raises
    ------
    InputError
        If the file cannot be written.
    """
    lines = json.dumps(record, indent=1, sort_keys=True) + "\n"
    write_whole(path, lambda beside: beside.write_text(lines, encoding="utf-8"))


def digests(data: bytes) -> Dict[str, str]:
    """All kinds of digest that the tables use, in hexadecimal."""
    blob = b"blob %d\0" % len(data)
    return {
        "sha256": hashlib.sha256(data).hexdigest(),
        "sha1": hashlib.sha1(data).hexdigest(),
        "md5": hashlib.md5(data).hexdigest(),
        "git": hashlib.sha1(blob + data).hexdigest(),
    }


def file_digest(path: Path, kind: str) -> str:
    """A file's digest; `kind` as in :func:`digests`."""
    made = hashlib.new("sha1" if kind == "git" else kind)
    if kind == "git":
        made.update(b"blob %d\0" % path.stat().st_size)
    with path.open("rb") as stream:
        for chunk in iter(lambda: stream.read(1 << 20), b""):
            made.update(chunk)
    return made.hexdigest()
