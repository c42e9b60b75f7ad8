"""Plot how a chain of Fig. 3 raises its targets, and how much of them the descents reach.

python -m experiments.chain results/fig3/golden_gate chain.png
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, List

from matplotlib.figure import Figure

from fmi import files, sheets
from fmi.errors import FmiError, InputError

LABELS = {
    "first": "loss of the first noise,\nnearly the target's square",
    "explained": "part of the target\nthat is explained",
    "energy_share": "share of the energy\nin the wanted feature map",
}


@dataclass(frozen=True)
class Link:
    """A filter of a chain.

    Attributes
    ----------
    filter
        Its number.
    first
        Loss of the first picture.
    explained, energy_share
        As in :class:`fmi.inversion.Inversion`.
    """

    filter: int
    first: float
    explained: float
    energy_share: float


def chains(folder: Path) -> Dict[str, List[Link]]:
    """Return the chains whose records are in a results folder, by layer.

    Raises
    ------
    InputError
        If there is none, or if a record lacks a number.
    """
    found: Dict[str, List[Link]] = {}
    for path in sorted(folder.glob("*_filter*.json")):
        try:
            record = json.loads(path.read_bytes())
            outcome = record["outcome"]
            link = Link(
                record["filter"],
                float(record["loss"][0]),
                float(outcome["explained"]),
                float(outcome["energy_share"]),
            )
        except (ValueError, KeyError, TypeError, IndexError):
            raise InputError(f"{path} is not the record of a finished panel of Fig. 3") from None
        if record["chain"]:
            found.setdefault(record["layers"][0], []).append(link)
    if not found:
        raise InputError(f"no records of a chain, such as relu1_2_filter0.json, in {folder}")
    return {layer: sorted(links, key=lambda link: link.filter) for layer, links in found.items()}


def plot(found: Dict[str, List[Link]]) -> Figure:
    """Return a plot of the chains."""
    figure = Figure(figsize=(10, 3.2), layout="constrained")
    for axes, (name, label) in zip(figure.subplots(1, len(LABELS)), LABELS.items()):
        for layer, links in found.items():
            numbers = [link.filter for link in links]
            axes.plot(numbers, [getattr(link, name) for link in links], "o-", label=layer)
        axes.set(xlabel="filter", title=label, xticks=numbers)
        if name == "first":
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter("{x:.0e}")  # others need fonts for formulas
        else:
            axes.set_ylim(0, 1)
    axes.legend()
    return figure


def main() -> int:
    """Plot; the exit status is 2 for a mistake in the input."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="such as results/fig3/golden_gate")
    parser.add_argument("plot", type=Path, help="the PNG to write")
    chosen = parser.parse_args()
    try:
        found = chains(chosen.folder)
        with sheets.defaults():
            figure = plot(found)
            files.write_whole(chosen.plot, lambda beside: figure.savefig(beside, format="png"))
    except FmiError as error:
        sys.stderr.write(f"chain: {error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
