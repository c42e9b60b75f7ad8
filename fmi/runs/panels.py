"""Panels: the pictures of a figure, taken from the store or computed."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import List, Sequence, Tuple

import numpy as np
from tqdm.auto import tqdm

from fmi import files
from fmi.call import in_one_line
from fmi.errors import InputError
from fmi.inversion import Inversion
from fmi.request import Request
from fmi.runs import store as stores
from fmi.runs.store import Store

__all__ = ["Job", "compute", "distinct"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """The panels that one request computes.

    Attributes
    ----------
    request
        The request.
    stems
        For each of its pictures, the path of the readable copy in the results folder, without
        suffix.
    """

    request: Request
    stems: Tuple[str, ...]


def compute(
    figure: str, jobs: Sequence[Job], store: Store, results: Path
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
    names = [[stores.key(record) for record in job.request.records] for job in jobs]
    missing = [sum(not store.intact(name) for name in row) for row in names]
    log.info("%s: %d of %d panels to compute", figure, sum(missing), sum(map(len, names)))
    panels, diverged = [], []
    with tqdm(total=sum(missing), desc=figure, unit="panel", disable=None) as bar:
        for job, count in zip(jobs, missing):
            found = in_one_line(job.request.compute)()
            for inversion, stem in zip(found, job.stems):
                _write(inversion, store, results / stem)
                if inversion.stopped == "diverged":
                    diverged.append(stem)
            if any(one.stopped == "interrupted" for one in found):
                raise KeyboardInterrupt
            if len(found) < len(job.stems):
                diverged += job.stems[len(found) :]  # behind it in a chain
            panels.append([np.asarray(one.image) for one in found if one.finished])
            bar.update(count)
    if diverged:
        raise InputError(
            f"{len(diverged)} of {sum(map(len, names))} panels diverged: {', '.join(diverged[:5])}"
            f"{' ...' if len(diverged) > 5 else ''}; reduce LEARNING_RATE or CLIP (their last good"
            f" pictures are in {results}, as ..._diverged.png)"
        )
    return panels


def _write(inversion: Inversion, store: Store, stem: Path) -> None:
    """Write the readable files of a panel."""
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
