"""Kill sweeps at random moments, go on with them, and compare what comes out.

``python tests/attack_sweep.py --kills 30 --seed 1`` ends a small sweep of the embedded network by
kill -9 at random moments, also inside a descent and in the middle of a snapshot, by one process
and by two, of which sometimes a worker alone is killed. The last run is left in peace; its results
must be those of a sweep that never was killed. It prints figures, and exits with 1 if one is wrong.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Dict, Iterable, List, Optional, Sequence

import psutil
from attack import environment

from fmi import files
from fmi.runs.store import FILES, Store

SECONDS = 300  # of a run that is left in peace
OFTEN = (
    "import sys; from fmi import snapshots; snapshots.SECONDS, snapshots.SHARE = .05, float('inf');"
)
# Workers write as many snapshots; their command has braces for str.format.
SCRIPT = (
    OFTEN + "from fmi.runs import workers; from fmi.cli import main;"
    f"workers.COMMAND = {OFTEN!r} + workers.COMMAND; sys.exit(main(sys.argv[1:]))"
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
    twice
        How many panels were computed again after they had been finished.
    different
        How many results have other bytes than those of a sweep that never was killed.
    strays
        Files that should not be there.
    """

    kills: int = 0
    inside: int = 0
    continued: int = 0
    panels: int = 0
    twice: int = 0
    different: int = 0
    strays: List[str] = field(default_factory=list)

    @property
    def right(self) -> bool:
        """Whether nothing is wrong."""
        return not (self.twice or self.different or self.strays) and self.panels > 0


def written(folder: Path, *lines: str) -> Path:
    """Write the YAML file of a small sweep, with further lines."""
    path = folder / "small.yaml"
    path.write_text("\n".join(("figure: sweep", *SMALL, *lines)) + "\n")
    return path


def start(file: Path, folder: Path, *words: str) -> subprocess.Popen:
    """Start a sweep that writes many snapshots."""
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, "sweep", str(file), f"RESULTS={folder}", *words],
        env=environment(),
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


def attack(base: Path, kills: int, seed: int, style: Sequence[str] = ()) -> Figures:
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
    """
    file, chance, found = written(base, *style), random.Random(seed), Figures()
    with start(file, base / "whole", "PROCESSES=1") as process:
        begun(process, base / "whole")
        began = time.monotonic()
        _, error = process.communicate(timeout=SECONDS)
    seconds = time.monotonic() - began
    wanted = results(base / "whole")
    if process.returncode or not wanted:
        raise AssertionError(error)
    folder, number = base / "killed", 0
    while found.kills < kills:
        store, before = Store(folder / "store"), _times(folder)
        if len(wanted) == len(results(folder)):  # begin another one
            _last(found, wanted, file, folder)
            number += 1
            folder = base / f"killed{number}"
            continue
        processes = chance.choice((1, 1, 2))
        with start(file, folder, f"PROCESSES={processes}") as process:
            if found.kills % 5:  # the others mostly while modules are imported
                begun(process, folder)
            time.sleep(chance.uniform(0, 0.7) * seconds)
            victims = [psutil.Process(process.pid)] if process.poll() is None else []
            alone = chance.random() < 0.5  # a worker alone, whose task another one takes over
            if victims and processes > 1 and alone:
                victims = victims[0].children() or victims
            for victim in victims[:1]:
                found.kills += 1
                found.inside += any(store.snapshots.glob("*.npz"))
                victim.kill()
            _, error = process.communicate(timeout=SECONDS)
        found.continued += len(re.findall("continuing after step", error))
        found.twice += sum(time != before[name] for name, time in _times(folder, before).items())
        if "Traceback" in error:
            raise AssertionError(error)
    _last(found, wanted, file, folder)
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
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as base:
        found = attack(Path(base), chosen.kills, chosen.seed)
    for name, value in vars(found).items():
        print(f"{name:<12}{value}")
    return 0 if found.right else 1


if __name__ == "__main__":
    sys.exit(main())
