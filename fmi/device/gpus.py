"""Determine which GPUs MXNet can use, and for the others, the reason in one line.

First the compute capability of a GPU is checked, then a small convolution is run on it. Both
happen once and in a separate process.
"""

from __future__ import annotations

import functools
import json
import logging
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Optional, Tuple

from fmi.device import environment
from fmi.device.driver import HIGHEST, LOWEST, Gpu, driver

__all__ = ["IN_USE", "PATIENCE", "ROOT", "TRIAL", "Trial", "parse", "problem", "trial", "unserved"]

log = logging.getLogger(__name__)

PATIENCE = 300  # timeout of a trial in seconds; the first use of a GPU can be slow
ROOT = Path(__file__).resolve().parents[2]
TRIAL = "import sys; sys.path.append({root!r}); from fmi.device import trial; trial.main({index})"
IN_USE = ("out of memory", "ALLOC_FAILED", "busy or unavailable", "exclusive")


@dataclass(frozen=True)
class Trial:
    """Result of a small convolution on a GPU.

    Attributes
    ----------
    problem
        Description in one line; empty if the result agrees with that of the CPU.
    free, total
        Free and total memory in bytes before the trial; 0 if unknown.
    difference
        Relative difference from the result of the CPU.
    """

    problem: str = ""
    free: int = 0
    total: int = 0
    difference: float = 0.0


def parse(device: str) -> Optional[Tuple[str, int]]:
    """Parse a device such as ``"gpu(1)"`` or ``"cpu"``; return its kind and index, or ``None``."""
    match = re.fullmatch(r"(cpu|gpu)(?:\(([0-9]{1,9})\))?", device.strip())
    return (match.group(1), int(match.group(2) or 0)) if match else None


def problem(index: int) -> str:
    """Return why MXNet cannot use GPU `index` and how to fix it, or nothing if it can."""
    found = driver()
    wheel = environment.installed_wheel()
    if wheel == "mxnet" and found.wheel() == "cu112":
        names = ", ".join(str(gpu) for gpu in found.gpus if gpu.served)
        return f"{names} was found, but MXNet's CPU wheel is installed: {environment.to_cu112()}"
    if found.problem():
        return found.problem()
    if index >= len(found.gpus):
        return f"there is no gpu({index}): the driver reports {len(found.gpus)}, numbered from 0"
    gpu = found.gpus[index]
    return trial(index).problem if gpu.served else unserved(gpu)


def unserved(gpu: Gpu) -> str:
    """Return the message for a GPU that the cu112 wheel does not support."""
    low, high = (".".join(str(number) for number in pair) for pair in (LOWEST, HIGHEST))
    return (
        f"gpu({gpu.index}) {gpu} cannot be used: mxnet-cu112 1.9.1, the last release, has kernels"
        f" for {low} to {high} only; use the CPU instead: export FMI_CTX=cpu"
    )


@functools.lru_cache(maxsize=None)
def trial(index: int) -> Trial:
    """Run a convolution on a GPU; the result is cached."""
    name = f"gpu({index}) {driver().gpus[index]}"
    try:
        done = subprocess.run(
            [sys.executable, "-c", TRIAL.format(root=str(ROOT), index=index)],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Trial(f"{name} did not respond in {PATIENCE} s: check nvidia-smi, then restart it")
    log.debug("trial of %s ended with %d: %s", name, done.returncode, done.stderr)
    if done.returncode != 0:
        return Trial(_failure(name, done.returncode, done.stderr))
    try:
        answer = json.loads(done.stdout.splitlines()[-1])
        right = answer.pop("right")
    except (ValueError, LookupError, TypeError, AttributeError):
        return Trial(f"{name} gave no result of a small convolution: fmi --verbose doctor")
    if not right:
        return Trial(
            f"{name} computes incorrect results (off by {answer['difference']:.2g} from the CPU):"
            " update the driver, or export FMI_CTX=cpu",
            **answer,
        )
    return Trial(**answer)


def _failure(name: str, status: int, said: str) -> str:
    """Return the message for a trial that failed."""
    reason = next((word for word in IN_USE if word in said), "")
    if reason:
        return (
            f"{name} is in use by other processes ({reason}): nvidia-smi lists them; wait, or"
            " choose another device, for example: export FMI_CTX='gpu(1)'"
        )
    if "no kernel image" in said:
        return f"mxnet-cu112 has no kernels for {name}: export FMI_CTX=cpu"
    lines = [line.strip() for line in said.splitlines() if "Error" in line or "error" in line]
    end = f"signal {-status}" if status < 0 else f"status {status}"
    why = lines[-1][:200] if lines else f"it ended with {end}"
    return f"{name} failed to run a small convolution ({why}); for details: fmi --verbose doctor"
