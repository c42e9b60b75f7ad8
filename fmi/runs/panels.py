"""Panels: the pictures of a figure, taken from the store or computed."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Dict, Iterable, List, Optional, Sequence, Set, Tuple

import numpy as np
from tqdm.auto import tqdm

from fmi import files
from fmi.call import in_one_line
from fmi.device import environment, variables
from fmi.device.mxnet import free_memory
from fmi.errors import InputError
from fmi.inversion import Inversion
from fmi.records import renamed
from fmi.request import Request
from fmi.runs import plan
from fmi.runs import store as stores
from fmi.runs.experiment import Experiment
from fmi.runs.store import Store
from fmi.runs.workers import Task, fill

__all__ = ["Bar", "Job", "Team", "compute", "distinct", "shared_out", "write"]

log = logging.getLogger(__name__)

MEMORY_SHARE = 0.8  # share of the free memory that worker processes may use


@dataclass(frozen=True)
class Job:
    """The panels that one request computes.

    Attributes
    ----------
    request
        The request.
    stems
        For each of its pictures, the path of the readable copy in the results folder, without
        suffix; empty if there are to be no copies.
    """

    request: Request
    stems: Tuple[str, ...]

    @property
    def names(self) -> List[str]:
        """The keys of its panels in the store."""
        return [stores.key(record) for record in self.request.records]

    @property
    def chained(self) -> bool:
        """Whether each panel but the first needs the one before it."""
        return any(place.before is not None for place in self.request.places)

    @property
    def cost(self) -> float:
        """The cost of each of its panels (:func:`fmi.runs.plan.cost`)."""
        call = self.request.call
        return plan.cost(call.network, call.layers, *call.size)


@dataclass(frozen=True)
class Team:
    """What worker processes need to compute panels beside this process.

    Attributes
    ----------
    experiment
        The experiment with everything resolved that depends on the machine.
    number
        Number of processes; ``None`` lets :func:`fmi.runs.plan.processes` choose it.
    """

    experiment: Experiment
    number: Optional[int] = None


class Bar(tqdm):
    """A progress bar on which each panel counts by its cost, so that the time left is right."""

    def __init__(self, figure: str, costs: Sequence[Tuple[str, float]]) -> None:
        self._left: Dict[str, List[float]] = {}
        for name, cost in costs:  # two pictures with the same pixels have the same keys
            self._left.setdefault(name, []).append(cost)
        self._panels, self._counted = len(costs), 0
        form = "{l_bar}{bar}| [{elapsed}<{remaining}{postfix}]"
        total = sum(cost for _, cost in costs)
        super().__init__(total=total, desc=figure, bar_format=form, smoothing=0, disable=None)

    def count(self, names: Iterable[str]) -> None:
        """Count panels, each once."""
        new = [cost for name in names for cost in self._left.pop(name, ())]
        self._counted += len(new)
        self.set_postfix_str(f"{self._counted} of {self._panels} panels", refresh=False)
        self.update(sum(new))


def compute(
    figure: str, jobs: Sequence[Job], store: Store, results: Path, team: Optional[Team] = None
) -> List[List[np.ndarray]]:
    """Return the panels of all jobs, and write readable copies of them.

    Parameters
    ----------
    figure
        Name of the figure, for the log and the progress bar.
    jobs
        The jobs; their requests use `store`.
    store
        The store that holds the panels.
    results
        Folder for the copies.
    team
        If given, worker processes may compute some of the panels into the store.

    Returns
    -------
    list of list of numpy.ndarray
        For each job, its pictures (H, W, 3) uint8 RGB.

    Raises
    ------
    InputError
        If panels have diverged; all others are in the store.
    KeyboardInterrupt
        After Ctrl-C; finished panels are in the store.
    """
    for folder in (store.folder, results):
        files.prepare(folder)  # rather than fail after hours
    store.tidy()
    names = [job.names for job in jobs]
    missing = [[name for name in row if not store.intact(name)] for row in names]
    total = sum(map(len, names))
    log.info("%s: %d of %d panels to compute", figure, sum(map(len, missing)), total)
    tasks = [task for n, job in enumerate(jobs) for task in _tasks(n, job, names[n], missing[n])]
    panels: Dict[int, List[np.ndarray]] = {}
    written: Set[str] = set()
    diverged: Set[str] = set()

    def finish(number: int) -> None:
        """Compute what the store lacks of a job, and write the copies."""
        job = jobs[number]
        found = in_one_line(job.request.compute)()
        for inversion, stem in zip(found, job.stems):
            if stem not in written:
                write(inversion, store, results / stem)
                written.add(stem)
            if inversion.stopped == "diverged":
                diverged.add(stem)
        if job.request.call.interrupted or any(one.stopped == "interrupted" for one in found):
            raise KeyboardInterrupt
        diverged.update(job.stems[len(found) :])  # behind it in a chain
        panels[number] = [np.asarray(one.image) for one in found if one.finished]
        bar.count(names[number])  # also those that another process has computed

    costs = [(name, jobs[n].cost) for n, row in enumerate(missing) for name in row]
    with Bar(figure, costs) as bar:
        store.listeners = (lambda name: bar.count([name]),)
        number, rest = (1, tasks) if team is None else shared_out(team, jobs, tasks, finish)
        if team and number > 1:
            threads = max(1, int(variables.threads()) // number)
            plural = "" if threads == 1 else "s"
            log.info("%s: %d processes with %d thread%s each", figure, number, threads, plural)
            done = fill(team.experiment, store, rest, number, threads, store.tell)
            written.update(done.written)
            diverged.update(done.diverged)
        for n, job in enumerate(jobs):
            if not diverged.intersection(job.stems):
                if n not in panels:
                    finish(n)
                continue
            # What is finished beside the diverged.
            for record, stem in zip(job.request.records, job.stems):
                found = None if stem in written else store.find(stores.key(record))
                if found is not None:
                    found.record = renamed(found.record, record)
                    write(found, store, results / stem)
    store.tidy()  # after workers that were killed
    if diverged:
        stems = [stem for job in jobs for stem in job.stems if stem in diverged]
        raise InputError(
            f"{len(stems)} of {total} panels diverged: {', '.join(stems[:5])}"
            f"{' ...' if len(stems) > 5 else ''}; reduce LEARNING_RATE or CLIP (their last good"
            f" pictures are in {results}, as ..._diverged.png)"
        )
    return [panels[n] for n in range(len(jobs))]


def _tasks(number: int, job: Job, names: Sequence[str], missing: Sequence[str]) -> List[Task]:
    """Return the tasks of a job: a chain, or single panels, so that all processes have work."""
    if job.chained and missing:
        return [Task(number, tuple(names), len(missing), job.cost * len(missing))]
    return [Task(number, (name,), 1, job.cost) for name in missing]


def shared_out(
    team: Team, jobs: Sequence[Job], tasks: List[Task], finish: Callable[[int], None]
) -> Tuple[int, List[Task]]:
    """Return how many processes compute the panels, and the tasks that are left to them.

    Unless the number is given, the job with the smallest cost is finished by this process, which
    tells how fast it is and how well it uses the cores.

    Parameters
    ----------
    team
        The number of processes, if it is given.
    jobs, tasks
        All jobs, and the tasks of those of which something is missing.
    finish
        Function that computes the job with a number in this process.
    """
    if team.number is not None or not tasks:
        return min(team.number or 1, len(tasks)), tasks
    threads = int(variables.threads())
    first = min(tasks, key=lambda task: task.cost).job
    with plan.measured(threads) as found:
        finish(first)
    done = [task for task in tasks if task.job == first]
    rest = [task for task in tasks if task.job != first]
    if not rest:
        return 1, rest
    work = plan.Work(sum(task.panels for task in done), sum(task.cost for task in done))
    pace = plan.Pace.of(work, found.seconds, found.busy, threads)
    calls = [jobs[task.job].request.call for task in rest]
    need = max(call.network.picture_bytes(call.layers, *call.size) for call in calls)
    most = int(MEMORY_SHARE * free_memory(calls[0].ctx) / (environment.own_memory() + need))
    works = [plan.Work(task.panels, task.cost) for task in rest]
    number = plan.processes(works, pace, threads, most)
    log.debug("%.0f %% of the cores were busy; processes: %d", 100 * found.busy, number)
    return number, rest


def write(inversion: Inversion, store: Store, stem: Path) -> None:
    """Write the readable files of a panel, and log how it ended.

    Parameters
    ----------
    inversion
        A result of `store`, or one that was interrupted or has diverged.
    store
        The store.
    stem
        Path of the files without suffix.
    """
    if inversion.finished:
        store.export(inversion, stem)
    elif inversion.stopped == "diverged":
        inversion.save(stem.with_name(f"{stem.name}_diverged.png"))
    log.info(
        "%s.png: %d steps, %.0f s, stopped by %s",
        stem,
        inversion.steps,
        inversion.seconds,
        inversion.stopped,
    )


def distinct(names: Sequence[str]) -> List[str]:
    """Number names that occur more than once, so that no two files collide.

    >>> distinct(["cat", "dog", "cat"])
    ['cat_1', 'dog', 'cat_2']
    """
    found: List[str] = []
    for name in names:
        number, label = 1, name
        while label in found or (names.count(name) > 1 and label == name):
            label, number = f"{name}_{number}", number + 1
        found.append(label)
    return found
