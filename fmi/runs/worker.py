"""A worker process: it computes tasks of a figure into the store (see :mod:`fmi.runs.workers`)."""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import signal
import threading
import time
from multiprocessing.connection import Connection
from typing import Any, Callable, FrozenSet, List, Mapping, Optional, Sequence

import numpy as np

from fmi.call import in_one_line
from fmi.device.mxnet import mx
from fmi.errors import InputError
from fmi.inversion import Inversion, Keep
from fmi.runs import figures, panels
from fmi.runs import store as stores
from fmi.runs import sweep as sweeps
from fmi.runs.panels import Job
from fmi.runs.store import Store
from fmi.runs.sweep import Sweep
from fmi.runs.workers import Begin, Done, Exhausted, Failed, Kept, Said, Task

__all__ = ["Share", "main"]

AGAIN = 2.0  # seconds until the interrupt is repeated, which Python swallows in some places
ATTEMPTS = 5  # before the process is ended in the middle of what it does


class Share(Store):
    """The store of a worker, which computes only the panels that it is told to.

    Attributes
    ----------
    wanted
        Keys of these panels.
    """

    def __init__(self, store: Store) -> None:
        super().__init__(store.folder)
        self.wanted: FrozenSet[str] = frozenset()

    def obtain(
        self,
        records: Sequence[Mapping[str, Any]],
        compute: Callable[[Sequence[int], Keep], List[Inversion]],
    ) -> List[Inversion]:
        """Return the wanted results among those with these records, as the store does."""
        rows = [row for row, record in enumerate(records) if stores.key(record) in self.wanted]
        return super().obtain(
            [records[row] for row in rows],
            lambda mine, keep: compute([rows[index] for index in mine], keep),
        )


class _Orders:
    """The tasks, received by a thread that interrupts the process if the connection is closed."""

    def __init__(self, connection: Connection[Any, Any]) -> None:
        self._connection = connection
        self._tasks: queue.Queue[Optional[Task]] = queue.Queue()
        threading.Thread(target=self._receive, daemon=True).start()

    def next(self) -> Optional[Task]:
        """Wait for the next task; ``None`` means that there is none."""
        return self._tasks.get()

    def _receive(self) -> None:
        with contextlib.suppress(EOFError, OSError):
            while True:
                task = self._connection.recv()
                self._tasks.put(task)
                if task is None:
                    return
        for _ in range(ATTEMPTS):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(AGAIN)
        os._exit(1)


class _Sender(logging.Handler):
    """Sends what is logged; the process that draws has already said it until the first task."""

    def __init__(self, send: Callable[[Any], None]) -> None:
        super().__init__()
        self.send = send
        self.silent = True

    def emit(self, record: logging.LogRecord) -> None:
        """Send a record."""
        if not self.silent:
            self.send(Said(record.name, record.levelno, record.getMessage()))


class _Ended(Exception):
    """There are no more tasks."""


class _Run(figures.Run):
    """A figure of which only tasks are computed."""

    def __init__(
        self, begin: Begin, connection: Connection[Any, Any], send: Callable[[Any], None]
    ) -> None:
        super().__init__(begin.experiment)
        self._orders = _Orders(connection)
        self._send = send
        self._log = _Sender(send)
        logging.getLogger().addHandler(self._log)
        logging.getLogger().setLevel(begin.level)
        self.store = self._share = Share(self.store)
        self.store.listeners = (lambda key: send(Kept(key)),)

    @property
    def begun(self) -> bool:
        """Whether it has begun with a task."""
        return not self._log.silent

    def panels(self, jobs: Sequence[Job]) -> List[List[np.ndarray]]:
        """Compute tasks until there are no more, instead of all panels."""
        while True:
            task = self._orders.next()
            if task is None:
                raise _Ended
            self._log.silent = False
            self._send(self._compute(jobs, task))

    def _compute(self, jobs: Sequence[Job], task: Task) -> Done:
        names = jobs[task.job].names if task.job < len(jobs) else []
        if not set(task.keys) <= set(names):
            raise _Unlike("it has found another network or other pictures")
        self._share.wanted = frozenset(task.keys)
        job = jobs[task.job]
        stems = [stem for name, stem in zip(names, job.stems) if name in self._share.wanted]
        found = in_one_line(job.request.compute)()
        job.request.call.release()  # a sweep has hundreds of jobs
        if job.request.call.interrupted or any(one.stopped == "interrupted" for one in found):
            raise KeyboardInterrupt
        for inversion, stem in zip(found, stems):
            panels.write(inversion, self.store, self.results / stem)
        diverged = [stem for one, stem in zip(found, stems) if one.stopped == "diverged"]
        behind = stems[len(found) :]  # in a chain
        return Done(tuple(stems), (*diverged, *behind))


class _Unlike(Exception):
    """The panels are not those of the process that draws."""


def main(handle: int) -> None:
    """Compute tasks until the connection with this file descriptor is closed."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    connection: Connection[Any, Any] = Connection(handle)

    def send(message: Any) -> None:
        with contextlib.suppress(OSError):  # nobody listens any more: the interrupt is on its way
            connection.send(message)

    run: Optional[_Run] = None
    try:
        run = _Run(connection.recv(), connection, send)
        if isinstance(run.experiment, Sweep):
            run.panels(sweeps.jobs(run))
        else:
            figures.blocks(run)
    except (_Ended, KeyboardInterrupt, EOFError):
        pass
    except (_Unlike, MemoryError) as error:
        send(Exhausted(str(error) or "out of memory"))
    except InputError as error:
        if isinstance(error.__cause__, mx.MXNetError):
            send(Exhausted("out of memory"))
        elif run is None or not run.begun:  # the process that draws could use what was given
            send(Exhausted(str(error)))
        else:
            send(Failed(str(error)))
    connection.close()
