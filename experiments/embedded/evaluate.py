"""Measure what the embedded network's card states.

``python -m experiments.embedded.evaluate --config experiments/embedded/train.yaml --run DIR
--network models/embedded.npz --out metrics.json`` measures accuracy, silent filters, and the panels
of feature map inversion (Eq. 1-2, preset CODE) on photographs that ship with scikit-image, for the
network and, with ``--untrained``, for one of the same shape that learned nothing. With ``--record``
the metrics are written into the network's metadata too. After Ctrl-C nothing is written.
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
from pathlib import Path
from typing import Any, Dict, Iterable, List, Mapping, Optional, Sequence

import numpy as np
from tqdm import tqdm

import fmi.invert
from experiments.compare import JUDGED
from experiments.embedded.dataset import SCALE, clean_crops
from experiments.embedded.export import (
    photograph,
    photographs,
    read_network,
    trained,
    write_network,
)
from experiments.embedded.network import codes, rescale, untrained
from experiments.embedded.train import Config, accuracy, held_out_canvases
from experiments.outcome import finished
from fmi import evidence, files
from fmi.errors import FmiError
from fmi.evidence.appearance import colourfulness
from fmi.networks import catalogue
from fmi.networks.base import Network

log = logging.getLogger(__name__)

LUMINANCE = np.array((0.299, 0.587, 0.114))


def never_active(
    weights: Mapping[str, np.ndarray], pictures: Sequence[np.ndarray]
) -> Dict[str, int]:
    """Number of filters in every layer that are 0 everywhere on all pictures (B, 3, H, W)."""
    active: Dict[str, np.ndarray] = {}
    for batch in pictures:
        for name, code in codes(weights, batch).items():
            found = (code > 0).any((0, 2, 3))
            active[name] = active.get(name, np.zeros_like(found)) | found
    return {name: int((~found).sum()) for name, found in active.items()}


def chosen_filters(count: int, number: int) -> List[int]:
    """``number`` filters spread evenly over ``count``: an order of filters cannot favour them."""
    number = min(number, count)
    return [i * count // number for i in range(number)]


def contrast(panel: np.ndarray) -> float:
    """Standard deviation of the luminance of a panel (H, W, 3), 0-255 scale."""
    return float((panel @ LUMINANCE).std())


def median(values: Iterable[float]) -> float:
    """The median, to a tenth."""
    return round(float(np.median(list(values))), 1)


def found_again(panels: Sequence[Sequence[np.ndarray]], network: Network) -> float:
    """How often a panel's nearest panel from another photograph shows the same filter.

    Parameters
    ----------
    panels
        For each photograph the panels of the same filters, each (H, W, 3) uint8.
    network
        The network whose relu1_1 and relu2_1 measure the distance.

    Returns
    -------
    float
        Share of the panels, 0 to 1.
    """
    scenes, filters = len(panels), len(panels[0])
    flat = [panel for row in panels for panel in row]
    distances = evidence.distances(flat, flat, network, JUDGED)
    scene = np.repeat(np.arange(scenes), filters)
    distances[scene[:, None] == scene[None, :]] = np.inf
    nearest = distances.argmin(1) % filters
    return float((nearest == np.arange(len(flat)) % filters).mean())


def invert_row(
    path: Path, layer: str, entries: Mapping[str, Any], judge: Network
) -> Dict[str, float]:
    """Invert one layer's chosen filters over all photographs and measure the panels.

    Parameters
    ----------
    path
        The network's file.
    layer
        ``relu1_2`` ...
    entries
        ``panels`` of the YAML: pictures, long_edge, filters.
    judge
        The network that measures distances.
    """
    weights, _ = read_network(path)
    filters = chosen_filters(len(weights[f"conv{layer[4:]}_bias"]), entries["filters"])
    inversions = []
    for name in entries["pictures"]:
        found = fmi.invert.feature_map(
            photograph(name),
            layer,
            filters,
            weights=path,
            long_edge=entries["long_edge"],
            progress=False,
        )
        inversions.append(finished(found))
    panels = [[np.asarray(inversion.image) for inversion in row] for row in inversions]
    return {
        "found_again": round(found_again(panels, judge), 4),
        "contrast": median(contrast(np.asarray(i.undenoised)) for row in inversions for i in row),
        "contrast_denoised": median(contrast(panel) for row in panels for panel in row),
        "colourfulness": median(colourfulness(panel) for row in panels for panel in row),
    }


def invert_rows(
    path: Path, entries: Mapping[str, Any], judge: Network
) -> Dict[str, Dict[str, float]]:
    """:func:`invert_row` for every layer of the YAML's ``panels``."""
    with tqdm(entries["layers"], f"inverting {path.stem}", disable=None) as layers:
        return {layer: invert_row(path, layer, entries, judge) for layer in layers}


def untrained_rows(config: Config, judge: Network) -> Dict[str, Dict[str, float]]:
    """The same with He's initialisation, its layers rescaled to the same mean activations."""
    calibration = config.calibration
    scenes = photographs(calibration["pictures"], calibration["long_edge"])
    weights = untrained(config.network["channels"], config.seed)
    weights = rescale(weights, scenes, calibration["means"])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "untrained.npz"
        write_network(path, weights, {})
        return invert_rows(path, config.panels, judge)


def measure(config: Config, folder: Path, path: Path) -> Dict[str, Any]:
    """Metrics of the network at ``path``, made from the training run in ``folder``."""
    weights, _ = read_network(path)
    canvases = held_out_canvases(config, folder)
    crop, count = config.report["crop"], config.report["pictures"]
    pictures, _ = clean_crops(canvases, crop, count, config.seed + 1)
    batches = np.array_split(pictures / SCALE, max(1, count // 32))
    scenes = photographs(config.calibration["pictures"], config.calibration["long_edge"])
    judge = catalogue.load(weights=path)
    net, repeats = trained(config, folder).net, config.report["repeats"]
    rounds = [accuracy(net, canvases, crop, count, config.seed + 1 + i) for i in range(repeats)]
    return {
        "accuracy": {
            layer: round(float(np.mean([found[layer] for found in rounds])), 4)
            for layer in rounds[0]
        },
        "accuracy_crops": count * repeats,
        "classes": config.canvases["classes"],
        "never_active": {
            "procedural": never_active(weights, batches),
            "photographs": never_active(weights, scenes),
        },
        "panels": invert_rows(path, config.panels, judge),
    }


def record(path: Path, metrics: Mapping[str, Any]) -> None:
    """Add metrics to the metadata of the network's file."""
    weights, metadata = read_network(path)
    metadata["metrics"] = {**metadata.get("metrics", {}), **metrics}
    write_network(path, weights, metadata)


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Exit status 2 for a mistake in the input, 130 after Ctrl-C, when nothing is written."""
    parser = argparse.ArgumentParser(description="Measure the embedded network.")
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--run", type=Path, required=True, help="folder of the training run")
    parser.add_argument("--network", type=Path, required=True, help="its file (.npz)")
    parser.add_argument("--out", type=Path, required=True, help="metrics (.json)")
    parser.add_argument("--untrained", action="store_true", help="measure one beside it")
    parser.add_argument("--record", action="store_true", help="write them into the network too")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO)
    try:
        config = Config.read(options.config)
        metrics = measure(config, options.run, options.network)
        if options.untrained:
            judge = catalogue.load(weights=options.network)
            metrics["panels_untrained"] = untrained_rows(config, judge)
        files.save_json(options.out, metrics)
        if options.record:
            record(options.network, metrics)
    except (FmiError, OSError) as error:
        sys.stderr.write(f"evaluate: {error}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write("evaluate: interrupted; nothing has been written\n")
        return 130
    log.info("wrote %s", options.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
