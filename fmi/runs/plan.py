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

__all__ = ["GAIN", "START", "Pace", "cost", "longest", "measured", "processes", "serial_share"]

# The least gain that is worth several processes. They share caches and memory, so that forecasts
# were up to .14 too good on two cores of an AMD EPYC (Zen 4): python -m experiments.processes.
GAIN = 0.05
START = 4.0  # seconds until a process has imported MXNet, loaded the network and checked all jobs


@dataclass
class Pace:
    """How fast one process with all threads has computed some panels.

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
def measured(threads: int) -> Iterator[Pace]:
    """Measure what is computed inside a ``with`` statement by this process.

    Other programs on the same cores count little: where the time that this thread and the busiest
    other one have spent on a core is shorter than the time that has passed, it is taken instead.

    Parameters
    ----------
    threads
        The number of threads that could have been busy.
    """
    found = Pace()
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


def longest(costs: Sequence[float], number: int) -> float:
    """Return the cost of the busiest of some processes, each of which takes the next task.

    >>> longest([3, 3, 2, 2, 2], 2)
    7.0
    """
    loads: List[float] = [0.0] * number
    for value in sorted(costs, reverse=True):
        loads[loads.index(min(loads))] += value
    return max(loads)


def serial_share(busy: float, threads: int) -> float:
    """Return the part of the work that only one thread can do, by Amdahl's law."""
    return min(1.0, (1 / busy - 1) / (threads - 1)) if threads > 1 and busy > 0 else 0.0


def processes(costs: Sequence[float], seconds: float, busy: float, threads: int, most: int) -> int:
    """Return the number of processes that compute some tasks soonest.

    `n` processes have ``threads // n`` threads each, of which each does its share of what is not
    serial (:func:`serial_share`); the busiest process decides (:func:`longest`). Several processes
    are chosen if they are expected to end sooner by :data:`GAIN`, with :data:`START` counted.

    Parameters
    ----------
    costs
        Cost of each task, which one process computes from its beginning to its end.
    seconds
        Time that one process with all threads needs for a task of cost 1.
    busy
        Share of the threads that are busy then.
    threads
        The number of threads that there may be in all processes together.
    most
        The largest number of processes, such as those that the memory has room for.
    """
    serial = serial_share(busy, threads)

    def expected(number: int) -> float:
        parts = threads // number
        slower = (serial + (1 - serial) / parts) / (serial + (1 - serial) / threads)
        return longest(costs, number) * seconds * slower + (START if number > 1 else 0)

    best = min(range(1, max(1, min(threads, len(costs), most)) + 1), key=expected)
    return best if expected(best) <= (1 - GAIN) * expected(1) else 1
