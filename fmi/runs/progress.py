"""Progress: how far a sweep has come, told by the files in its folder from any process."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Dict, Iterator, List, Mapping, Optional, Sequence, Tuple

from fmi import files
from fmi.errors import InputError, brief
from fmi.runs.store import Store

__all__ = ["LayerProgress", "Panel", "Progress", "progress", "running", "save_panels"]

PANELS = "panels.json"
RUNNING = "running"  # a lock that is held by the process that works on the sweep
ATTEMPTS, AGAIN = 3, 0.1  # to get it, and seconds between; looking at it holds it for a moment


@dataclass(frozen=True)
class Panel:
    """A panel of a sweep.

    Attributes
    ----------
    layer
        Name of the layer.
    filter
        Number of the filter.
    picture
        Name of the content picture, which no other picture of the sweep has.
    key
        Its name in the store.
    """

    layer: str
    filter: int
    picture: str
    key: str

    def __str__(self) -> str:
        return f"{self.layer}:{self.filter} {self.picture}"


@dataclass(frozen=True)
class LayerProgress:
    """How many panels of a layer there are, and how many of them are done."""

    panels: int
    done: int


@dataclass(frozen=True)
class Progress:
    """How far a sweep has come.

    Attributes
    ----------
    panels, done
        Number of panels, and how many of them the store has.
    running
        Whether a process works on it.
    per_minute
        Panels that were done in a minute since that process began; ``None`` if there is none.
    seconds_left
        About how long it will still take, in which a panel counts by its cost; ``None`` if nothing
        is known about that.
    layers
        The same numbers for each layer.
    """

    panels: int
    done: int
    running: bool
    per_minute: Optional[float]
    seconds_left: Optional[float]
    layers: Mapping[str, LayerProgress]


def save_panels(
    folder: Path, store: Path, panels: Sequence[Panel], costs: Mapping[str, float]
) -> None:
    """Write which panels a sweep has, for :func:`progress`.

    Parameters
    ----------
    folder
        Folder of the sweep.
    store
        Folder of its store.
    panels
        All panels.
    costs
        The cost of a panel of each layer (:func:`fmi.runs.plan.cost`).

    Raises
    ------
    InputError
        If the file cannot be written.
    """
    rows = [asdict(panel) for panel in panels]
    where = os.path.relpath(store, folder) if folder in store.parents else str(store.resolve())
    files.save_json(folder / PANELS, {"panels": rows, "costs": dict(costs), "store": where})


@contextlib.contextmanager
def running(folder: Path) -> Iterator[None]:
    """Tell inside a ``with`` statement that this process works on the sweep in a folder.

    Raises
    ------
    InputError
        If another process does.
    """
    path = folder / RUNNING
    with contextlib.ExitStack() as stack:
        for _ in range(ATTEMPTS):
            if stack.enter_context(files.locked(path, wait=False)):
                break
            time.sleep(AGAIN)
        else:
            raise InputError(
                f"another process works on the sweep in {brief(folder)}: fmi status {brief(folder)}"
                " tells how far it has come"
            )
        began = datetime.datetime.now(datetime.timezone.utc).isoformat()
        text = json.dumps({"began": began, "process": os.getpid()})
        try:
            path.write_text(text, encoding="utf-8")
        except OSError as error:
            raise InputError(f"{brief(path)} cannot be written: {error.strerror}") from None
        yield


def progress(folder: Path) -> Progress:
    """Return how far the sweep in a folder has come; nothing is written.

    Raises
    ------
    InputError
        If the folder holds no sweep.
    """
    panels, costs, store = _read(folder)
    when = {panel: store.when(panel.key) for panel in panels}
    done = [panel for panel, time in when.items() if time is not None]
    began = _began(folder)
    per_minute = left = None
    if began is not None:
        passed = (datetime.datetime.now(datetime.timezone.utc) - began).total_seconds()
        recent = [panel for panel, time in when.items() if time is not None and time >= began]
        if recent and passed > 0:
            per_minute = 60 * len(recent) / passed
            missing = [panel for panel, time in when.items() if time is None]
            spent = sum(costs[panel.layer] for panel in recent)
            left = passed * sum(costs[panel.layer] for panel in missing) / spent
    layers = {}
    for name in costs:
        own = [panel for panel in panels if panel.layer == name]
        layers[name] = LayerProgress(len(own), len([p for p in own if when[p] is not None]))
    return Progress(len(panels), len(done), began is not None, per_minute, left, layers)


def _read(folder: Path) -> Tuple[List[Panel], Dict[str, float], Store]:
    """Return the panels of a sweep, the cost of one of each layer, and the store."""
    path = folder / PANELS
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        panels = [Panel(**row) for row in content["panels"]]
        costs = {panel.layer: float(content["costs"][panel.layer]) for panel in panels}
        if not panels:
            raise ValueError
        return panels, costs, Store(folder / content["store"])
    except FileNotFoundError:
        raise InputError(
            f"{brief(folder)} holds no sweep: there is no {PANELS}; fmi sweep FILE RESULTS=DIR"
            " begins one"
        ) from None
    except OSError as error:
        raise InputError(f"{brief(path)} cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise InputError(
            f"{brief(path)} is damaged; fmi sweep with the same arguments writes it anew"
        ) from None


def _began(folder: Path) -> Optional[datetime.datetime]:
    """Return when the process that works on the sweep began, or ``None`` if there is none."""
    path = folder / RUNNING
    if not files.is_locked(path):
        return None
    try:
        began = json.loads(path.read_text(encoding="utf-8"))["began"]
        return datetime.datetime.fromisoformat(began)
    except (OSError, ValueError, KeyError, TypeError):  # it begins at this moment
        return datetime.datetime.now(datetime.timezone.utc)
