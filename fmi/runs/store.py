"""The store of results: each inversion in a folder named by a digest of all that shapes it.

A result is a folder ``ab/abcd.../`` with the picture before and after denoising, the array, the
record, and a manifest with the digests of these files. It appears complete or not at all, so that
reading needs no lock, and any number of processes and threads can share a store. A result whose
files do not fit its manifest is removed and computed again.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import io
import json
import logging
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Mapping, Optional, Sequence, Union

import numpy as np
from PIL import Image

from fmi import files
from fmi.device.environment import cpu_name
from fmi.errors import InputError, brief
from fmi.inversion import Inversion, Keep, versions
from fmi.records import IGNORED, key, renamed, shaping

__all__ = ["DEFAULT", "VARIABLE", "Entry", "Store", "key", "open_store", "outdated", "shaping"]

log = logging.getLogger(__name__)

DEFAULT = Path("results/store")
VARIABLE = "FMI_STORE"  # environment variable that names another folder
FILES = ("picture.png", "undenoised.png", "array.npy", "record.json")
MANIFEST = "manifest.json"
NAME = re.compile("[0-9a-f]{64}")  # of a result


@dataclass(frozen=True)
class Entry:
    """A result in a store.

    Attributes
    ----------
    key
        Its name.
    record
        Its record.
    when
        Time when it was computed, in UTC.
    seconds
        Seconds that the descent took.
    bytes
        Size of its files.
    """

    key: str
    record: Mapping[str, Any]
    when: datetime.datetime
    seconds: float
    bytes: int

    @property
    def place(self) -> str:
        """Layers with filter or draw, for display."""
        layers = self.record["layers"]
        found = ",".join(layers) if len(layers) < 3 else f"{layers[0]},...,{layers[-1]}"
        if "filter" in self.record:
            found += f":{self.record['filter']}"
        return f"{found} draw {self.record['draw']}" if "draw" in self.record else found


class Store:
    """A folder of results.

    Parameters
    ----------
    folder
        The folder; it is created when the first result is added.

    Attributes
    ----------
    listeners
        Functions that are called with the key of each result that is added.
    """

    def __init__(self, folder: Union[str, Path]) -> None:
        self.folder = Path(folder)
        self.listeners: Sequence[Callable[[str], object]] = ()

    def path(self, name: str) -> Path:
        """Return the folder of the result with a key."""
        return self.folder / name[:2] / name

    @property
    def snapshots(self) -> Path:
        """The folder for snapshots of descents that have not ended."""
        return self.folder / "snapshots"

    # --- reading ---

    def intact(self, name: str) -> bool:
        """Return whether the store holds a result, and whether its files fit its manifest."""
        return self._contents(name) is not None

    def find(self, name: str) -> Optional[Inversion]:
        """Return the result with a key, or ``None`` if it is missing or damaged."""
        contents = self._contents(name)
        return None if contents is None else _inversion(contents)

    def _contents(self, name: str) -> Optional[Dict[str, bytes]]:
        """Return the files of a result, or ``None`` if one is missing or damaged."""
        folder = self.path(name)
        try:
            contents = {file: _read(folder / file) for file in (*FILES, MANIFEST)}
            manifest = json.loads(contents.pop(MANIFEST))
            right = manifest["key"] == name and manifest["digest"] == _digest(manifest)
            for file, data in contents.items():
                right &= manifest["sha256"][file] == hashlib.sha256(data).hexdigest()
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None
        return {**contents, MANIFEST: json.dumps(manifest).encode()} if right else None

    def packed(self, name: str) -> Optional[Dict[str, bytes]]:
        """Return the files of a result by name, for :meth:`unpack`; ``None`` as for `find`."""
        return self._contents(name)

    def entries(self) -> Iterator[Entry]:
        """Yield all intact results, in the order of their keys."""
        for name in self.names():
            found = self.entry(name)
            if found is not None:
                yield found

    def entry(self, name: str) -> Optional[Entry]:
        """Return what is known of a result, or ``None`` if it is missing or damaged."""
        contents = self._contents(name)
        if contents is None:
            return None
        manifest = json.loads(contents[MANIFEST])
        return Entry(
            name,
            json.loads(contents["record.json"]),
            datetime.datetime.fromisoformat(manifest["when"]),
            manifest["seconds"],
            sum(map(len, contents.values())),
        )

    def when(self, name: str) -> Optional[datetime.datetime]:
        """Return when a result was computed, in UTC, without checking its files."""
        try:
            manifest = json.loads(_read(self.path(name) / MANIFEST))
            return datetime.datetime.fromisoformat(manifest["when"])
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None

    def names(self) -> List[str]:
        """Return the keys of all results, intact or not."""
        with _reported(self.folder):
            found = self.folder.glob("[0-9a-f][0-9a-f]/*")
            return sorted(one.name for one in found if _is_of(one))

    # --- writing ---

    def add(self, inversion: Inversion) -> str:
        """Add a finished result, and return its key.

        Raises
        ------
        InputError
            If it is not finished, or if the store cannot be written.
        """
        if not inversion.finished:
            raise InputError(f"an inversion that has {inversion.stopped} cannot be stored")
        name = key(inversion.record)
        if not self.intact(name):
            self._discard(name)
            self._write(name, inversion)
        self.tell(name)
        return name

    def tell(self, name: str) -> None:
        """Tell the listeners of a result that this or another process has added."""
        for listener in self.listeners:
            listener(name)

    def _write(self, name: str, inversion: Inversion) -> None:
        """Write a result under its key."""

        def fill(folder: Path) -> None:
            inversion.save(folder / FILES[0], undenoised=True, key=name)
            (folder / "picture_undenoised.png").rename(folder / FILES[1])
            (folder / "picture.json").rename(folder / FILES[3])
            (folder / FILES[2]).write_bytes(_npy(inversion.array))
            manifest = {
                "key": name,
                "when": datetime.datetime.now(datetime.timezone.utc).isoformat(),
                "seconds": inversion.seconds,
                "cpu": cpu_name(),
                "sha256": {file: files.file_digest(folder / file, "sha256") for file in FILES},
            }
            files.save_json(folder / MANIFEST, {**manifest, "digest": _digest(manifest)})

        files.write_folder(self.path(name), fill)

    def unpack(self, name: str, contents: Mapping[str, bytes]) -> None:
        """Add a result that another store has packed (:meth:`packed`), with the same bytes.

        Raises
        ------
        InputError
            If the store cannot be written.
        """
        if self.intact(name):
            return
        self._discard(name)

        def fill(folder: Path) -> None:
            for file in (*FILES, MANIFEST):
                (folder / file).write_bytes(contents[file])

        files.write_folder(self.path(name), fill)

    def remove(self, name: str) -> None:
        """Remove a result.

        Raises
        ------
        InputError
            If it cannot be removed.
        """
        files.remove(self.path(name))

    def sweep(self) -> None:
        """Remove what processes that were killed have left behind."""
        with _reported(self.folder):
            for folder in self.folder.glob("[0-9a-f][0-9a-f]"):
                files.sweep(folder)

    def tidy(self, everything: bool = False) -> None:
        """Remove locks and snapshots of finished results, which killed processes have left behind.

        Parameters
        ----------
        everything
            Whether to remove all snapshots but those of descents that run at this moment.
        """
        locks = self.folder / "locks"
        with _reported(self.folder):
            for path in locks.glob("*"):
                with files.locked(path, wait=False):  # it is removed afterwards
                    pass
            for path in self.snapshots.glob("*.npz"):
                idle = not files.is_locked(locks / path.stem)
                if idle and (everything or self.intact(path.stem)):
                    path.unlink()
            files.sweep.cache_clear()
            files.sweep(self.snapshots)
            with contextlib.suppress(OSError):  # it is not empty, or not there
                self.snapshots.rmdir()

    def _discard(self, name: str) -> None:
        """Remove what stands in the place of a result that is not intact."""
        path = self.path(name)
        if os.path.lexists(path):
            log.warning("%s was damaged and is replaced", path)
            self.remove(name)

    # --- both ---

    def obtain(
        self,
        records: Sequence[Mapping[str, Any]],
        compute: Callable[[Sequence[int], Keep], List[Inversion]],
    ) -> List[Inversion]:
        """Return the results with these records; compute and add those that are missing.

        A result that another process or thread is computing is waited for, unless that process
        ends without it.

        Parameters
        ----------
        records, compute
            As for :meth:`fmi.inversion.Keeper.obtain`.

        Raises
        ------
        InputError
            If the store cannot be written.
        """
        names = [key(record) for record in records]
        found: Dict[int, Inversion] = {}
        waits = False
        while True:
            for index, name in enumerate(names):
                if index not in found:
                    stored = self.find(name)
                    if stored is not None:
                        stored.record = renamed(stored.record, records[index])
                        found[index] = stored
            missing = [index for index in range(len(names)) if index not in found]
            if not missing:
                break
            with contextlib.ExitStack() as stack:
                mine = []
                for index in missing[:1] if waits else missing:
                    lock = self.folder / "locks" / names[index]
                    if stack.enter_context(files.locked(lock, waits)):
                        mine.append(index)
                mine = [index for index in mine if not self.intact(names[index])]
                if mine:
                    computed = compute(mine, lambda _, inversion: self._keep(inversion))
                    found.update(zip(mine, computed))
                    for inversion in computed:  # if Ctrl-C came between its end and its storing
                        if inversion.finished:
                            self.add(inversion)
                    if len(computed) < len(mine) or not all(one.finished for one in computed):
                        break
            if not mine and not waits:
                log.info("waiting for %d pictures of another process", len(missing))
            waits = not mine
        return [found[index] for index in sorted(found)]

    def _keep(self, inversion: Inversion) -> None:
        self.add(inversion)

    def export(self, inversion: Inversion, stem: Path) -> None:
        """Copy the files of a result to readable names.

        The store has the names of the pictures and of the network for which a result was computed.
        If those of `inversion` differ, they stand in the record of the copies.

        Parameters
        ----------
        inversion
            A result of this store.
        stem
            Path of the copies without suffix: ``.png``, ``_undenoised.png`` and ``.json`` are
            appended.

        Raises
        ------
        InputError
            If a copy cannot be written.
        """
        name = key(inversion.record)
        folder = self.path(name)
        with _reported(folder):
            stored = json.loads(_read(folder / "record.json"))
        if renamed(stored, inversion.record) != stored:
            inversion.save(stem.with_name(f"{stem.name}.png"), undenoised=True, key=name)
            return
        for file, suffix in zip(FILES, (".png", "_undenoised.png", None, ".json")):
            if suffix:
                _copy(folder / file, stem.with_name(f"{stem.name}{suffix}"))


def outdated(record: Mapping[str, Any]) -> bool:
    """Return whether other versions of the software have computed a result."""
    left_out = IGNORED["versions"]
    now = {name: value for name, value in versions().items() if name not in left_out}
    return shaping(record)["versions"] != now


def open_store(folder: Union[None, str, Path] = None) -> Store:
    """Return the store in a folder, or in ``FMI_STORE``, or in ``results/store``."""
    return Store(folder or os.environ.get(VARIABLE) or DEFAULT)


def _is_of(path: Path) -> bool:
    """Return whether a path is that of a result, and not of a file that does not belong there."""
    return bool(NAME.fullmatch(path.name)) and path.name.startswith(path.parent.name)


def _read(path: Path) -> bytes:
    """Return the content of a regular file; a pipe or a device might never end."""
    if not path.is_file():
        raise FileNotFoundError(path)
    return path.read_bytes()


def _npy(array: np.ndarray) -> bytes:
    """Return an array as a file; NumPy does not say why it cannot write one."""
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def _digest(manifest: Mapping[str, Any]) -> str:
    """Return a digest of the other entries of a manifest."""
    others = {name: value for name, value in manifest.items() if name != "digest"}
    return hashlib.sha256(json.dumps(others, sort_keys=True).encode()).hexdigest()


def _inversion(contents: Mapping[str, bytes]) -> Inversion:
    """Return the inversion in the files of a result."""
    record = json.loads(contents["record.json"])
    outcome = record.pop("outcome")
    loss = record.pop("loss")
    record.pop("key")
    found = Inversion(
        array=np.load(io.BytesIO(contents["array.npy"]), allow_pickle=False),
        loss=loss,
        change=outcome["change"],
        stopped=outcome["stopped"],
        record=record,
        seconds=json.loads(contents[MANIFEST])["seconds"],
        explained=outcome["explained"],
        energy_share=outcome["energy_share"],
    )
    found.image = _picture(contents["picture.png"])  # denoising takes as long as several steps
    return found


def _picture(data: bytes) -> Image.Image:
    with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
        return image.convert("RGB")


def _copy(source: Path, target: Path) -> None:
    with _reported(target):
        same = target.is_file() and target.read_bytes() == source.read_bytes()
    if not same:
        files.write_whole(target, lambda beside: shutil.copyfile(source, beside))


@contextlib.contextmanager
def _reported(path: Path) -> Iterator[None]:
    """Report errors of the operating system as an :class:`InputError`."""
    try:
        yield
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{brief(path)} cannot be used: {reason}") from None
