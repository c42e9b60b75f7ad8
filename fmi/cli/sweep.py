"""``fmi sweep`` and ``fmi status``: all filters of a network, and how far that has come."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional

if TYPE_CHECKING:
    from fmi.runs.progress import Progress

__all__ = ["add"]


def add(commands: Any) -> None:
    """Add the commands."""
    sweep = commands.add_parser("sweep", help="invert every filter that a YAML file asks for")
    sweep.add_argument(
        "experiment", type=Path, help="such as experiments/atlas.yaml, or sweep.yaml of a sweep"
    )
    sweep.add_argument(
        "overrides", nargs="*", metavar="KEY=VALUE", help="such as LAYERS=relu3_2 RESULTS=dir"
    )
    sweep.mixed = True
    where = sweep.add_mutually_exclusive_group()
    where.add_argument(
        "--scheduler",
        metavar="ADDRESS",
        help="let the workers of a scheduler of dask.distributed compute it, tcp://host:8786",
    )
    where.add_argument(
        "--workers",
        type=int,
        metavar="N",
        help="let N processes of dask.distributed on this machine compute it",
    )
    sweep.set_defaults(run=_sweep)
    status = commands.add_parser("status", help="tell how far a sweep has come")
    status.add_argument("folder", type=Path, help="the sweep's results, such as results/sweep")
    status.add_argument("--json", action="store_true", help="print JSON")
    status.set_defaults(run=_status)


def _sweep(chosen: argparse.Namespace) -> int:
    from fmi.runs import sweep  # imports MXNet; main() reports if it is missing
    from fmi.runs.cluster import Cluster

    cluster = None
    if chosen.scheduler is not None or chosen.workers is not None:
        cluster = Cluster(chosen.scheduler, chosen.workers)
    experiment = sweep.read(chosen.experiment, chosen.overrides)
    sys.stdout.write(f"{sweep.sweep(experiment, cluster)}\n")
    return 0


def _status(chosen: argparse.Namespace) -> int:
    from dataclasses import asdict

    from fmi import files
    from fmi.runs import progress

    found = progress.progress(chosen.folder)
    text = files.json_text(asdict(found)) if chosen.json else _text(found, chosen.folder)
    sys.stdout.write(text)
    return 0


def _text(found: Progress, folder: Path) -> str:
    width = max(map(len, found.layers))
    lines = [f"{found.done} of {found.panels} panels are done"]
    if found.running:
        rate = "" if found.per_minute is None else f", {found.per_minute:.1f} panels a minute"
        lines.append(f"a process works on it{rate}, {_left(found.seconds_left)}")
    elif found.done < found.panels:
        lines.append(f"no process works on it: fmi sweep {folder / 'sweep.yaml'} goes on with it")
    for name, layer in found.layers.items():
        lines.append(f"{name:{width}}  {layer.done:5d} of {layer.panels}")
    return "\n".join(lines) + "\n"


def _left(seconds: Optional[float]) -> str:
    if seconds is None:
        return "none is done yet since it began"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{f'{hours} h ' if hours else ''}{minutes} min left"
