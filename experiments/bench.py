"""Time fmi beside the loop of 2016 and PyTorch, and tell how far it is from what the CPU can do.

    python -m experiments.bench [--quick] [--layers relu3_2,relu5_1] [--long-edge 512] ...

Every contender (experiments/contenders.py) runs in a process of its own, all on the same random
weights of VGG-19's full width; one computes at a time. They take turns of a few steps, round by
round, so that a machine that becomes slower becomes so for all; products of large matrices, which
tell what the CPU can do, take turns with them. Prints tables, and writes bench.json and bench.png.

A contender's share of the peak is the arithmetic of its convolutions (the way to the code and
the way back to the picture; that of the weights' gradients, which only the loop of 2016
computes, is not useful and does not count) over the time of its whole step, over the peak in its
own number format.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Mapping, Optional, Sequence, Tuple

import numpy as np

from experiments.contenders import CONTENDERS, PRODUCTS, Job
from fmi.errors import FmiError, InputError, unknown

HERE = Path(__file__).parent
SIZE = (512, 383)  # width and height of the paper's Golden Gate Bridge as the 2016 code resizes it
FORMATS = ("float32", "bfloat16")
GIGA = 1e9
GROWTH_ROUNDS = 2
# Of Fig. 3, for the time until preset "fast" reaches the last loss of "code".
PANELS = ("PICTURES=skimage:coffee", "LONG_EDGE=256", "LAYERS=relu2_2,relu3_2", "FILTERS=0,1")
QUICK_PANELS = ("WEIGHTS=embedded", PANELS[0], "LONG_EDGE=64", "LAYERS=relu2_2", "FILTERS=0")
BUSY = 0.5  # load before the start, above which a person is warned


@dataclass(frozen=True)
class Growth:
    """Which pictures, batches and layers the growth tables go through.

    Attributes
    ----------
    edges
        Long edges in pixels, at `layer`.
    layer
        Of `edges` and `batches`.
    batches
        Pictures at once, at a long edge of `batch_edge`.
    layers
        Layers, at a long edge of `layer_edge`.
    """

    edges: Tuple[int, ...]
    layer: str
    batches: Tuple[int, ...]
    batch_edge: int
    layers: Tuple[str, ...]
    layer_edge: int


@dataclass(frozen=True)
class Plan:
    """Everything that a run depends on.

    Attributes
    ----------
    layers
        A table for each.
    long_edge
        Of the tables' picture, in pixels.
    filters
        Of each convolution of a block; fewer than VGG-19's for a quick look.
    rounds, steps
        Turns of a contender, and steps of a turn that count.
    side
        Of the square matrices.
    growth
        ``None``: no growth tables.
    """

    layers: Tuple[str, ...]
    long_edge: int
    filters: Tuple[int, ...]
    rounds: int
    steps: int
    side: int
    growth: Optional[Growth]


FULL = Plan(
    layers=("relu3_2", "relu5_1"),
    long_edge=SIZE[0],
    filters=(64, 128, 256, 512, 512),
    rounds=4,
    steps=3,
    side=4096,
    growth=Growth(
        edges=(128, 192, 256, 384, 512, 768, 1024),
        layer="relu3_2",
        batches=(1, 2, 4, 5, 8, 16),
        batch_edge=256,
        layers=("relu1_2", "relu2_2", "relu3_2", "relu4_2", "relu5_2"),
        layer_edge=512,
    ),
)
QUICK = Plan(
    layers=("relu2_2",),
    long_edge=64,
    filters=(16, 16, 16, 16, 16),
    rounds=2,
    steps=2,
    side=256,
    growth=Growth(
        edges=(64, 96),
        layer="relu2_2",
        batches=(1, 2),
        batch_edge=64,
        layers=("relu1_2",),
        layer_edge=64,
    ),
)


# --- arithmetic ---


def size(long_edge: int) -> Tuple[int, int]:
    """Height and width of a picture of :data:`SIZE`'s shape."""
    return long_edge * SIZE[1] // SIZE[0], long_edge


def job(contender: str, layer: str, long_edge: int, filters: Tuple[int, ...], **more: Any) -> Job:
    """A contender's job, checked.

    Raises
    ------
    InputError
        If there is no such layer, or nothing would be left of the picture there.
    """
    from fmi.networks.topology import VGG19

    height, width = size(long_edge)
    if layer not in VGG19.layers:
        raise unknown("layer", layer, VGG19.layers)
    side = VGG19.smallest_side(layer)
    if min(height, width) < side:
        raise InputError(
            f"a picture of {width} x {height} pixels is too small for {layer}, which needs"
            f" {side} on each side"
        )
    layers = VGG19.layers[: VGG19.layers.index(layer) + 1]
    return Job(contender, layers, filters, height, width, **more)


def flops(work: Job) -> int:
    """Floating-point operations of a step's convolutions: to the code and back to the picture.

    ``2 * 9 * C_in * C_out * H * W`` for each convolution, and the same for the gradient for what
    goes into it.
    """
    height, width, channels, total = work.height, work.width, 3, 0
    for name in work.layers:
        if name.startswith("conv"):
            count = work.filters[int(name[4]) - 1]
            total += 2 * 9 * channels * count * height * width
            channels = count
        elif name.startswith("pool"):
            height, width = height // 2, width // 2
    return 2 * total * work.batch


def exponent(amounts: Sequence[float], values: Sequence[float]) -> Optional[float]:
    """The e of the least-squares fit ``value = a * amount ** e``; ``None`` from fewer than 2."""
    usable = [(a, v) for a, v in zip(amounts, values) if a > 0 and v > 0]
    if len({a for a, _ in usable}) < 2:
        return None
    logs = np.log(usable)
    return float(np.polyfit(logs[:, 0], logs[:, 1], 1)[0])


def ratio(over: Optional[float], under: Optional[float]) -> Optional[float]:
    """``over / under``, or ``None`` where one of them was not measured."""
    return over / under if over is not None and under else None


# --- the children ---


class LeftOut(Exception):
    """A contender cannot run, or no longer; the message says why."""


class Child:
    """A contender's process, seen from here."""

    def __init__(self, work: Job) -> None:
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115  # close() closes it
        self._process = subprocess.Popen(
            [sys.executable, "-m", "experiments.contenders", work.to_json()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            universal_newlines=True,
            cwd=HERE.parent,
        )

    def answer(self) -> Dict[str, Any]:
        """Wait for the end of a turn.

        Raises
        ------
        LeftOut
            If the child says that it cannot, or has died.
        """
        line = self._process.stdout.readline() if self._process.stdout else ""
        if not line:
            status = self._process.wait()
            self._errors.seek(0)
            said = [text for text in self._errors.read().splitlines() if text.strip()]
            killed = f"was killed by signal {-status}" if status < 0 else f"ended with {status}"
            raise LeftOut(f"{killed}{f': {said[-1]}' if said else ''}")
        reply: Dict[str, Any] = json.loads(line)
        if "left_out" in reply:
            raise LeftOut(reply["left_out"])
        return reply

    def turn(self, steps: int) -> Dict[str, Any]:
        """Let the child make so many steps that count; its answer."""
        if self._process.stdin:
            with contextlib.suppress(BrokenPipeError):  # answer() finds out why
                self._process.stdin.write(f"{steps}\n")
                self._process.stdin.flush()
        return self.answer()

    def close(self) -> None:
        """End the process, whatever it is doing."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._errors):
            if stream:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()


@contextlib.contextmanager
def children() -> Iterator[Dict[str, Child]]:
    """A dictionary of children, all of which are ended at the end."""
    running: Dict[str, Child] = {}
    try:
        yield running
    finally:
        for child in running.values():
            child.close()


def race(jobs: Mapping[str, Job], rounds: int, steps: int) -> Tuple[Dict[str, Any], Dict[str, str]]:
    """Let contenders take turns.

    Parameters
    ----------
    jobs
        By a name of the caller's.
    rounds, steps
        Turns each, and steps a turn that count.

    Returns
    -------
    dict
        By name: what :func:`summary` makes of its turns.
    dict
        By name: why a contender was left out.
    """
    turns: Dict[str, List[Dict[str, Any]]] = {}
    left_out: Dict[str, str] = {}
    with children() as running:

        def attempt(name: str, begins: bool) -> None:
            try:
                if begins:
                    running[name], turns[name] = Child(jobs[name]), []
                    running[name].answer()  # it has warmed up
                else:
                    turns[name].append(running[name].turn(steps))
            except LeftOut as reason:
                left_out[name] = str(reason)
                del turns[name]
                running.pop(name).close()

        for name in jobs:
            tell(f"{name}: starting")
            attempt(name, begins=True)
        for turn in range(1, rounds + 1):
            for name in list(running):
                tell(f"round {turn} of {rounds}: {name}")
                attempt(name, begins=False)
    tell("")
    return {name: summary(answers) for name, answers in turns.items()}, left_out


def summary(turns: Sequence[Mapping[str, Any]]) -> Dict[str, Any]:
    """What a contender's turns come to.

    Returns
    -------
    dict
        ``seconds`` of every step that counts, their ``median``, ``min`` and ``max``; ``cores``,
        how many were busy on the average, waiting threads that spin included; ``peak_mb``, the
        most memory that the process took, and ``base_mb``, what it had before the network.
    """
    seconds = [value for turn in turns for value in turn["seconds"]]
    cpu = [value for turn in turns for value in turn["cpu_seconds"]]
    return {
        "seconds": seconds,
        "median": statistics.median(seconds),
        "min": min(seconds),
        "max": max(seconds),
        "cores": sum(cpu) / sum(seconds),
        "peak_mb": turns[-1]["peak_mb"],
        "base_mb": turns[-1]["base_mb"],
    }


def tell(text: str) -> None:
    """Show on a terminal what is going on; the line is overwritten by the next."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\033[K{text}")
        sys.stderr.flush()


# --- the measurements ---


def table_of(layer: str, plan: Plan) -> Dict[str, Any]:
    """All contenders at one layer, as plain data."""
    work = job("", layer, plan.long_edge, plan.filters, side=plan.side)
    names = {**{name: name for name in CONTENDERS}, **{f"product {n}": n for n in PRODUCTS}}
    jobs = {name: replace(work, contender=contender) for name, contender in names.items()}
    found, left_out = race(jobs, plan.rounds, plan.steps)
    products = {n: found.pop(f"product {n}") for n in PRODUCTS if f"product {n}" in found}
    operations = 2 * plan.side**3
    for product in products.values():
        product["gflops"] = operations / product["median"] / GIGA
    peaks = {form: best_product(products, form) for form in FORMATS}
    for name, result in found.items():
        form = replace(work, contender=name).precision
        result["precision"] = form
        result["gflops"] = flops(work) / result["median"] / GIGA
        peak = peaks[form]
        result["share_of_peak"] = ratio(result["gflops"], peak["gflops"] if peak else None)
        for other in FORMATS:
            fmi = found.get(f"fmi {other}")
            result[f"over_fmi_{other}"] = ratio(result["median"], fmi and fmi["median"])
    return {
        "cpu": machine()["cpu"],
        "layer": layer,
        "height": work.height,
        "width": work.width,
        "batch": work.batch,
        "flops": flops(work),
        "contenders": found,
        "left_out": left_out,
        "products": products,
        "peaks": peaks,
    }


def best_product(products: Mapping[str, Mapping[str, Any]], form: str) -> Optional[Dict[str, Any]]:
    """The fastest matrix product in a number format: whose it is, and its GFLOP/s."""
    rates = {name: value["gflops"] for name, value in products.items() if form in name}
    if not rates:
        return None
    name = max(rates, key=lambda key: rates[key])
    return {"by": name, "gflops": rates[name]}


def growth_jobs(plan: Plan, form: str) -> Dict[str, List[Job]]:
    """The jobs of fmi behind each growth table."""
    growth, name = plan.growth, f"fmi {form}"
    if growth is None:
        return {}
    filters, layer = plan.filters, growth.layer
    return {
        "pixels": [job(name, layer, edge, filters) for edge in growth.edges],
        "batch": [job(name, layer, growth.batch_edge, filters, batch=b) for b in growth.batches],
        "layers": [job(name, chosen, growth.layer_edge, filters) for chosen in growth.layers],
    }


def growth_of(plan: Plan, form: str) -> Dict[str, Any]:
    """The growth tables of fmi in one number format, as plain data.

    Every point has a process of its own, so that its peak of memory is its own; the points of a
    table take turns. ``memory_mb`` is the peak less what the process had before the network was
    built.
    """
    result: Dict[str, Any] = {"left_out": {}}
    for name, works in growth_jobs(plan, form).items():
        jobs = {point_name(work): work for work in works}
        found, left_out = race(jobs, GROWTH_ROUNDS, plan.steps)
        result["left_out"].update(left_out)
        result[name] = [growth_point(jobs[key], found[key]) for key in jobs if key in found]
    pixels = [point["pixels"] for point in result["pixels"]]
    result["time_exponent"] = exponent(pixels, [p["median"] for p in result["pixels"]])
    result["memory_exponent"] = exponent(pixels, [p["memory_mb"] for p in result["pixels"]])
    return result


def point_name(work: Job) -> str:
    """A point of the growth tables in words."""
    size_ = f"{work.width} x {work.height}"
    return f"{work.contender}, {work.layer}, {size_}, batch {work.batch}"


def growth_point(work: Job, found: Mapping[str, Any]) -> Dict[str, Any]:
    """A point of the growth tables."""
    return {
        **found,
        "layer": work.layer,
        "width": work.width,
        "height": work.height,
        "pixels": work.width * work.height,
        "batch": work.batch,
        "flops": flops(work),
        "gflops": flops(work) / found["median"] / GIGA,
        "per_picture": found["median"] / work.batch,
        "memory_mb": found["peak_mb"] - found["base_mb"],
    }


def machine() -> Dict[str, Any]:
    """What a time depends on besides the program."""
    from fmi.device import environment

    def said(path: str, word: str) -> Optional[str]:
        with contextlib.suppress(OSError):
            for line in Path(path).read_text().splitlines():
                if line.startswith(word):
                    return line.partition(":")[2].strip()
        return None

    def version(package: str) -> Optional[str]:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            return importlib.metadata.version(package)
        return None

    flags = environment.cpu_flags()
    wanted = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")
    return {
        "cpu": "{} (family {}, model {})".format(
            *(said("/proc/cpuinfo", word) for word in ("model name", "cpu family", "model\t"))
        ),
        "cores": len(os.sched_getaffinity(0)),
        "flags": [flag for flag in wanted if flag in flags],
        "memory": said("/proc/meminfo", "MemTotal"),
        "load_before": os.getloadavg()[0],
        "omp_num_threads": os.environ.get("OMP_NUM_THREADS"),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": {p: version(p) for p in ("mxnet", "mxnet-cu112", "torch", "numpy")},
    }


def measure(plan: Plan, show: Callable[[Sequence[str]], object]) -> Dict[str, Any]:
    """The whole benchmark, as plain data.

    Parameters
    ----------
    plan
        What to measure.
    show
        Takes the lines of each table as soon as it is there.

    Raises
    ------
    InputError
        If the plan has a layer that does not exist or is too deep for its picture.
    """
    for layer in plan.layers:
        job("", layer, plan.long_edge, plan.filters)
    for form in FORMATS:
        growth_jobs(plan, form)  # the mistakes before the work
    result: Dict[str, Any] = {"machine": machine(), "plan": asdict(plan)}
    show(machine_lines(result["machine"]))
    result["layers"] = []
    for layer in plan.layers:
        table = table_of(layer, plan)
        result["layers"].append(table)
        show(layer_lines(table))
    result["growth"] = {}
    for form in FORMATS if plan.growth else ():
        result["growth"][form] = growth_of(plan, form)
        show(growth_lines(form, result["growth"][form]))
    amx = "amx_bf16" in result["machine"]["flags"]
    result["targets"] = targets(result["layers"], result["growth"], targets_apply(plan), amx)
    show(target_lines(result["targets"], plan))
    return result


# --- targets ---

SPEED = {  # what is wanted at least, at 512 x 383 pixels and batch 1
    "relu3_2": {"torch float32": 1.15, "torch bfloat16": 1.2, "2016": 5, "bfloat16 peak": 0.35},
    "relu5_1": {"torch float32": 1.0, "torch bfloat16": 1.2, "2016": 6, "bfloat16 peak": 0.4},
}
LOOP_WITHOUT_AMX = 2.5  # in place of "2016": bfloat16 is at most twice as fast as float32 then
PEAK_FLOAT32 = 0.7
OUTSIDE = 0.03
EXPONENT = 1.05


def better(found: Mapping[str, Mapping[str, Any]], form: str) -> Optional[str]:
    """PyTorch's faster memory layout: the contender's name."""
    names = [name for name in found if name.startswith(f"PyTorch {form}")]
    return min(names, key=lambda name: found[name]["median"]) if names else None


def targets_apply(plan: Plan) -> bool:
    """Whether a run is of the size that the targets are for."""
    return (plan.long_edge, plan.filters) == (FULL.long_edge, FULL.filters)


def targets(
    tables: Sequence[Mapping[str, Any]],
    growth: Mapping[str, Mapping[str, Any]],
    apply: bool,
    amx: bool,
) -> List[Dict[str, Any]]:
    """What is wanted beside what was measured.

    Parameters
    ----------
    tables, growth
        Of :func:`measure`.
    apply
        Whether to say if targets are ``met``; if not, or where nothing was measured, that is
        ``None``.
    amx
        Whether the CPU has AMX.
    """
    rows: List[Dict[str, Any]] = []

    def row(what: str, where: str, value: Optional[float], sign: str, wanted: float) -> None:
        met = None
        if apply and value is not None:
            met = value >= wanted if sign == ">=" else value <= wanted
        limit = f"{sign} {wanted:g}"
        rows.append({"what": what, "where": where, "value": value, "wanted": limit, "met": met})

    for table in tables:
        layer, found = table["layer"], table["contenders"]
        wanted = SPEED.get(layer)
        if wanted is None:
            continue
        median = {name: result["median"] for name, result in found.items()}
        share = {name: result["share_of_peak"] for name, result in found.items()}
        for form in FORMATS:
            best, fmi = better(found, form), median.get(f"fmi {form}")
            value = ratio(median[best], fmi) if best else None
            row(f"{best or f'PyTorch {form}'} / fmi", layer, value, ">=", wanted[f"torch {form}"])
        value = ratio(median.get("2016 loop"), median.get("fmi bfloat16"))
        least = wanted["2016"] if amx else LOOP_WITHOUT_AMX
        row("2016 loop / fmi bfloat16", layer, value, ">=", least)
        row("fmi float32, of peak", layer, share.get("fmi float32"), ">=", PEAK_FLOAT32)
        row(
            "fmi bfloat16, of peak", layer, share.get("fmi bfloat16"), ">=", wanted["bfloat16 peak"]
        )
        for form in FORMATS:
            alone = ratio(median.get(f"fmi {form}, network alone"), median.get(f"fmi {form}"))
            value = None if alone is None else 1 - alone
            row(f"fmi {form}, outside the network", layer, value, "<=", OUTSIDE)
    for form, tables_ in growth.items():
        where = f"fmi {form}"
        row("exponent of time against pixels", where, tables_["time_exponent"], "<=", EXPONENT)
        row("exponent of memory against pixels", where, tables_["memory_exponent"], "<=", EXPONENT)
        each = {point["batch"]: point["per_picture"] for point in tables_["batch"]}
        row("a picture in a batch of 5 / alone", where, ratio(each.get(5), each.get(1)), "<=", 1)
    return rows


# --- the report ---


def number(value: Optional[float], form: str) -> str:
    """A number for a table; a dash where there is none."""
    return "-" if value is None or not math.isfinite(value) else format(value, form)


def aligned(rows: Sequence[Sequence[str]]) -> List[str]:
    """Lines of a table: the first column to the left, the others to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths))
        ).rstrip()
        for row in rows
    ]


def layer_lines(table: Mapping[str, Any]) -> List[str]:
    """The table of one layer."""
    head = ("", "median ms", "min - max", "/ fmi f32", "/ fmi bf16", "of peak", "GFLOP/s")
    rows: List[Sequence[str]] = [(*head, "cores", "MB")]
    for name, result in table["contenders"].items():
        milliseconds = {key: f"{1e3 * result[key]:.1f}" for key in ("median", "min", "max")}
        rows.append(
            (
                name,
                milliseconds["median"],
                f"{milliseconds['min']} - {milliseconds['max']}",
                number(result["over_fmi_float32"], ".2f"),
                number(result["over_fmi_bfloat16"], ".2f"),
                number(result["share_of_peak"], ".1%"),
                number(result["gflops"], ".0f"),
                number(result["cores"], ".2f"),
                number(result["peak_mb"], ".0f"),
            )
        )
    title = (
        f"{table['layer']}, {table['width']} x {table['height']} pixels, batch {table['batch']}:"
        f" {table['flops'] / GIGA:.3g} GFLOP a step, on {table['cpu']}"
    )
    lines = [title, *aligned(rows), *rival_lines(table["contenders"])]
    return [*lines, *peak_lines(table["peaks"]), *left_out_lines(table["left_out"])]


def rival_lines(found: Mapping[str, Mapping[str, Any]]) -> List[str]:
    """How many times as long as fmi PyTorch takes with its better memory layout."""
    lines = []
    for form in FORMATS:
        best, fmi = better(found, form), found.get(f"fmi {form}")
        if best and fmi:
            times = found[best]["median"] / fmi["median"]
            lines.append(f"{best} takes {times:.2f} times as long as fmi {form}")
    return lines


def peak_lines(peaks: Mapping[str, Optional[Mapping[str, Any]]]) -> List[str]:
    """What the peak is in each number format and whose product it is."""
    return [
        f"peak in {form}: {found['gflops']:.0f} GFLOP/s, the matrix product of {found['by']}"
        if found
        else f"peak in {form}: not measured"
        for form, found in peaks.items()
    ]


def left_out_lines(left_out: Mapping[str, str]) -> List[str]:
    """Who could not run, and why."""
    return [f"left out: {name}: {reason}" for name, reason in left_out.items()]


GROWTH_TITLES = {"pixels": "growth with pixels", "batch": "with the batch", "layers": "with depth"}


def growth_lines(form: str, tables: Mapping[str, Any]) -> List[str]:
    """The growth tables of one number format."""
    lines = []
    for name, title in GROWTH_TITLES.items():
        head = ("layer", "pixels", "batch", "median ms", "ms a picture", "GFLOP/s", "MB")
        rows: List[Sequence[str]] = [head]
        for point in tables[name]:
            rows.append(
                (
                    point["layer"],
                    f"{point['width']} x {point['height']}",
                    str(point["batch"]),
                    f"{1e3 * point['median']:.1f}",
                    f"{1e3 * point['per_picture']:.1f}",
                    f"{point['gflops']:.0f}",
                    f"{point['memory_mb']:.0f}",
                )
            )
        lines += [f"fmi {form}: {title}", *aligned(rows), ""]
    exponents = (number(tables[f"{what}_exponent"], ".3f") for what in ("time", "memory"))
    lines.append("exponents against pixels: time {}, memory {}".format(*exponents))
    return lines + left_out_lines(tables["left_out"])


def target_lines(rows: Sequence[Mapping[str, Any]], plan: Plan) -> List[str]:
    """What is wanted beside what was measured."""
    if not rows:
        return []
    outcome = {True: "met", False: "NOT met", None: ""}
    cells: List[Sequence[str]] = [("target", "", "measured", "wanted", "")]
    for row in rows:
        measured = number(row["value"], ".3f")
        cells.append((row["what"], row["where"], measured, row["wanted"], outcome[row["met"]]))
    note = f"The targets are for {SIZE[0]} x {SIZE[1]} pixels and full width, not for these times."
    return aligned(cells) if targets_apply(plan) else [note, *aligned(cells)]


def machine_lines(facts: Mapping[str, Any]) -> List[str]:
    """The machine in one line, and a warning if others were at work on it."""
    versions = ", ".join(f"{name} {v}" for name, v in facts["versions"].items() if v)
    units = ", ".join(flag for flag in facts["flags"] if flag.endswith("bf16"))
    units = units or "no instructions for bfloat16"
    lines = [f"{facts['cpu']}, {facts['cores']} cores, {units}; {versions}"]
    if facts["load_before"] > BUSY:
        load = f"{facts['load_before']:.1f}"
        lines.append(f"warning: others were at work here (load {load}); the times mean little")
    return lines


def show(lines: Sequence[str]) -> None:
    """Print a table and an empty line."""
    if lines:
        sys.stdout.write("\n".join([*lines, "", ""]))
        sys.stdout.flush()


def draw(result: Mapping[str, Any], path: Path) -> None:
    """Write the plot: bars for the contenders, curves for the growth."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    from fmi import files

    rows = 2 if result["growth"] else 1
    figure = pyplot.figure(figsize=(18, 5 * rows), layout="constrained")
    parts = figure.subfigures(rows, 1, squeeze=False)[:, 0]
    top = parts[0].subplots(1, 3, sharey=True)
    bars(top[0], result["layers"], "median", 1e3, "ms a step (median)", "%.4g")
    bars(top[1], result["layers"], "share_of_peak", 1, "share of the peak", "%.2f")
    bars(top[2], result["layers"], "peak_mb", 1, "MB at peak, libraries included", "%.0f")
    top[0].legend(loc="best", fontsize=8)
    top[1].set_xlim(0, 1.12)
    if result["growth"]:
        curves(parts[1].subplots(1, 4), result["growth"])
    files.write_whole(path, lambda beside: figure.savefig(beside, format="png", dpi=100))
    pyplot.close(figure)


def bars(
    axis: Any, tables: Sequence[Mapping[str, Any]], key: str, factor: float, title: str, form: str
) -> None:
    """Horizontal bars, a group for each contender, a bar for each layer."""
    names = list(dict.fromkeys(name for table in tables for name in table["contenders"]))
    places = np.arange(len(names), dtype=float)
    thick = 0.8 / len(tables)
    for index, table in enumerate(tables):
        found = table["contenders"]
        there = [i for i, name in enumerate(names) if name in found and found[name][key]]
        values = [factor * found[names[i]][key] for i in there]
        at = places[there] + thick * (index - (len(tables) - 1) / 2)
        drawn = axis.barh(at, values, thick, label=table["layer"])
        axis.bar_label(drawn, fmt=form, size=7)
    axis.set_yticks(places)
    axis.set_yticklabels(names, fontsize=8)
    axis.set_ylim(len(names) - 0.5, -0.5)  # the first on top
    axis.margins(x=0.12)
    axis.set_title(title)


def curves(axes: Sequence[Any], growth: Mapping[str, Mapping[str, Any]]) -> None:
    """Time and memory against pixels, time a picture against the batch, time against depth."""
    by_time, by_memory, by_batch, by_depth = axes
    for form, tables in growth.items():
        points = tables["pixels"]
        pixels = [point["pixels"] for point in points]
        label = f"{form}, exponent {number(tables['time_exponent'], '.2f')}"
        by_time.loglog(pixels, [1e3 * point["median"] for point in points], "o-", label=label)
        label = f"{form}, exponent {number(tables['memory_exponent'], '.2f')}"
        by_memory.loglog(pixels, [point["memory_mb"] for point in points], "o-", label=label)
        points = tables["batch"]
        each = [1e3 * point["per_picture"] for point in points]
        by_batch.plot([point["batch"] for point in points], each, "o-", label=form)
        points = tables["layers"]
        times = [1e3 * point["median"] for point in points]
        by_depth.plot([point["layer"] for point in points], times, "o-", label=form)
    by_time.set(xlabel="pixels", title="fmi: ms a step")
    by_memory.set(xlabel="pixels", title="fmi: MB from the network on")
    by_batch.set(xlabel="batch", title="fmi: ms a step and picture", ylim=(0, None))
    by_depth.set(xlabel="layer", title="fmi: ms a step", ylim=(0, None))
    for axis in axes:
        axis.legend(fontsize=8)


# --- the command line ---


def words(text: str) -> Tuple[str, ...]:
    """A list with commas between."""
    return tuple(word for word in text.split(",") if word)


def numbers(text: str) -> Tuple[int, ...]:
    """A list of whole numbers above 0 with commas between."""
    return tuple(count(word) for word in words(text))


def count(text: str) -> int:
    """A whole number above 0."""
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} should be a whole number above 0")
    return int(text)


def parsed(arguments: Optional[Sequence[str]]) -> argparse.Namespace:
    """The command line's values; ``None`` where nothing was given."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], prog="bench")
    parser.add_argument("--quick", action="store_true", help="a small network, few steps")
    parser.add_argument("--out", type=Path, default=Path("results/bench"), help="results/bench")
    parser.add_argument("--layers", type=words, help=f"a table each ({','.join(FULL.layers)})")
    parser.add_argument("--long-edge", type=count, help=f"pixels ({FULL.long_edge})")
    parser.add_argument("--filters", type=numbers, help="of each of the five blocks (64,128,...)")
    parser.add_argument("--rounds", type=count, help=f"turns of a contender ({FULL.rounds})")
    parser.add_argument("--steps", type=count, help=f"of a turn that count ({FULL.steps})")
    parser.add_argument("--side", type=count, help=f"of the matrices of the peak ({FULL.side})")
    parser.add_argument("--no-growth", action="store_true", help="the tables of contenders only")
    return parser.parse_args(arguments)


def planned(chosen: argparse.Namespace) -> Plan:
    """The plan that the command line asks for.

    Raises
    ------
    InputError
        If there are no layers, or not five numbers of filters.
    """
    plan = QUICK if chosen.quick else FULL
    names = ("layers", "long_edge", "filters", "rounds", "steps", "side")
    given: Dict[str, Any] = {name: getattr(chosen, name) for name in names}
    plan = replace(plan, **{name: value for name, value in given.items() if value is not None})
    if chosen.no_growth:
        plan = replace(plan, growth=None)
    if not plan.layers:
        raise InputError("--layers names no layer, such as relu3_2")
    if len(plan.filters) != len(FULL.filters):
        raise InputError(f"--filters should have {len(FULL.filters)} numbers, one for each block")
    return plan


def make_folder(path: Path) -> None:
    """Make the folder for the results.

    Raises
    ------
    InputError
        If that is not possible, or it cannot be written to.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--out {path}: {error.strerror}") from None
    if not os.access(path, os.W_OK):
        raise InputError(f"--out {path} cannot be written to")


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Measure, print, write; the exit status is 2 for a mistake in the input, 130 for Ctrl-C."""
    chosen = parsed(arguments)
    try:
        from fmi import files

        plan = planned(chosen)
        make_folder(chosen.out)  # not after all the work
        result = measure(plan, show)
        if plan.growth:
            from experiments import processes  # imports this module

            cases = processes.QUICK if chosen.quick else processes.FULL
            networks = processes.NETWORKS[:1] if chosen.quick else processes.NETWORKS
            rows, left_out = processes.measure(networks, cases)
            result["processes"] = [asdict(row) for row in rows]
            show([*processes.lines(rows), *left_out])
            from experiments import presets, tiles

            found = tiles.measure("auto", tiles.QUICK if chosen.quick else tiles.FULL)
            result["tiles"] = [asdict(row) for row in found]
            show(tiles.lines(found))
            result["presets"] = presets.measure(QUICK_PANELS if chosen.quick else PANELS)
            show(["presets code and fast, the same loss:", presets.in_less_time(result["presets"])])
        files.save_json(chosen.out / "bench.json", result)
        draw(result, chosen.out / "bench.png")
    except FmiError as error:
        sys.stderr.write(f"bench: {error}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write("bench: interrupted\n")
        return 130
    sys.stdout.write(f"{chosen.out / 'bench.json'}\n{chosen.out / 'bench.png'}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
