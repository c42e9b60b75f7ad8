"""Kill sweeps at random moments or damage their stores, go on, and compare what comes out.

``python tests/attack_sweep.py --kills 30 --seed 1`` ends a small sweep of the embedded network by
kill -9 at random moments, also inside a descent and in the middle of a snapshot, by one process
and by two, of which sometimes a worker alone is killed. With ``--dask``, dask's workers compute it,
those of this machine or of a scheduler, and the sweep, a worker or the scheduler is killed. The
last run is left in peace; its results must be those of a sweep that never was killed.
``--damages 50`` changes, cuts or removes a file of the store at random before each of as many runs.
It prints figures, and exits with 1 if one is wrong.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Dict, Iterable, List, Optional, Sequence, Tuple

import psutil
from attack import environment

from fmi import files
from fmi.runs import sweep
from fmi.runs.store import FILES, MANIFEST, Store

SECONDS = 300  # of a run that is left in peace
OFTEN = (
    "import sys; from fmi import snapshots; snapshots.SECONDS, snapshots.SHARE = .05, float('inf');"
)
# Workers write as many snapshots; their command has braces for str.format.
SCRIPT = (
    OFTEN + "from fmi.runs import workers; from fmi.cli import main;"
    f"workers.COMMAND = {OFTEN!r} + workers.COMMAND; sys.exit(main(sys.argv[1:]))"
)
SCHEDULER = (
    *(sys.executable, "-m", "distributed.cli.dask_scheduler"),
    *("--host", "127.0.0.1", "--port", "0", "--dashboard-address", ":0"),
)
WORKER = (
    *(sys.executable, "-m", "distributed.cli.dask_worker"),
    *("--nthreads", "1", "--no-nanny", "--no-dashboard", "--memory-limit", "0"),
)
SMALL = (
    *("weights: embedded", "pictures: [skimage:coffee]", "layers: [relu1_2, relu3_1]"),
    *("filters: [0, 1, 2, 3, 4, 5, 6, 7]", "long_edge: 64", "steps: 60", "batch: 4"),
)


@dataclass
class Figures:
    """What came out.

    Attributes
    ----------
    kills
        How many processes were killed.
    inside
        Of these, how many in a descent of which a snapshot was there.
    continued
        How many descents were continued from a snapshot.
    panels
        Number of panels of the sweep.
    damages, mended
        How many files were damaged, and how many of their results were computed again.
    twice
        How many panels were computed again although they were finished and whole.
    different
        How many results have other bytes than those of a sweep that never was killed.
    strays
        Files that should not be there.
    """

    kills: int = 0
    inside: int = 0
    continued: int = 0
    panels: int = 0
    damages: int = 0
    mended: int = 0
    twice: int = 0
    different: int = 0
    strays: List[str] = field(default_factory=list)

    @property
    def right(self) -> bool:
        """Whether nothing is wrong."""
        wrong = self.twice or self.different or self.strays or self.mended < self.damages
        return not wrong and self.panels > 0


def written(folder: Path, *lines: str) -> Path:
    """Write the YAML file of a small sweep, with further lines."""
    path = folder / "small.yaml"
    path.write_text("\n".join(("figure: sweep", *SMALL, *lines)) + "\n")
    return path


def often(folder: Path) -> Dict[str, str]:
    """Return an environment in which dask's workers write many snapshots."""
    preload = folder / "often.py"
    preload.write_text(OFTEN)
    return {**environment(), "DASK_DISTRIBUTED__WORKER__PRELOAD": str(preload)}


def start(file: Path, folder: Path, *words: str) -> subprocess.Popen:
    """Start a sweep that writes many snapshots."""
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, "sweep", str(file), f"RESULTS={folder}", *words],
        env=often(file.parent),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def begun(process: subprocess.Popen, folder: Path) -> None:
    """Wait until a sweep computes panels, or has ended."""
    since, sign = time.time_ns(), folder / "panels.json"
    while process.poll() is None:
        with contextlib.suppress(FileNotFoundError):
            if sign.stat().st_mtime_ns > since:
                return
        time.sleep(0.01)


def results(folder: Path) -> Dict[str, str]:
    """Digests of the pictures and arrays in the store of a sweep, by name."""
    store = Store(folder / "store")
    return {
        f"{name}/{file}": files.file_digest(store.path(name) / file, "sha256")
        for name in store.names()
        for file in FILES[:3]
    }


def strays(folder: Path) -> List[str]:
    """Return the files in the folder of a sweep that do not belong there."""
    usual = {"sweep.yaml", "sweep.log", "summary.json", "panels.json"}
    store, found = Store(folder / "store"), []
    for path in folder.rglob("*"):
        result = path.parent.parent.parent == store.folder and store.intact(path.parent.name)
        usually = path.parent == folder and path.name in usual
        if path.is_file() and not usually and (not result or path.name.startswith(".")):
            found.append(str(path.relative_to(folder)))
    return found


class Machines(contextlib.ExitStack):
    """A scheduler of dask.distributed and two workers, each a process of its own."""

    def __init__(self, base: Path) -> None:
        super().__init__()
        told = base / f"scheduler{time.time_ns()}.json"
        self.env = {**often(base), "OMP_NUM_THREADS": "1"}
        words = ("--scheduler-file", str(told))
        self.scheduler = self._begin(*SCHEDULER, *words)
        while not told.exists():
            time.sleep(0.05)
        self.address = json.loads(told.read_text())["address"]
        self.workers = [self._begin(*WORKER, self.address) for _ in range(2)]

    def _begin(self, *command: str) -> subprocess.Popen:
        quiet = subprocess.DEVNULL
        process = subprocess.Popen(command, env=self.env, stdout=quiet, stderr=quiet)
        self.callback(process.wait)
        self.callback(process.kill)
        return process

    @property
    def whole(self) -> bool:
        """Whether all of them run."""
        return all(one.poll() is None for one in (self.scheduler, *self.workers))


def attack(
    base: Path, kills: int, seed: int, style: Sequence[str] = (), dask: bool = False
) -> Figures:
    """Kill a sweep some times, let it end, and compare it with one that never was killed.

    Parameters
    ----------
    base
        An empty folder.
    kills
        How often.
    seed
        Seed of the moments.
    style
        Further lines of the YAML file.
    dask
        Whether dask's workers compute the sweep.
    """
    file, chance, found = written(base, *style), random.Random(seed), Figures()
    wanted, seconds = peaceful(base, file)
    folder, number = base / "killed", 0
    with contextlib.ExitStack() as running:
        machines: Optional[Machines] = None
        while found.kills < kills:
            store, before = Store(folder / "store"), _times(folder)
            if len(wanted) == len(results(folder)):  # begin another one
                _last(found, wanted, file, folder)
                number += 1
                folder = base / f"killed{number}"
                continue
            processes = chance.choice((1, 1, 2))
            words = [f"PROCESSES={processes}"]
            remote = dask and chance.random() < 0.6
            if remote:
                if machines is None or not machines.whole:
                    machines = running.enter_context(Machines(base))
                words = ["--scheduler", machines.address]
            elif dask:
                processes, words = 2, ["--workers", "2"]
            with start(file, folder, *words) as process:
                if found.kills % 5:  # the others mostly while modules are imported
                    begun(process, folder)
                time.sleep(chance.uniform(0, 0.7) * seconds)
                victims = [psutil.Process(process.pid)] if process.poll() is None else []
                alone = chance.random() < 0.5  # a worker alone, whose task another one takes over
                if victims and remote and machines is not None:
                    others = (process, machines.scheduler, *machines.workers)
                    victims = [psutil.Process(chance.choice(others).pid)]
                elif victims and processes > 1 and alone:
                    victims = _workers(victims[0]) or victims
                for victim in victims[:1]:
                    found.kills += 1
                    found.inside += any(store.snapshots.glob("*.npz"))
                    victim.kill()
                _, error = process.communicate(timeout=SECONDS)
            found.continued += len(re.findall("continuing after step", error))
            found.twice += sum(
                time != before[name] for name, time in _times(folder, before).items()
            )
            if "Traceback" in error:
                raise AssertionError(error)
    _last(found, wanted, file, folder)
    return found


def _workers(process: psutil.Process) -> List[psutil.Process]:
    """Return the processes that a sweep has started to compute."""
    found = []
    for child in process.children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if "resource_tracker" not in " ".join(child.cmdline()):
                found.append(child)
    return found


def peaceful(base: Path, file: Path) -> Tuple[Dict[str, str], float]:
    """Let a sweep alone; return its results, and how long it computed them in seconds."""
    with start(file, base / "whole", "PROCESSES=1") as process:
        begun(process, base / "whole")
        began = time.monotonic()
        _, error = process.communicate(timeout=SECONDS)
    found = results(base / "whole")
    if process.returncode or not found:
        raise AssertionError(error)
    return found, time.monotonic() - began


def damage(base: Path, damages: int, seed: int) -> Figures:
    """Damage the store of a finished sweep, and let it be mended, some times over.

    Parameters
    ----------
    base
        An empty folder.
    damages
        How often.
    seed
        Seed of the damages: a byte is changed, or a file is cut, removed or made longer.
    """
    file, chance, found = written(base), random.Random(seed), Figures()
    wanted, _ = peaceful(base, file)
    folder = base / "whole"
    experiment = sweep.read(file, [f"RESULTS={folder}", "PROCESSES=1"])
    for _ in range(damages):
        before = _times(folder)
        name = chance.choice(sorted(before))
        path = Store(folder / "store").path(name) / chance.choice((*FILES, MANIFEST))
        data = bytearray(path.read_bytes())
        way = chance.randrange(4)
        if way == 0:
            data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        elif way == 1:
            del data[chance.randrange(len(data)) :]
        elif way == 2:
            data += chance.randbytes(chance.randrange(1, 100))
        path.unlink()
        if way < 3:
            path.write_bytes(data)
        sweep.sweep(experiment)
        after = _times(folder)
        found.damages += 1
        found.mended += after[name] != before[name]
        found.twice += sum(after[other] != before[other] for other in before if other != name)
        found.different += len(set(wanted.items()) ^ set(results(folder).items()))
        found.strays += strays(folder)
    found.panels = len(wanted) // 3
    return found


def _last(found: Figures, wanted: Dict[str, str], file: Path, folder: Path) -> None:
    """Let a sweep come to its end, and compare its results."""
    with start(file, folder, "PROCESSES=1") as process:
        _, error = process.communicate(timeout=SECONDS)
    if process.returncode:
        raise AssertionError(error)
    found.continued += len(re.findall("continuing after step", error))
    _compare(found, wanted, folder)


def _times(folder: Path, names: Optional[Iterable[str]] = None) -> Dict[str, int]:
    """Return when results, by default all, were written; 0 for those that are gone."""
    store = Store(folder / "store")
    paths = {
        name: store.path(name) / "manifest.json"
        for name in (store.names() if names is None else names)
    }
    return {n: path.stat().st_mtime_ns if path.is_file() else 0 for n, path in paths.items()}


def _compare(found: Figures, wanted: Dict[str, str], folder: Path) -> None:
    now = results(folder)
    found.panels += len(now) // 3
    found.different += len(set(wanted.items()) ^ set(now.items()))
    found.strays += strays(folder)
    lines = (folder / "sweep.log").read_text().splitlines()
    found.twice += len(lines) - len(set(lines))
    if len(lines) != len(now) // 3:
        found.strays.append(f"sweep.log has {len(lines)} lines")


def main() -> int:
    """Attack as the arguments say, and print the figures."""
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n", maxsplit=1)[0])
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dask", action="store_true", help="dask's workers compute the sweeps")
    parser.add_argument("--damages", type=int, help="damage stores in place of killing sweeps")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as base:
        if chosen.damages:
            found = damage(Path(base), chosen.damages, chosen.seed)
        else:
            found = attack(Path(base), chosen.kills, chosen.seed, dask=chosen.dask)
    for name, value in vars(found).items():
        print(f"{name:<12}{value}")
    return 0 if found.right else 1


if __name__ == "__main__":
    sys.exit(main())
