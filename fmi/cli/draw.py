"""``fmi draw``: a figure from an experiment's YAML."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, List

__all__ = ["add"]


def add(commands: Any) -> None:
    """Add the command."""
    draw = commands.add_parser("draw", help="draw a figure of the paper from an experiment's YAML")
    draw.add_argument("experiment", type=Path, help="such as experiments/fig3.yaml")
    draw.add_argument(
        "overrides", nargs="*", metavar="KEY=VALUE", help="such as LAYERS=relu1_2,relu2_2 STEPS=60"
    )
    draw.set_defaults(run=lambda chosen: _draw(chosen.experiment, chosen.overrides))


def _draw(path: Path, overrides: List[str]) -> int:
    from fmi.runs import experiment, figures  # imports MXNet; main() reports if it is missing

    for written in figures.draw(experiment.read(path, overrides)):
        sys.stdout.write(f"{written}\n")
    return 0
