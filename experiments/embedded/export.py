"""Make the network's file from a finished training run.

``python -m experiments.embedded.export --config experiments/embedded/train.yaml --run DIR --network
models/embedded.npz`` folds batch normalisation, orders the filters, rescales the layers and writes
float16 arrays and a JSON text named ``metadata``. The same run gives the same bytes.
"""

from __future__ import annotations

import argparse
import io
import json
import logging
import zipfile
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

import numpy as np

from experiments.embedded.dataset import MEAN, SCALE, clean_crops
from experiments.embedded.network import (
    TextureNet,
    Weights,
    codes,
    distinct_first,
    fold,
    layer_names,
    permute,
    rescale,
)
from experiments.embedded.train import Config, Run, checkpoints, held_out_canvases
from fmi.pictures import fitted, to_network

log = logging.getLogger(__name__)

EPOCH = (1980, 1, 1, 0, 0, 0)  # the time of every member of the file: equal arrays, equal bytes


def photograph(name: str) -> np.ndarray:
    """A colour photograph that ships with scikit-image: (H, W, 3) uint8 RGB."""
    from skimage import data

    return np.ascontiguousarray(getattr(data, name)()[..., :3])


def photographs(names: Sequence[str], long_edge: int) -> List[np.ndarray]:
    """Photographs of scikit-image as the network takes them: (1, 3, H, W) each, mean subtracted."""
    found = [photograph(name) for name in names]
    return [
        to_network(pixels, fitted(pixels, long_edge), 255.0, MEAN.tolist(), "reflect", True)
        for pixels in found
    ]


def write_network(
    path: Path, weights: Mapping[str, np.ndarray], metadata: Mapping[str, Any]
) -> None:
    """Write float16 weights and metadata as ``.npz``, beside the target first, then renamed."""
    arrays = {name: array.astype(np.float16) for name, array in weights.items()}
    arrays["metadata"] = np.array(json.dumps(metadata, sort_keys=True))
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    with zipfile.ZipFile(part, "w") as file:
        for name, array in arrays.items():
            member = io.BytesIO()
            np.lib.format.write_array(member, array, allow_pickle=False)
            entry = zipfile.ZipInfo(name + ".npy", EPOCH)
            file.writestr(entry, member.getvalue(), zipfile.ZIP_DEFLATED, 9)
    part.replace(path)


def read_network(path: Path) -> Tuple[Weights, Dict[str, Any]]:
    """Weights in float32, and the metadata."""
    with np.load(path, allow_pickle=False) as file:
        metadata = json.loads(str(file["metadata"]))
        names = [name for name in file.files if name != "metadata"]
        return {name: file[name].astype(np.float32) for name in names}, metadata


def trained(config: Config, folder: Path) -> Run:
    """The run at its newest checkpoint."""
    run = Run(config)
    run.load(checkpoints(folder)[-1])
    return run


def folding_difference(net: TextureNet, weights: Weights, pictures: np.ndarray) -> float:
    """Largest difference of relu5_4 before and after folding, over relu5_4's largest value.

    ``pictures`` (B, 3, H, W) are scaled as the training network takes them.
    """
    before = net.features(pictures)
    after = codes(weights, pictures / SCALE)[layer_names()[-1]]
    return float(abs(before - after).max() / before.max())


def make(config: Config, run: Run, canvases: np.ndarray) -> Tuple[Weights, Dict[str, float]]:
    """Folded, ordered and rescaled float32 weights, and what folding and float16 changed.

    Parameters
    ----------
    config, run
        The training run.
    canvases
        Held-out canvases, for the filters' order and the differences.
    """
    pictures, labels = clean_crops(canvases, config.report["crop"], len(canvases), config.seed)
    folded = fold(run.net)
    differences = {"folding": folding_difference(run.net, folded, pictures[:32])}
    ordered = permute(folded, distinct_first(folded, pictures / SCALE))
    calibration = config.calibration
    scenes = photographs(calibration["pictures"], calibration["long_edge"])
    scaled = rescale(ordered, scenes, calibration["means"])
    last = layer_names()[-1]
    full = codes(scaled, scenes[0])[last]
    half = codes({k: v.astype(np.float16) for k, v in scaled.items()}, scenes[0])[last]
    differences["float16"] = float(abs(full - half).max() / full.max())
    return scaled, differences


def main(arguments: Optional[Sequence[str]] = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Write the embedded network's file.")
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--run", type=Path, required=True, help="folder of the training run")
    parser.add_argument("--network", type=Path, required=True, help="the file to write (.npz)")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO)
    config = Config.read(options.config)
    run = trained(config, options.run)
    weights, differences = make(config, run, held_out_canvases(config, options.run))
    metadata = {
        **config.card,
        "mean": [round(float(v), 3) for v in MEAN],
        "channel_order": "RGB",
        "input_range": "0-255 minus mean",
        "steps": run.step,
        "metrics": {"relative_difference": differences},
    }
    write_network(options.network, weights, metadata)
    log.info("wrote %s (%d bytes)", options.network, options.network.stat().st_size)


if __name__ == "__main__":
    main()
