"""Time steps of a large picture in tiles beside steps of the whole picture.

    python -m experiments.tiles [--quick] [--weights vgg19]

Both compute the same gradient in turn, so that a machine that slows down does so for both; the
first turn of each does not count. Prints a table; about two minutes on two cores.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from dataclasses import dataclass
from typing import Callable, List, Optional, Sequence, Tuple

import numpy as np

from experiments.bench import aligned, show
from fmi import losses
from fmi.device.mxnet import NDArray, mx
from fmi.device.precision import choose
from fmi.errors import FmiError
from fmi.networks import catalogue
from fmi.networks.base import Network
from fmi.networks.tiles import Tiled


@dataclass(frozen=True)
class Case:
    """What is computed in a row of the table: a layer, the picture's size, and the crops'."""

    layer: str
    height: int
    width: int
    crop: int


FULL = (Case("relu3_2", 1536, 2048, 1024), Case("relu4_1", 1536, 2048, 1024))
QUICK = (Case("relu2_1", 96, 128, 64),)
PAIRS = 3


@dataclass(frozen=True)
class Row:
    """A row of the table.

    Attributes
    ----------
    network, precision
        Name of the network, and its number format.
    case
        What was computed.
    tiles
        Number of tiles.
    whole, in_tiles
        Seconds of a step, median of all turns.
    ratio
        Median of the ratios of neighbouring turns, ``in_tiles / whole``.
    low, high
        The smallest and the largest of these ratios.
    difference
        Largest difference of the gradients over their root mean square.
    """

    network: str
    precision: str
    case: Case
    tiles: int
    whole: float
    in_tiles: float
    ratio: float
    low: float
    high: float
    difference: float


def measure(weights: str, cases: Sequence[Case]) -> List[Row]:
    """Return a row for each case whose layer the weights have.

    Raises
    ------
    InputError
        If the weights do not exist.
    """
    network = catalogue.load(None, weights)
    precision = choose("auto", mx.cpu()).name
    known = [case for case in cases if any(case.layer == layer.name for layer in network.layers)]
    return [_row(network, case, precision) for case in known]


def _row(network: Network, case: Case, precision: str) -> Row:
    whole = network.truncated([case.layer], precision=precision)
    network.truncated([network.layers[0].name], precision=precision)  # replaces the cached one
    own = network.truncated([case.layer], precision=precision)  # each stays bound for its shape
    crop = (min(case.crop, case.height), min(case.crop, case.width))
    tiled = Tiled(own, {case.layer: network.reach(case.layer)}, crop)
    random = np.random.RandomState(0)
    image = mx.nd.array(random.uniform(-100, 100, (1, 3, case.height, case.width)))
    code = whole(image)[case.layer]
    loss = losses.code(case.layer, code * 0.5, 0.5)
    whole.free()

    def timed(gradient: Callable[..., Tuple[NDArray, NDArray]]) -> Tuple[float, np.ndarray]:
        began = time.perf_counter()
        found = gradient(image, loss)[1].asnumpy()
        return time.perf_counter() - began, found

    pairs = []
    for _ in range(PAIRS + 1):
        (one, first), (other, second) = timed(whole.gradient), timed(tiled.gradient)
        pairs.append((one, other))
    ratios = [other / one for one, other in pairs[1:]]
    return Row(
        network.name,
        precision,
        case,
        len(tiled.plan(case.height, case.width).tiles),
        statistics.median(one for one, _ in pairs[1:]),
        statistics.median(other for _, other in pairs[1:]),
        statistics.median(ratios),
        min(ratios),
        max(ratios),
        float(np.abs(first - second).max() / np.sqrt((first**2).mean())),
    )


def lines(found: Sequence[Row]) -> List[str]:
    """Return the lines of the table."""
    head = ("layer", "pixels", "crops", "tiles", "whole", "tiles s", "ratio", "lowest, highest")
    cells = [
        (
            row.case.layer,
            f"{row.case.width} x {row.case.height}",
            str(row.case.crop),
            str(row.tiles),
            f"{row.whole:.3g}",
            f"{row.in_tiles:.3g}",
            f"{row.ratio:.2f}",
            f"{row.low:.2f}, {row.high:.2f}",
        )
        for row in found
    ]
    name = f", {found[0].network} in {found[0].precision}" if found else ""
    return [f"seconds of a step: the whole picture, and in tiles{name}", *aligned([head, *cells])]


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Measure and print; the exit status is 2 for a mistake in the input, 130 for Ctrl-C."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a small picture: whether it runs")
    parser.add_argument("--weights", default="auto", help="as for fmi.invert")
    chosen = parser.parse_args(arguments)
    try:
        show(lines(measure(chosen.weights, QUICK if chosen.quick else FULL)))
    except FmiError as error:
        sys.stderr.write(f"tiles: {error}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write("tiles: interrupted\n")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
