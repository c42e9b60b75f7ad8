"""Reports on weights files for ``fmi weights``, and their conversion."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Dict, List, Mapping, Tuple, Union

import numpy as np

from fmi import files, pictures
from fmi.errors import InputError
from fmi.networks import vgg
from fmi.networks.weights import Weights, _named_at, embedded_path, read
from fmi.sources import formats, table

__all__ = ["GATYS", "activations", "convert", "normalised", "report", "survey", "verify"]

GATYS = (0.2, 5.0)  # mean activations are about 1 for normalised weights, 10 to 1000 for Caffe's


def convert(path: Union[str, Path], out: Union[str, Path]) -> Weights:
    """Save canonical weights as ``.npz``, and read them back.

    Raises
    ------
    InputError
        If `path` cannot be read, or `out` does not end in ``.npz`` or cannot be written.
    """
    out = Path(out)
    if out.suffix != ".npz":
        raise InputError(f"{out}: weights are saved as .npz; choose a name that ends in .npz")
    weights = read(path)
    record = {
        "mean": list(weights.mean),
        "converted_from": {"name": weights.path.name, "sha256": weights.sha256},
        "layout": weights.layout.name,
        "source": weights.source,
    }
    content = {**weights.arrays, formats.METADATA: np.array(json.dumps(record))}

    def write(beside: Path) -> None:
        with zipfile.ZipFile(beside, "w") as archive:
            for name, array in content.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, array, allow_pickle=False)

    files.write_whole(out, write)
    return read(out)


def activations(weights: Weights, picture: np.ndarray) -> Dict[str, float]:
    """Return the mean activation of each relu on a picture, with max pooling as in training.

    Parameters
    ----------
    weights
        Weights of a VGG network.
    picture
        (H, W, 3) uint8 RGB.
    """
    from fmi.device.mxnet import context, mx

    names = [name.replace("conv", "relu") for name in weights.covers]
    if not names:
        raise InputError(f"{weights.path} lacks conv1_1, which every layer needs")
    ctx = context("cpu")
    network = vgg.network(weights).truncated(names, "max", ctx)
    image = mx.nd.array(pictures.from_rgb(picture, weights.mean), ctx=ctx)
    return {name: float(code.mean().asscalar()) for name, code in network(image).items()}


def normalised(means: Mapping[str, float]) -> bool:
    """Return whether mean activations are those of the normalised weights of Gatys et al.

    Gatys et al. scaled each filter so that its mean activation on photographs is 1. The mean
    activations of the original weights are between 10 and 1000 in most layers.
    """
    low, high = GATYS
    return bool(low < np.median(list(means.values())) < high)


def report(weights: Weights) -> str:
    """Return the text of ``fmi weights show``: layout, layers, statistics, input, probable origin.

    The activations are computed for a photograph.
    """
    from skimage import data

    picture = np.ascontiguousarray(data.astronaut()[:448:2, :448:2])  # a photograph, 224 x 224
    means = activations(weights, picture)
    covered, count = weights.covers, len(weights.topology.convolutions)
    if weights.embedded:
        kind = "the embedded network"
    elif not weights.layout.original:
        kind = "retrained: its filters differ from those in the published Fig. 3"
    elif normalised(means):
        kind = "normalised as by Gatys et al.: mean activations are about 1"
    else:
        kind = "not normalised, like the original Caffe weights"
    lines = [
        f"file      {weights.path}",
        f"sha256    {weights.sha256}",
        f"source    {weights.source or 'unknown digest'}",
        f"format    {weights.format}",
        f"layout    {weights.layout.name}",
        f"input     {weights.layout.describe()}",
        f"used as   RGB 0-255 minus ({', '.join(f'{v:.3f}' for v in weights.mean)})",
        f"network   {weights.topology.name}",
        f"layers    {covered[0]} to {covered[-1]} ({len(covered)} of {count})",
        f"kind      {kind}",
        "",
        "layer     filters   weight: mean    std       bias: mean      std  mean activation",
    ]
    for name in covered:
        weight, bias = weights.arrays[f"{name}_weight"], weights.arrays[f"{name}_bias"]
        lines.append(
            f"{name}   {len(bias):7d}   {weight.mean():12.3e}  {weight.std():9.3e}"
            f"  {bias.mean():10.3e}  {bias.std():9.3e}  {means[name.replace('conv', 'relu')]:10.4g}"
        )
    return "\n".join(lines)


def survey() -> str:
    """Return the text of ``fmi weights list``: known and present files, their state and licence."""
    lines = []
    for found in table.survey(table.models()):
        source = found.source
        lines += [
            f"{source.name}: {source.title}",
            f"    {found.state}{f': {found.path}' if found.path else ''}",
            f"    {source.size / 1e6:.3g} MB, {source.digest}",
            f"    {source.author}, {source.year}; {source.licence}",
        ]
    known = {source.file for source in table.models().values()}
    for path in table.candidates():
        if path.name not in known:
            digest = files.file_digest(path, "sha256")
            lines += [f"{path}: unknown digest", f"    sha256:{digest}"]
    path = embedded_path()
    state = f"ok: {path}" if path.is_file() else "missing"
    lines += ["embedded: a small network that comes with fmi, not VGG-19", f"    {state}"]
    return "\n".join(lines)


def verify() -> List[Tuple[Path, str, bool]]:
    """Read every file that may be VGG-19; return each path, its state and whether it is usable."""
    files = [found.path for found in table.survey(table.models()) if found.path]
    known = {source.file: source for source in table.models().values()}
    result = []
    for path in dict.fromkeys([*files, *table.candidates()]):
        source = known.get(path.name)
        try:
            found = _named_at(path, source) if source else read(path)
            state = f"{found.source}, ok" if found.source else "unknown digest"
            result.append((path, f"{state}, sha256 {found.sha256}", True))
        except InputError as error:
            result.append((path, str(error), False))
    return result
