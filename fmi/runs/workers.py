"""Worker processes: they compute panels into the store, watched by the process that draws.

A worker is a new Python process (:mod:`fmi.runs.worker`), because MXNet must not be forked and
takes its number of threads when it is imported. It reads the experiment and one task after the
other from a connection, and ends when the connection is closed, also if the process that draws has
been killed.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing.connection
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Callable, Dict, List, Sequence, Set, Tuple, cast

from fmi import files
from fmi.errors import InputError
from fmi.runs.experiment import Experiment
from fmi.runs.store import Store

__all__ = [
    "Begin",
    "Done",
    "Exhausted",
    "Failed",
    "Filled",
    "Kept",
    "Said",
    "Task",
    "fill",
]

log = logging.getLogger(__name__)

PATIENCE = 5.0  # seconds until a worker that should end is killed; a step may take as long
COMMAND = "import sys; sys.path[:] = {path!r}; from fmi.runs import worker; worker.main({handle})"


# --- what the process that draws sends ---


@dataclass(frozen=True)
class Begin:
    """The first message: the experiment, and the level of the log."""

    experiment: Experiment
    level: int


@dataclass(frozen=True)
class Task:
    """Panels that one worker computes; ``None`` instead of a task lets it end.

    Attributes
    ----------
    job
        Number of the job in the figure.
    keys
        Keys of the panels, which are some of the job, or all of them in the order of a chain.
    panels
        How many of them the store lacks.
    cost
        About how long these take (:func:`fmi.runs.plan.cost`).
    """

    job: int
    keys: Tuple[str, ...]
    panels: int
    cost: float


# --- what a worker sends ---


@dataclass(frozen=True)
class Said:
    """A line for the log."""

    logger: str
    level: int
    text: str


@dataclass(frozen=True)
class Kept:
    """The store has a panel."""

    key: str


@dataclass(frozen=True)
class Done:
    """A task has ended, with the path of each panel that was written and of those that diverged."""

    written: Tuple[str, ...]
    diverged: Tuple[str, ...]


@dataclass(frozen=True)
class Failed:
    """A task cannot be computed because of what the person has given."""

    text: str


@dataclass(frozen=True)
class Exhausted:
    """A worker ends because it has too little memory, or other networks or pictures."""

    text: str


@dataclass
class Filled:
    """What workers have done.

    Attributes
    ----------
    written
        Paths of the panels whose readable copies are written, without suffix.
    diverged
        Paths of the panels that have diverged.
    """

    written: Set[str] = field(default_factory=set)
    diverged: Set[str] = field(default_factory=set)


class _Worker:
    """A worker, seen from the process that draws."""

    def __init__(self, begin: Begin, threads: int) -> None:
        self.task: Any = None  # the one that it computes
        self.reason = ""  # why it ends, if it says so
        self._errors = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115
        ours, theirs = multiprocessing.connection.Pipe()
        self.connection = cast("Connection[Any, Any]", ours)
        with theirs:
            handle = theirs.fileno()
            self._process = subprocess.Popen(
                [sys.executable, "-c", COMMAND.format(path=sys.path, handle=handle)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._errors,
                pass_fds=[handle],
                env={**os.environ, "OMP_NUM_THREADS": str(threads)},
                start_new_session=True,  # Ctrl-C on a terminal is for the process that draws
            )
        self.send(begin)

    def send(self, message: Any) -> None:
        """Send a message; if the worker has ended, receiving tells why."""
        with contextlib.suppress(OSError):
            self.connection.send(message)

    def why(self) -> str:
        """Return why a worker has ended whose connection is closed."""
        try:
            status = self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            return "it does not respond"
        if self.reason:
            return self.reason
        if status < 0:
            return f"signal {-status}; the system does so if memory is exhausted"
        self._errors.seek(0)
        lines = [line.strip() for line in self._errors.read().splitlines() if line.strip()]
        return f"status {status}{f', {lines[-1][:200]}' if lines else ''}"

    def leave(self) -> None:
        """Close the connection, so that the worker ends."""
        self.connection.close()

    def end(self, patience: float) -> bool:
        """Wait for its end, or else kill it; return whether it was killed."""
        killed = False
        try:
            self._process.wait(max(0.0, patience))
        except subprocess.TimeoutExpired:
            killed = True
        finally:  # also after another Ctrl-C
            self._process.kill()
            self._process.wait()
            self._errors.close()
        return killed


def fill(
    experiment: Experiment,
    store: Store,
    tasks: Sequence[Task],
    number: int,
    threads: int,
    kept: Callable[[str], object],
) -> Filled:
    """Let workers compute tasks into the store, the longest first.

    If a worker is lost, such as by too little memory, its task is given to another one, and the
    number of workers is smaller from then on. If all are lost, some tasks are not computed.

    Parameters
    ----------
    experiment
        The experiment with everything resolved that depends on the machine.
    store
        The store.
    tasks
        The tasks.
    number
        Number of workers.
    threads
        Number of threads of each.
    kept
        Function that is called with the key of each panel as soon as the store has it.

    Raises
    ------
    InputError
        If a task cannot be computed; finished panels are in the store.
    KeyboardInterrupt
        After Ctrl-C; finished panels are in the store, and all workers have ended.
    """
    waiting = sorted(tasks, key=lambda task: task.cost)  # the last one is the next
    result = Filled()
    workers: Dict[Connection[Any, Any], _Worker] = {}
    begin = Begin(experiment, logging.getLogger().getEffectiveLevel())
    try:
        for _ in range(number):
            try:
                worker = _Worker(begin, threads)
            except OSError as error:
                log.warning("a worker process cannot be started (%s)", error.strerror)
                break
            workers[worker.connection] = worker
            _next(worker, waiting)
        while any(worker.task for worker in workers.values()):
            for connection in multiprocessing.connection.wait(list(workers)):
                worker = workers[cast("Connection[Any, Any]", connection)]
                try:
                    message = worker.connection.recv()
                except (EOFError, OSError):
                    _lost(worker, workers, waiting)
                    continue
                if isinstance(message, Said):
                    logging.getLogger(message.logger).log(message.level, "%s", message.text)
                elif isinstance(message, Kept):
                    kept(message.key)
                elif isinstance(message, Exhausted):
                    worker.reason = message.text
                elif isinstance(message, Failed):
                    raise InputError(message.text)
                elif isinstance(message, Done):
                    result.written.update(message.written)
                    result.diverged.update(message.diverged)
                    _next(worker, waiting)
    finally:
        _end(list(workers.values()), store, experiment.results_folder)
    return result


def _next(worker: _Worker, waiting: List[Task]) -> None:
    """Give a worker the next task, or let it end."""
    worker.task = waiting.pop() if waiting else None
    worker.send(worker.task)


def _lost(
    worker: _Worker, workers: Dict[Connection[Any, Any], _Worker], waiting: List[Task]
) -> None:
    """Take the task of a worker that has ended back."""
    del workers[worker.connection]
    try:
        if worker.task:
            waiting.append(worker.task)
            others = [other for other in workers.values() if other.task]
            log.warning(
                "a worker process has ended (%s); continuing with %s",
                worker.why(),
                len(others) or "this process alone",
            )
    finally:
        worker.leave()
        worker.end(PATIENCE)


def _end(workers: Sequence[_Worker], store: Store, results: Path) -> None:
    """End all workers at once, kill those that do not end, and remove what these leave behind."""
    for worker in workers:
        worker.leave()
    last = time.monotonic() + PATIENCE
    try:
        killed = [worker.end(last - time.monotonic()) for worker in workers]
    finally:
        for worker in workers:
            worker.end(0)
    if any(killed):
        store.sweep()
        store.tidy()
        for folder in (results, *filter(Path.is_dir, results.glob("*"))):  # copies of panels
            files.sweep(folder)
