"""``fmi draw`` and ``fmi figure``: the figures of experiments and of the paper."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any, List

__all__ = ["add"]


def add(commands: Any) -> None:
    """Add the commands."""
    draw = commands.add_parser("draw", help="draw the figure of an experiment's YAML file")
    draw.add_argument("experiment", type=Path, help="such as experiments/fig3.yaml")
    _add_overrides(draw)
    draw.set_defaults(run=lambda chosen: _draw(chosen.experiment, chosen.overrides))
    figure = commands.add_parser("figure", help="draw a figure of the paper")
    figure.add_argument("name", help="fig1, fig2, fig3, fig4 or fig5")
    _add_overrides(figure)
    figure.set_defaults(run=_figure)


def _add_overrides(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "overrides", nargs="*", metavar="KEY=VALUE", help="such as LAYERS=relu1_2,relu2_2 STEPS=60"
    )


def _figure(chosen: argparse.Namespace) -> int:
    from fmi.runs import experiment  # imports MXNet; main() reports if it is missing

    return _draw(experiment.packaged(chosen.name), chosen.overrides)


def _draw(path: Path, overrides: List[str]) -> int:
    from fmi.runs import experiment, figures

    for written in figures.draw(experiment.read(path, overrides)):
        sys.stdout.write(f"{written}\n")
    return 0
