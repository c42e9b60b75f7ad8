"""Why panels of Fig. 3 differ from the published ones: one change at a time.

    python -m experiments.causes relu5_2 published.png --weights W.npz [--only VARIANT,...]

Draws filters 0-4 of a layer as Fig. 3 does, with each of :data:`VARIANTS`, and compares each panel
with the published figure. Prints a line for each panel, and writes the table as JSON.
"""

from __future__ import annotations

import argparse
import collections
import logging
import sys
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Callable, Deque, Dict, List, Mapping, Optional, Sequence

import numpy as np

from experiments.compare import Reached, Row, compare
from experiments.outcome import finished
from experiments.published import SHEETS, Panels
from fmi import checks, codes, files, losses, pictures
from fmi.call import Call
from fmi.descent import State
from fmi.device.mxnet import NDArray
from fmi.errors import FmiError, unknown
from fmi.inversion import Inversion, Place
from fmi.networks import catalogue, weights
from fmi.networks.base import Network
from fmi.runs.store import open_store
from fmi.sources import table

Arrays = Dict[str, np.ndarray]


def rounded(arrays: Mapping[str, np.ndarray], blocks: Sequence[int]) -> Arrays:
    """Return weights with the kernels of some blocks in 8 bits, as the copy of blocks 4-5 has them.

    Each kernel has 256 equidistant values from its smallest to its largest, but its tap (2, 2) and
    the biases are exact.
    """
    found = dict(arrays)
    for name, kernel in arrays.items():
        if name.endswith("_weight") and int(name[4]) in blocks:
            low, high = float(kernel.min()), float(kernel.max())
            step = (high - low) / 255
            made = (low + step * np.round((kernel - low) / step)).astype(np.float16)
            found[name] = made.astype(np.float32)
            found[name][:, :, 2, 2] = kernel[:, :, 2, 2]
    return found


def noisy(arrays: Mapping[str, np.ndarray], blocks: Sequence[int], seed: int) -> Arrays:
    """Return weights with noise of the size of :func:`rounded`'s in the kernels of some blocks."""
    random, found = np.random.RandomState(seed), dict(arrays)
    for name, kernel in arrays.items():
        if name.endswith("_weight") and int(name[4]) in blocks:
            step = (float(kernel.max()) - float(kernel.min())) / 255
            noise = random.uniform(-step / 2, step / 2, kernel.shape).astype(np.float32)
            noise[:, :, 2, 2] = 0
            found[name] = kernel + noise
    return found


@dataclass(frozen=True)
class Variant:
    """A change.

    Attributes
    ----------
    options
        Keywords of the inversion.
    change
        Function that changes the weights.
    back
        How many steps before the last the picture is taken whose code makes the next target.
    """

    options: Mapping[str, Any] = field(default_factory=dict)
    change: Optional[Callable[[Mapping[str, np.ndarray]], Arrays]] = None
    back: int = 0


VARIANTS = {
    "as drawn": Variant(),
    "float32": Variant({"precision": "float32"}),
    **{f"seed {seed}": Variant({"seed": seed}) for seed in range(1, 5)},
    "target one step earlier": Variant(back=1),  # the 2016 script runs the code before the step
    "no stop, 500 steps": Variant({"stop": 0, "steps": 500}),
    "stop 10 times later": Variant({"stop": 5e-4}),
    "stop twice as early": Variant({"stop": 1e-2}),
    "blocks 1-3 in 8 bits": Variant(change=lambda arrays: rounded(arrays, (1, 2, 3))),
    "noise in blocks 4-5": Variant(change=lambda arrays: noisy(arrays, (4, 5), 0)),
    "other noise in blocks 4-5": Variant(change=lambda arrays: noisy(arrays, (4, 5), 1)),
}


def chain(
    picture: Path, layer: str, variant: Variant, network: Network, filters: Sequence[int]
) -> List[Inversion]:
    """Return the inversions of a chain of filters."""
    recent: Deque[NDArray] = collections.deque(maxlen=variant.back + 1)

    def remember(state: State) -> None:
        recent.append(state.image)

    options = {"precision": "bfloat16", **variant.options, "network": network}
    if variant.back:
        options["callback"] = remember
    else:
        options["store"] = open_store()
    call = Call("feature_map", [layer], options, {"content": picture})
    code = call.content
    found: List[Inversion] = []
    for place in [Place(index, tuple(filters[:n])) for n, index in enumerate(filters)]:
        targets = {name: codes.isolate(code[name], [place.filter or 0]) for name in code}
        loss = losses.all_codes(targets, call.settings.code_weight)
        found += finished(call.invert([place], lambda _, loss=loss: loss))  # type: ignore[misc]
        code = call.truncated(recent[0]) if variant.back else call.again(found[-1])
    return found


def draw(
    name: str, layer: str, filters: Sequence[int], given: weights.Weights, published: Panels
) -> List[Row]:
    """Draw a variant and compare it."""
    variant, content = VARIANTS[name], pictures.find("golden_gate", table.folders("pictures"))
    network = catalogue.load(weights=given)
    measuring = network
    with tempfile.TemporaryDirectory() as folder:
        if variant.change:
            path = Path(folder) / "changed.npz"
            np.savez(path, **variant.change(given.arrays))  # type: ignore[arg-type]
            network = catalogue.load(weights=path)
        found = chain(content, layer, variant, network, filters)
    names = [f"{layer}_filter{index}" for index in filters]
    panels = {panel: np.asarray(one.image) for panel, one in zip(names, found)}
    reached = {
        panel: Reached.of(one.describe()["outcome"], one.loss) for panel, one in zip(names, found)
    }
    return compare(panels, published, measuring, reached)


def main() -> int:
    """Print the table; the exit status is 2 for a mistake in the input, 130 after Ctrl-C."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("layer", help="such as relu5_2")
    parser.add_argument("published", type=Path, help="the published feature_map_golden_gate.png")
    parser.add_argument("--weights", default="vgg19")
    parser.add_argument("--filters", default="0,1,2,3,4")
    parser.add_argument("--only", default=",".join(VARIANTS), help="names with commas between")
    parser.add_argument("--json", type=Path, help="a file to write the table to")
    chosen = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    rows: Dict[str, List[Dict[str, Any]]] = {}
    try:
        filters = checks.checked("filters", chosen.filters, checks.Numbers)
        published = SHEETS["fig3"].read(chosen.published)  # rather than fail after hours
        given = weights.load(chosen.weights, [chosen.layer])
        for name in chosen.only.split(","):
            if name not in VARIANTS:
                raise unknown("variant", name, VARIANTS)
            for row in draw(name, chosen.layer, filters, given, published):
                sys.stdout.write(f"{name}, {row}\n")
                rows.setdefault(name, []).append(asdict(row))
            sys.stdout.flush()
            if chosen.json:
                files.save_json(chosen.json, rows)
    except FmiError as error:
        sys.stderr.write(f"causes: {error}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write("causes: interrupted; finished panels are kept\n")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
