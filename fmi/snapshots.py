"""Snapshots: descents written to files now and then, from which a later call continues them.

A snapshot names each picture by the key of its record (:func:`fmi.records.key`), so that it is
continued by calls alone whose pictures would be the same. The pictures of a batch may be continued
in other batches.
"""

from __future__ import annotations

import contextlib
import json
import logging
import time
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Callable, Dict, List, Mapping, Optional, Sequence, Tuple, Union

import numpy as np

from fmi import checks, files
from fmi.descent import Array, Descent, Progress
from fmi.errors import InputError, brief, shown

__all__ = ["SECONDS", "SHARE", "Part", "Snapshot", "in_file", "in_folder"]

log = logging.getLogger(__name__)

SECONDS = 20.0  # between two snapshots
SHARE = 0.02  # of the time, which writing snapshots may take at most
HEAD = "fmi_snapshot"  # name of the first array of the file, which holds JSON
ROWS = "rows/"  # before the names of arrays with a row for each picture that has not stopped
STOPPED = "stopped/"  # before the numbers of the pictures that have stopped
DAMAGE = (
    *(ValueError, KeyError, TypeError, IndexError, AttributeError, EOFError, OSError),
    *(MemoryError, RecursionError, NotImplementedError, RuntimeError, zipfile.BadZipFile),
)


@dataclass
class _Saved:
    """The content of a snapshot; pictures are named by their keys."""

    step: int = 0
    seconds: float = 0.0
    running: List[str] = field(default_factory=list)
    losses: List[List[float]] = field(default_factory=list)  # of those that are running
    changes: List[Optional[float]] = field(default_factory=list)
    arrays: Dict[str, Array] = field(default_factory=dict)
    stopped: Dict[str, Descent] = field(default_factory=dict)

    def knows(self, key: str) -> bool:
        """Return whether a picture is among these."""
        return key in self.stopped or key in self.running


class Snapshot:
    """The snapshots of one call.

    Parameters
    ----------
    where
        Function that returns the file for a batch, given the key of its first picture that has not
        stopped.
    keeps
        Whether pictures that have stopped are in all later snapshots too, as nothing else keeps
        them.
    """

    def __init__(self, where: Callable[[str], Path], keeps: bool) -> None:
        self._where, self._keeps = where, keeps
        self._forget()
        self._stopped: Dict[str, Descent] = {}
        self._own: Optional[Path] = None  # the file that this call has written or continued
        self._cost = 0.0  # seconds that the last snapshot took
        self._written = time.monotonic()

    def together(self, keys: Sequence[str]) -> int:
        """Return how many of the first of some pictures are to be continued in one batch.

        If the first one has not been begun, it is the number of all.
        """
        saved = self._saved(keys[0])
        known = [saved.knows(key) for key in keys]
        return ([*known, False].index(False)) or len(keys)

    def part(self, keys: Sequence[str]) -> Part:
        """Return the snapshots of a batch of pictures."""
        return Part(self, keys)

    def finish(self, keys: Sequence[str]) -> None:
        """Remove the file after the call has returned the pictures with these keys."""
        if self._keeps and keys and any(map(self._saved(keys[0]).knows, keys)):
            self._own = self._where(keys[0])
        self._leave(None)
        self._forget()
        self._stopped.clear()

    def _forget(self) -> None:
        self._read: Tuple[Optional[Path], _Saved] = (None, _Saved())

    def _saved(self, key: str) -> _Saved:
        """Return the content of the file for a batch that begins with a picture, read once."""
        path = self._where(key)
        if path != self._read[0]:
            saved = _read(path)
            if saved.running and not saved.knows(key):
                log.warning("%s is a snapshot of other pictures or settings: ignored", brief(path))
                saved = _Saved()
            self._read = (path, saved)
            if self._keeps:
                self._stopped.update(saved.stopped)
        return self._read[1]

    def _load(self, keys: Sequence[str]) -> Optional[Progress]:
        saved = self._saved(keys[0])
        if not all(map(saved.knows, keys)):
            return None
        self._own = self._where(keys[0])
        rows = [saved.running.index(key) for key in keys if key not in saved.stopped]
        arrays = {name: np.asarray(array)[rows] for name, array in saved.arrays.items()}
        done, pictures = [], [n for n, key in enumerate(keys) if key not in saved.stopped]
        for key in keys:
            if key in saved.stopped:
                done.append(saved.stopped[key])
                continue
            row = saved.running.index(key)
            image = np.asarray(saved.arrays["image"])[row]
            done.append(Descent(image, list(saved.losses[row]), saved.changes[row]))
        changes = [saved.changes[row] for row in rows]
        if rows:
            log.info("continuing after step %d from %s", saved.step, brief(self._own))
        if not self._keeps:
            self._forget()
        return Progress(saved.step, done, pictures, changes, arrays, saved.seconds)

    def _save(
        self, keys: Sequence[str], pictures: Sequence[int], progress: Callable[[], Progress]
    ) -> None:
        path = self._where(keys[pictures[0]])
        moves = self._own is not None and path != self._own
        wait = max(SECONDS, self._cost / SHARE)
        if not moves and time.monotonic() - self._written < wait:
            return
        began = time.monotonic()
        now = progress()
        saved = _Saved(
            now.step,
            now.seconds,
            [keys[n] for n in now.pictures],
            [now.done[n].loss for n in now.pictures],
            list(now.changes),
            dict(now.arrays),
            {**self._stopped, **_stopped(keys, now.done)},
        )
        try:
            files.write_whole(path, lambda beside: _write(beside, saved))
            self._leave(path)
        except InputError as error:  # the descent itself can go on
            log.warning("%s; the descent goes on without this snapshot", error)
        self._written = time.monotonic()
        self._cost = self._written - began

    def _end(self, keys: Sequence[str], done: Sequence[Descent]) -> None:
        if self._keeps:
            self._stopped.update(_stopped(keys, done))
        else:
            self._leave(None)

    def _leave(self, path: Optional[Path]) -> None:
        """Remove the file of this call, unless it has this path, which is its file from now on."""
        if self._own is not None and self._own != path:
            with contextlib.suppress(OSError):
                self._own.unlink()
        self._own = path


class Part:
    """The snapshots of one descent, as :func:`fmi.descent.minimise` expects them.

    Parameters
    ----------
    snapshot
        The snapshots of the call.
    keys
        The keys of the pictures of the batch.
    """

    def __init__(self, snapshot: Snapshot, keys: Sequence[str]) -> None:
        self._snapshot, self._keys = snapshot, tuple(keys)

    def load(self) -> Optional[Progress]:
        """Return from where the descent continues, or ``None`` if it has to begin anew."""
        return self._snapshot._load(self._keys)

    def save(self, pictures: Sequence[int], progress: Callable[[], Progress]) -> None:
        """Write a snapshot if it is time to, of a descent in which some pictures have not stopped.

        If it cannot be written, that is logged, and the descent goes on.
        """
        self._snapshot._save(self._keys, pictures, progress)

    def end(self, done: Sequence[Descent]) -> None:
        """Note that all pictures have stopped, and that those that are finished are stored."""
        self._snapshot._end(self._keys, done)


def in_file(given: Union[str, Path]) -> Optional[Snapshot]:
    """Return the snapshots of a call in a file, which is removed after the call.

    A snapshot that is damaged, or of other pictures or settings, is ignored with a warning, and
    replaced. Any other file is left as it is: with a warning, and without snapshots.

    Raises
    ------
    InputError
        If there cannot be such a file.
    """
    if not isinstance(given, (str, Path)):
        raise InputError(f"snapshot={shown(given)} must be the path of a file")
    path = Path(checks.checked("snapshot", str(given), checks.Text))
    with _refused(path):
        if path.is_dir():
            raise InputError(f"snapshot={brief(path)} is a folder; give the path of a file in it")
        foreign = path.exists() and not _is_snapshot(path)
    files.prepare(path.parent)  # rather than fail after hours
    if foreign:
        log.warning(
            "%s is not a snapshot: it is left as it is, and no snapshots are written", brief(path)
        )
        return None
    return Snapshot(lambda _: path, keeps=True)


def in_folder(folder: Path) -> Snapshot:
    """Return the snapshots of a call whose results a store keeps, in a folder of the store."""
    return Snapshot(lambda key: folder / f"{key}.npz", keeps=False)


@contextlib.contextmanager
def _refused(path: Path) -> Any:
    try:
        yield
    except InputError:
        raise
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"snapshot={brief(path)} cannot be used: {reason}") from None


def _stopped(keys: Sequence[str], done: Sequence[Descent]) -> Dict[str, Descent]:
    return {key: one for key, one in zip(keys, done) if one.stopped != "interrupted"}


# --- the file: an .npz whose first array is JSON ---


def _is_snapshot(path: Path) -> bool:
    """Return whether a file is empty or begins as a snapshot does."""
    if not path.is_file():
        return False
    with path.open("rb") as stream:
        begin = stream.read(30 + len(HEAD))
    return not begin or (begin[:4] == b"PK\x03\x04" and begin[30:] == HEAD.encode())


def _write(path: Path, saved: _Saved) -> None:
    """Write a file, one array after the other, so that memory for one of them suffices."""
    head = {
        "step": saved.step,
        "seconds": saved.seconds,
        "running": saved.running,
        "losses": saved.losses,
        "changes": saved.changes,
        "arrays": list(saved.arrays),
        "stopped": [
            {"key": key, **{name: getattr(one, name) for name in OUTCOME}}
            for key, one in saved.stopped.items()
        ],
    }
    with path.open("wb") as stream, zipfile.ZipFile(stream, "w") as archive:
        _put(archive, HEAD, np.frombuffer(json.dumps(head).encode(), np.uint8))
        for name, array in saved.arrays.items():
            _put(archive, ROWS + name, array)
        for number, one in enumerate(saved.stopped.values()):
            _put(archive, f"{STOPPED}{number}", one.image)


OUTCOME = ("loss", "change", "stopped", "seconds")  # of a picture that has stopped


def _put(archive: zipfile.ZipFile, name: str, array: Array) -> None:
    values = array if isinstance(array, np.ndarray) else array.asnumpy()
    with archive.open(f"{name}.npy", "w", force_zip64=True) as stream:
        np.lib.format.write_array(stream, values, allow_pickle=False)


def _read(path: Path) -> _Saved:
    """Return the content of a file, which is empty if there is none or if it is damaged."""
    if not path.exists():
        return _Saved()
    try:
        if not _is_snapshot(path):
            raise ValueError("it is not a snapshot")
        with path.open("rb") as stream:
            return _content(stream)
    except DAMAGE as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())[:200]
        log.warning("the snapshot %s is damaged (%s): ignored", brief(path), reason)
        return _Saved()


def _content(stream: BinaryIO) -> _Saved:
    with np.load(stream, allow_pickle=False) as archive:
        head: Mapping[str, Any] = json.loads(archive[HEAD].tobytes())
        arrays: Dict[str, Array] = {name: archive[ROWS + name] for name in head["arrays"]}
        stopped = {
            row["key"]: Descent(archive[f"{STOPPED}{n}"], **{name: row[name] for name in OUTCOME})
            for n, row in enumerate(head["stopped"])
        }
    saved = _Saved(
        step=int(head["step"]),
        seconds=float(head["seconds"]),
        running=list(head["running"]),
        losses=list(head["losses"]),
        changes=list(head["changes"]),
        arrays=arrays,
        stopped=stopped,
    )
    count = len(saved.running)
    shape = np.shape(arrays["image"]) if count else ()
    for array in arrays.values():
        if np.shape(array) not in ((count,), shape):
            raise ValueError(f"an array has the shape {np.shape(array)}")
    if not len(saved.losses) == len(saved.changes) == count or saved.step < 1:
        raise ValueError("its numbers do not fit together")
    for one in stopped.values():
        if np.ndim(one.image) != 3 or one.stopped == "interrupted":
            raise ValueError("a picture has not stopped")
    return saved
