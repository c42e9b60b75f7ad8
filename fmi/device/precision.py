"""Number formats: those that a network can compute in, and the one that is fastest on this CPU.

A CPU with instructions for bfloat16 is not always faster with them, so that a benchmark of about a
second decides (:mod:`fmi.device.benchmark`). Its result is kept in the user's cache, in a file for
each machine and version.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import logging
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Dict, Iterator, Optional, Union

from pydantic import TypeAdapter

from fmi import files
from fmi.device import benchmark, environment, variables
from fmi.device.benchmark import Times
from fmi.device.mxnet import AMX, Context, mx
from fmi.errors import InputError, brief, unknown

__all__ = ["PRECISIONS", "Machine", "Precision", "automatic", "choose", "times"]

log = logging.getLogger(__name__)

PRECISIONS = ("float32", "bfloat16", "float16", "auto")
FASTER = 0.95  # share of float32's time that bfloat16 may take; what is above may be chance
LARGEST = 100_000  # bytes of a file of the cache
PATIENCE = 10.0  # seconds to wait for the benchmark of another process
PAUSE = 0.05  # seconds between two looks


@dataclass(frozen=True)
class Precision:
    """A number format.

    Attributes
    ----------
    name
        ``"float32"``, ``"bfloat16"`` or ``"float16"``.
    reason
        Why ``precision="auto"`` has chosen it; empty if it was asked for by name.
    """

    name: str
    reason: str = ""


def choose(precision: Union[str, Precision], ctx: Context) -> Precision:
    """Return the number format of a network.

    Parameters
    ----------
    precision
        ``"float32"``, ``"bfloat16"`` (CPUs), ``"float16"`` (GPUs; not tested on a GPU), ``"auto"``
        (on CPUs, the result of :func:`automatic`, which is logged; on GPUs, float32), or a number
        format that has been chosen before.
    ctx
        The device.

    Raises
    ------
    InputError
        If the precision is unknown or not supported by the device.
    """
    chosen = precision if isinstance(precision, Precision) else Precision(precision)
    if chosen.name not in PRECISIONS:
        raise unknown("precision", chosen.name, PRECISIONS)
    on_cpu = ctx.device_type == "cpu"
    if chosen.name == "auto":
        chosen = automatic() if on_cpu else Precision("float32", "as on all GPUs")
        log.info("precision auto: %s (%s)", chosen.name, chosen.reason)
    if chosen.name == "bfloat16" and not (on_cpu and "avx512bw" in environment.cpu_flags()):
        raise InputError("precision='bfloat16' needs a CPU with AVX-512; use 'float32' or 'auto'")
    if chosen.name == "float16" and on_cpu:
        raise InputError("precision='float16' needs a GPU; use 'float32' or 'auto'")
    return chosen


@functools.lru_cache(maxsize=None)
def automatic() -> Precision:
    """Return the number format that is fastest on this CPU; it is found once per process.

    It is bfloat16 if MXNet may use instructions for it (``avx512_bf16`` or AMX), and if it is
    faster than float32 in a benchmark. Without such instructions, MXNet emulates bfloat16, which
    takes two to three times as long as float32.
    """
    flags = environment.cpu_flags()
    if "avx512bw" not in flags or not (AMX or "avx512_bf16" in flags):
        return Precision("float32", "MXNet finds no instructions for bfloat16 on this CPU")
    try:
        ratio = times().ratio
    except mx.MXNetError as error:
        return Precision("float32", f"the benchmark of bfloat16 failed: {_line(error)}")
    name = "bfloat16" if ratio < FASTER else "float32"
    return Precision(name, f"bfloat16 takes {ratio:.2f} of float32's time in a benchmark")


# --- the cache ---


@dataclass(frozen=True)
class Machine:
    """What the times of a benchmark depend on.

    Attributes
    ----------
    cpu, flags
        Model and feature flags of the CPU.
    amx
        Whether MXNet may use AMX.
    threads
        Number of threads of MXNet.
    variables
        Environment variables that oneDNN, MXNet and OpenMP read.
    mxnet
        Wheel and version.
    benchmark
        sha256 of the source of the benchmark.
    """

    cpu: str
    flags: str
    amx: bool
    threads: str
    variables: Dict[str, str]
    mxnet: str
    benchmark: str

    @staticmethod
    def here() -> Machine:
        """Return the machine that this process runs on."""
        read = ("DNNL_", "MKLDNN_", "MXNET_", "OMP_", "GOMP_", "KMP_")
        return Machine(
            cpu=environment.cpu_name(),
            flags=" ".join(sorted(environment.cpu_flags())),
            amx=AMX,
            threads=variables.threads(),
            variables={k: v for k, v in sorted(os.environ.items()) if k.startswith(read)},
            mxnet=f"{environment.installed_wheel()} {mx.__version__}",
            benchmark=files.file_digest(Path(benchmark.__file__), "sha256"),
        )

    @property
    def file(self) -> str:
        """The name of its file in the cache."""
        digest = hashlib.sha256(files.json_text(asdict(self)).encode()).hexdigest()
        return f"benchmark_{digest[:16]}.json"


@dataclass(frozen=True)
class _Kept:
    """The content of a file of the cache."""

    machine: Machine
    times: Times


def times() -> Times:
    """Return the times of the benchmark on this machine, from the user's cache if it holds them.

    Processes that start at the same time do not disturb each other: one of them runs the benchmark,
    and the others wait for its result.
    """
    machine, folder = Machine.here(), files.user_cache()
    if folder is None:
        log.info("there is no home directory to keep the result of the benchmark in")
        return benchmark.measure()
    path = folder / machine.file
    found = _read(path, machine)
    if found is None:
        with _alone(path.with_suffix(".lock")):
            found = _read(path, machine)
            if found is None:
                found = benchmark.measure()
                _keep(path, _Kept(machine, found))
    return found


def _read(path: Path, machine: Machine) -> Optional[Times]:
    """Return the times in a file of the cache, or ``None`` if it is missing or damaged."""
    try:
        if not path.is_file():  # a pipe might never end
            return None
        with path.open("rb") as stream:
            kept = TypeAdapter(_Kept).validate_json(stream.read(LARGEST))
    except (OSError, ValueError) as error:
        log.info("%s cannot be used; the benchmark is run again: %s", path, _line(error))
        return None
    if kept.machine != machine:
        log.info("%s is of another machine; the benchmark is run again", path)
        return None
    log.debug("benchmark from %s: %s", path, kept.times)
    return kept.times


def _keep(path: Path, kept: _Kept) -> None:
    try:
        files.save_json(path, asdict(kept))
    except InputError as error:
        log.info("the benchmark will be run again in the next process: %s", error)
    else:
        log.debug("benchmark kept in %s: %s", path, kept.times)


@contextlib.contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """Wait until no other process runs the benchmark, but no longer than :data:`PATIENCE`."""
    end = time.monotonic() + PATIENCE
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(InputError):  # without a lock, processes may disturb each other
            while time.monotonic() < end and not stack.enter_context(files.locked(lock, False)):
                time.sleep(PAUSE)
        yield


def _line(error: Exception) -> str:
    return brief(" ".join(str(error).split()))
