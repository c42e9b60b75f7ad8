"""Measure how many jobs a second the scheduler of dask.distributed hands out.

    python -m experiments.scheduling [--jobs 10000] [--workers 64]

The jobs sleep for 5 to 100 ms. The workers are threads of this process, so that the scheduler, the
client and all workers share one core at most: a scheduler with a core of its own is faster. Prints
jobs per second, what a job takes of that core beside its sleep, and what that means for panels.
"""

from __future__ import annotations

import argparse
import logging
import random
import sys
import time
from dataclasses import dataclass
from typing import List, Optional, Sequence

import distributed  # type: ignore[import-untyped,import-not-found,unused-ignore]

from fmi.runs.sweep import TOGETHER

SLEEP = (0.005, 0.1)  # seconds of a job, at least and at most
PANEL = 1.5  # seconds of a panel: one of VGG-19 at 224 pixels takes about as long on 2 cores
MANY = 1000  # workers of a large cluster


@dataclass(frozen=True)
class Measured:
    """What was measured.

    Attributes
    ----------
    jobs, workers
        Their numbers.
    asleep
        Seconds that all jobs have slept, in total.
    seconds
        Time from the first submission to the last result.
    busy
        Seconds of a core that this process has used.
    """

    jobs: int
    workers: int
    asleep: float
    seconds: float
    busy: float

    @property
    def rate(self) -> float:
        """Jobs per second."""
        return self.jobs / self.seconds

    @property
    def least(self) -> float:
        """Seconds that it would take if jobs cost nothing but their sleep."""
        return self.asleep / self.workers

    @property
    def overhead(self) -> float:
        """Seconds of a core for each job: of scheduler, client and worker together."""
        return self.busy / self.jobs

    @property
    def most(self) -> float:
        """Jobs per second of which such a core is capable."""
        return 1 / self.overhead


def measure(jobs: int, workers: int, seed: int = 0) -> Measured:
    """Let workers of this process compute sleeping jobs."""
    chance = random.Random(seed)
    sleeps = [chance.uniform(*SLEEP) for _ in range(jobs)]
    with distributed.LocalCluster(
        n_workers=workers,
        threads_per_worker=1,
        processes=False,
        memory_limit=0,
        dashboard_address=":0",
        silence_logs=logging.CRITICAL,
    ) as cluster, distributed.Client(cluster, set_as_default=False) as client:
        began, before = time.perf_counter(), time.process_time()
        futures = client.map(time.sleep, sleeps, pure=False)
        for future in distributed.as_completed(futures, loop=client.loop):
            future.result()
        passed, busy = time.perf_counter() - began, time.process_time() - before
    return Measured(jobs, workers, sum(sleeps), passed, busy)


def lines(found: Measured) -> List[str]:
    """Return what was measured, and what it means, as lines of text."""
    panels, jobs = MANY / PANEL, MANY / PANEL / TOGETHER
    return [
        f"{found.jobs} jobs on {found.workers} workers: {found.seconds:.1f} s, at least"
        f" {found.least:.1f} s for the sleep alone; {found.rate:.0f} jobs per second",
        f"overhead: {1000 * found.overhead:.2f} ms of a core for each job, so at most"
        f" {found.most:.0f} jobs per second",
        f"{MANY} workers with panels of {PANEL} s: {panels:.0f} panels per second, which are"
        f" {jobs:.0f} jobs of {TOGETHER} panels: {100 * jobs / found.most:.0f} % of a core",
        f"the scheduler is the limit from {found.most * PANEL:.0f} workers on with jobs of one"
        f" panel, from {found.most * PANEL * TOGETHER:.0f} with jobs of {TOGETHER}",
    ]


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Measure, and print the result."""
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n", maxsplit=1)[0])
    parser.add_argument("--jobs", type=int, default=10_000)
    parser.add_argument("--workers", type=int, default=64)
    chosen = parser.parse_args(arguments)
    for line in lines(measure(chosen.jobs, chosen.workers)):
        sys.stdout.write(f"{line}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
