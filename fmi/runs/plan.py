"""The plan of a figure: which panels are computed together, how long they take, by how many.

The rule stands in :func:`processes`. Several processes with one thread each do the work of one
process with all threads in less time where threads have to wait for each other: while pictures are
denoised and written, between the many short operations of a small network, and on many cores.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from typing import Iterator, List, Sequence

from fmi.device import environment
from fmi.networks.base import Network

__all__ = [
    "GAIN",
    "START",
    "Measured",
    "Pace",
    "Work",
    "cost",
    "longest",
    "measured",
    "processes",
]

# The least gain that is worth several processes, which take several times the memory. On two cores
# of an AMD EPYC (Zen 4), python -m experiments.processes: see docs/speed.md.
GAIN = 0.05
# Seconds until a process has imported MXNet, loaded the network and checked all jobs: 2.0 to 2.8 s
# of a core were measured, for the embedded network, VGG-16 and VGG-19.
START = 3.0


@dataclass
class Measured:
    """How one process with all threads has computed some panels.

    Attributes
    ----------
    seconds
        Time that it took.
    busy
        Share of the threads that were busy, 0 to 1.
    """

    seconds: float = 0.0
    busy: float = 1.0


@contextlib.contextmanager
def measured(threads: int) -> Iterator[Measured]:
    """Measure what is computed inside a ``with`` statement by this process.

    Other programs on the same cores count little: where the time that this thread and the busiest
    other one have spent on a core is shorter than the time that has passed, it is taken instead.

    Parameters
    ----------
    threads
        The number of threads that could have been busy.
    """
    found = Measured()
    began, before = time.perf_counter(), environment.thread_seconds()
    yield found
    passed, after = time.perf_counter() - began, environment.thread_seconds()
    spent = {name: value - before.get(name, 0.0) for name, value in after.items()}
    own = spent.pop(environment.thread_name(), 0.0)
    path = min(passed, own + max(spent.values(), default=0.0))
    found.seconds = passed
    found.busy = min(1.0, (own + sum(spent.values())) / (threads * path)) if path else 1.0


def cost(network: Network, layers: Sequence[str], height: int, width: int) -> float:
    """Return about how long a step takes, on a scale of its own.

    It is the number of multiplications of the convolutions up to the deepest layer, if all kernels
    have the same size.

    Parameters
    ----------
    network, layers
        Where the code is taken from.
    height, width
        Size of the picture in pixels.
    """
    sizes, deepest = network.sizes(height, width), network.deepest(layers)
    total, channels = 0.0, 3
    for layer in network.layers:
        if layer.kind == "convolution":
            rows, columns = sizes.get(layer.name, (0, 0))
            total += channels * layer.channels * rows * columns
        channels = layer.channels
        if layer.name == deepest:
            break
    return total or float(height * width)


def longest(seconds: Sequence[float], number: int) -> float:
    """Return how long the busiest of some processes works, each of which takes the next task.

    >>> longest([3, 3, 2, 2, 2], 2)
    7.0
    """
    loads: List[float] = [0.0] * number
    for value in sorted(seconds, reverse=True):
        loads[loads.index(min(loads))] += value
    return max(loads)


@dataclass(frozen=True)
class Work:
    """Panels that one process computes from the beginning to the end.

    Attributes
    ----------
    panels
        Their number.
    cost
        The sum of their costs (:func:`cost`).
    """

    panels: int
    cost: float


@dataclass(frozen=True)
class Pace:
    """How long panels take.

    What only one thread can do is about the same for each panel, such as denoising and the
    beginnings of operations; what all threads share grows with the cost.

    Attributes
    ----------
    serial
        Seconds for each panel that only one thread can work.
    shared
        Seconds of one thread for a cost of 1 that all threads can share.
    """

    serial: float
    shared: float

    @classmethod
    def of(cls, work: Work, seconds: float, busy: float, threads: int) -> Pace:
        """Return the pace at which one process has computed panels.

        Parameters
        ----------
        work
            The panels.
        seconds
            Time that they took.
        busy
            Share of the threads that were busy, 0 to 1.
        threads
            The number of threads.
        """
        serial = 0.0
        if threads > 1:  # seconds = serial + shared / threads; busy threads seconds = their sum
            serial = seconds * min(1.0, threads * (1 - busy) / (threads - 1))
        shared = threads * (seconds - serial)
        return cls(serial / work.panels, shared / work.cost)

    def seconds(self, work: Work, threads: int) -> float:
        """Return how long a process with some threads takes for panels."""
        return work.panels * self.serial + work.cost * self.shared / threads


def processes(works: Sequence[Work], pace: Pace, threads: int, most: int) -> int:
    """Return the number of processes that compute some panels soonest.

    `n` processes have ``threads // n`` threads each, and the busiest of them decides
    (:func:`longest`). Several processes are chosen if they are expected to end sooner by
    :data:`GAIN`, with :data:`START` counted. The threads of the last process do not become more
    when the others have ended, as MXNet takes their number when it is imported; that cores are
    idle then is counted too.

    Parameters
    ----------
    works
        What is computed.
    pace
        How long panels take.
    threads
        The number of threads that there may be in all processes together.
    most
        The largest number of processes, such as those that the memory has room for.
    """

    def expected(number: int) -> float:
        each = [pace.seconds(work, threads // number) for work in works]
        return longest(each, number) + (START if number > 1 else 0)

    best = min(range(1, max(1, min(threads, len(works), most)) + 1), key=expected)
    return best if expected(best) <= (1 - GAIN) * expected(1) else 1
