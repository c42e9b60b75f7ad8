"""Time one process with all threads beside several processes with one thread each.

    python -m experiments.processes [--quick] [--networks embedded,vgg16-hed,vgg19]

The ratio of their throughputs, in steps of all processes per second, tells what
:func:`fmi.runs.plan.processes` can gain; networks that are not here are left out. Both take turns
of a few tenths of a second, so that a machine that slows down does so for both; the first step of
a turn does not count. About two minutes on two cores; prints a table.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Iterator, List, Optional, Sequence, Tuple

from experiments.bench import aligned, machine, machine_lines, show, words
from fmi.device import environment
from fmi.errors import FmiError, InputError

NETWORKS = ("embedded", "vgg16-hed", "vgg19")
PICTURE = "skimage:coffee"
LEAST = 0.3  # seconds of a turn


@dataclass(frozen=True)
class Case:
    """What is computed in a row of the table."""

    layer: str
    long_edge: int
    precision: str


LAYERS = ("relu1_2", "relu3_2", "relu5_1")
FULL = tuple(
    Case(layer, edge, form)
    for edge in (256, 512)
    for form in ("float32", "bfloat16")
    for layer in LAYERS
)
QUICK = (Case("relu1_2", 48, "float32"), Case("relu2_1", 48, "float32"))


@dataclass(frozen=True)
class Row:
    """A row of the table.

    Attributes
    ----------
    network, layer, long_edge, precision
        What was computed.
    one, several
        Steps per second, median of all turns: of one process, and of all processes together.
    ratio
        Median of the ratios of neighbouring turns, ``several / one``.
    low, high
        The smallest and the largest of these ratios.
    busy
        Share of the cores that the one process kept busy, without other programs on them
        (:func:`fmi.runs.plan.measured`); ``1 / busy`` is the most that several can gain.
    """

    network: str
    layer: str
    long_edge: int
    precision: str
    one: float
    several: float
    ratio: float
    low: float
    high: float
    busy: float


class _Over(Exception):
    """The turn is over."""


Answer = Tuple[int, float, float]  # steps, the seconds that they took, share of busy cores


def turn(network: object, case: Case, seconds: float) -> Answer:
    """Make steps for at least so many seconds."""
    from fmi import codes, descent, losses, pictures
    from fmi.call import Call
    from fmi.device import variables
    from fmi.runs import plan

    options = {"network": network, "settings": "fast", "ctx": "cpu", "precision": case.precision}
    options.update(long_edge=case.long_edge, steps=10_000, stop=0)
    content = {"content": pictures.find(PICTURE, [])}
    call = Call("feature_map", [case.layer], options, content)
    targets = {name: codes.isolate(values, [0]) for name, values in call.content.items()}
    loss = losses.all_codes(targets, call.settings.code_weight)
    first = call.to_device(descent.start((1, 3, *call.size), call.settings.start, 0))
    times: List[float] = []

    def tick(_: descent.State) -> None:
        times.append(time.perf_counter())
        if len(times) > 1 and times[-1] - times[0] >= seconds:
            raise _Over

    with plan.measured(int(variables.threads())) as found, contextlib.suppress(_Over):
        mean = call.network.mean
        descent.minimise(call.truncated, loss, first, call.settings, mean, tick, progress=False)
    return len(times) - 1, times[-1] - times[0], found.busy


def child(name: str) -> None:
    """Answer each line of standard input, a case and seconds, with steps and seconds."""
    from fmi.networks import catalogue

    network = catalogue.load(None, name)
    for line in sys.stdin:
        *case, seconds = json.loads(line)
        sys.stdout.write(f"{json.dumps(turn(network, Case(*case), seconds))}\n")
        sys.stdout.flush()


@contextlib.contextmanager
def children(name: str, number: int, threads: int) -> Iterator[List[subprocess.Popen[str]]]:
    """Processes that take turns together; they end with the ``with`` statement."""
    command = [sys.executable, "-m", "experiments.processes", "--child", name]
    started: List[subprocess.Popen[str]] = []
    try:
        for _ in range(number):
            started.append(
                subprocess.Popen(
                    command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    universal_newlines=True,
                    cwd=Path(__file__).parent.parent,
                    env={**os.environ, "OMP_NUM_THREADS": str(threads)},
                )
            )
        yield started
    finally:
        for process in started:
            process.kill()
            process.communicate()


def rate(
    processes: Sequence[subprocess.Popen[str]], case: Case, seconds: float
) -> Tuple[float, float]:
    """Return the steps per second of all processes together, and the share of busy cores.

    Raises
    ------
    InputError
        If a process has ended, such as one whose weights are not here.
    """
    order = json.dumps([*asdict(case).values(), seconds])
    for process in processes:
        with contextlib.suppress(BrokenPipeError):  # reading tells
            assert process.stdin is not None
            process.stdin.write(f"{order}\n")
            process.stdin.flush()
    total, shares = 0.0, []
    for process in processes:
        assert process.stdout is not None
        answer = process.stdout.readline()
        if not answer:
            raise InputError("it cannot be computed here; fmi doctor tells what is missing")
        steps, taken, busy = json.loads(answer)
        total += steps / taken
        shares.append(busy)
    return total, statistics.mean(shares)


def rows(name: str, cases: Sequence[Case], rounds: int) -> Iterator[Row]:
    """Yield the rows of a network as they are measured."""
    cores = environment.cores()
    with children(name, 1, cores) as one, children(name, cores, 1) as several:
        for case in cases:
            for processes in (one, several):
                rate(processes, case, 0)
            pairs = [(rate(one, case, LEAST), rate(several, case, LEAST)) for _ in range(rounds)]
            ratios = [together[0] / alone[0] for alone, together in pairs]
            yield Row(
                name,
                case.layer,
                case.long_edge,
                case.precision,
                one=statistics.median(alone[0] for alone, _ in pairs),
                several=statistics.median(together[0] for _, together in pairs),
                ratio=statistics.median(ratios),
                low=min(ratios),
                high=max(ratios),
                busy=statistics.median(alone[1] for alone, _ in pairs),
            )


def lines(found: Sequence[Row]) -> List[str]:
    """Return the lines of the table."""
    cores = environment.cores()
    head = (
        "network",
        "layer",
        "pixels",
        "precision",
        "one",
        str(cores),
        "ratio",
        "lowest, highest",
    )
    cells = [
        (
            *(row.network, row.layer, str(row.long_edge), row.precision),
            *(f"{row.one:.3g}", f"{row.several:.3g}", f"{row.ratio:.2f}"),
            f"{row.low:.2f}, {row.high:.2f}",
            f"{row.busy:.0%}",
        )
        for row in found
    ]
    title = f"steps per second: one process with {cores} threads, {cores} processes with one each"
    return [title, *aligned([head, *cells])]


def measure(
    networks: Sequence[str] = NETWORKS, cases: Sequence[Case] = FULL, rounds: int = 2
) -> Tuple[List[Row], List[str]]:
    """Return the table, and a line for each network that was left out."""
    table: List[Row] = []
    left_out: List[str] = []
    for name in networks:
        try:
            table += rows(name, cases, rounds)
        except InputError as error:
            left_out.append(f"left out: {name}: {error}")
    return table, left_out


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Measure and print; the exit status is 2 for a mistake in the input, 130 for Ctrl-C."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], prog="processes")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--quick", action="store_true", help="small pictures: whether it runs")
    parser.add_argument("--networks", type=words, default=NETWORKS, help=",".join(NETWORKS))
    parser.add_argument("--rounds", type=int, default=2, help="turns of each (2)")
    chosen = parser.parse_args(arguments)
    try:
        if chosen.child:
            child(chosen.child)
            return 0
        show(machine_lines(machine()))
        cases = QUICK if chosen.quick else FULL
        for name in chosen.networks:  # as soon as it is there
            table, left_out = measure([name], cases, max(1, chosen.rounds))
            show([*(lines(table) if table else []), *left_out])
    except FmiError as error:
        sys.stderr.write(f"processes: {error}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write("processes: interrupted\n")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
