"""Compare our panels of Fig. 3 with the figure that the authors published.

    python -m experiments.compare results/fig3/golden_gate feature_map_golden_gate.png

The published figure is output/feature_map_golden_gate.png of
github.com/xzqjack/FeatureMapInversion. Prints the distance (fmi.evidence) of each panel to its
published one, whether that one is the nearest of all, and the median.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Dict, Tuple

import numpy as np

from fmi import evidence, pictures
from fmi.errors import FmiError, InputError
from fmi.networks import catalogue
from fmi.networks.base import Network

LEFT = (69, 344, 620, 896, 1172)  # of filters 0-4 in the published figure, in pixels
TOP = {"relu1_2": 48, "relu2_2": 256, "relu3_2": 463, "relu4_2": 671, "relu5_2": 878}
JUDGED = ("relu1_1", "relu2_1")  # layers whose Gram matrices are compared
SIZE = (1440, 1080)  # of the published figure

Panels = Dict[Tuple[str, int], np.ndarray]


def published(path: Path) -> Panels:
    """The 25 panels of the published Fig. 3 by layer and filter, each (187, 250, 3) uint8."""
    sheet = pictures.read(path).pixels
    if sheet.shape[:2] != SIZE[::-1]:
        raise InputError(f"{path} is not the published Fig. 3: it should have {SIZE} pixels")
    width, height = evidence.SIZE
    return {
        (layer, index): sheet[top : top + height, left : left + width]
        for layer, top in TOP.items()
        for index, left in enumerate(LEFT)
    }


def ours(folder: Path) -> Panels:
    """The panels in a results folder by layer and filter, those of filters 0-4."""
    panels = {}
    for layer in TOP:
        for index in range(len(LEFT)):
            file = folder / f"{layer}_filter{index}.png"
            if file.is_file():
                panels[layer, index] = pictures.read(file).pixels
    if not panels:
        raise InputError(f"no panels such as relu1_2_filter0.png in {folder}")
    return panels


def compare(
    mine: Panels, theirs: Panels, network: Network
) -> Dict[Tuple[str, int], Tuple[float, bool]]:
    """Each panel's distance to its published one, and whether no other of those rows is nearer."""
    layers = {layer for layer, _ in mine}
    rivals = [place for place in theirs if place[0] in layers]
    found = evidence.distances(
        list(mine.values()), [theirs[place] for place in rivals], network, JUDGED
    )
    return {
        place: (float(row[rivals.index(place)]), rivals[int(row.argmin())] == place)
        for place, row in zip(mine, found)
    }


def main() -> int:
    """Print the table; the exit status is 2 for a mistake in the input."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="our panels, such as results/fig3/golden_gate")
    parser.add_argument("published", type=Path, help="the published feature_map_golden_gate.png")
    parser.add_argument("--weights", default="vgg19", help="the network that measures (vgg19)")
    chosen = parser.parse_args()
    try:
        network = catalogue.load(weights=chosen.weights, layers=JUDGED)
        result = compare(ours(chosen.folder), published(chosen.published), network)
    except FmiError as error:
        sys.stderr.write(f"compare: {error}\n")
        return 2
    for (layer, index), (value, nearest) in result.items():
        sys.stdout.write(
            f"{layer} filter {index}: {value:.3f}{'' if nearest else ' NOT nearest'}\n"
        )
    values = [value for value, _ in result.values()]
    own = sum(nearest for _, nearest in result.values())
    sys.stdout.write(
        f"nearest to its own: {own} of {len(values)}; median {np.median(values):.3f}\n"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
