"""Untrained weights: the network's topology and mean activations with nothing learned."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Dict, List, Mapping, Sequence

import numpy as np

from fmi import files, pictures
from fmi.device.mxnet import context, mx
from fmi.errors import InputError
from fmi.networks import catalogue
from fmi.networks import weights as weights_
from fmi.networks.base import Network
from fmi.networks.vgg import VGG
from fmi.pictures import Picture
from fmi.sources import formats

__all__ = ["family", "he", "mean_activations", "rescaled", "untrained"]

Arrays = Dict[str, np.ndarray]


def family(network: Network) -> VGG:
    """Return a network of the VGG family.

    Raises
    ------
    InputError
        If it is another one, of which no untrained counterpart can be made.
    """
    if not isinstance(network, VGG):
        raise InputError(
            f"the claims are measured on networks of the VGG family, and {network.name} is none;"
            " give its weights with WEIGHTS="
        )
    return network


def he(arrays: Mapping[str, np.ndarray], seed: int) -> Arrays:
    """Return weights of the same shapes with He's initialisation (He et al. 2015), zero biases.

    Parameters
    ----------
    arrays
        ``conv1_1_weight`` (O, I, 3, 3), ``conv1_1_bias`` (O,) ...
    seed
        Integer from 0 to 2**32 - 1.
    """
    random, found = np.random.RandomState(seed), {}
    for name, values in arrays.items():
        fan_in = values[0].size
        spread = np.sqrt(2 / fan_in) if name.endswith("_weight") else 0
        found[name] = (random.standard_normal(values.shape) * spread).astype(np.float32)
    return found


def mean_activations(network: Network, images: Sequence[Picture], edge: int) -> Dict[str, float]:
    """Return the mean activation of each relu layer over pictures, each of which counts once.

    Parameters
    ----------
    network
        A network of the VGG family.
    images
        The pictures.
    edge
        Their long edge in pixels after resizing.
    """
    names = [f"relu{name[len('conv') :]}" for name in family(network).weights.covers]
    truncated = network.truncated(names, "avg", context("cpu"))
    each: Dict[str, List[float]] = {name: [] for name in names}
    for image in images:
        size = pictures.fitted(image.pixels, edge)
        given = pictures.to_network(image.pixels, size, 255.0, network.mean, "constant", False)
        for name, code in truncated(mx.nd.array(given)).items():
            each[name].append(float(code.mean().asscalar()))
    return {name: float(np.mean(values)) for name, values in each.items()}


def rescaled(
    arrays: Mapping[str, np.ndarray], found: Mapping[str, float], wanted: Mapping[str, float]
) -> Arrays:
    """Scale the layers of a network without biases to wanted mean activations.

    Relus and average pooling are homogeneous: a factor of one layer's weights is a factor of all
    further codes.

    Parameters
    ----------
    arrays
        Weights whose biases are 0.
    found, wanted
        Mean activations by layer, ``relu1_1`` ..., in the order of computation.
    """
    scaled, before = dict(arrays), 1.0
    for layer in wanted:
        name = f"conv{layer[len('relu') :]}_weight"
        # Few digits, so that the weights are the same where sums differ in the last one.
        factor = float(f"{wanted[layer] / found[layer]:.3g}")
        scaled[name] = (arrays[name] * np.float32(factor / before)).astype(np.float32)
        before = factor
    return scaled


def untrained(network: Network, images: Sequence[Picture], edge: int, path: Path) -> Network:
    """Return an untrained counterpart of a network, and write its weights.

    Parameters
    ----------
    network
        A network of the VGG family.
    images, edge
        Pictures on which the mean activations of all layers shall be equal, and their long edge.
    path
        The ``.npz`` file to write.
    """
    weights = family(network).weights
    kept = {f"{name}_{kind}" for name in weights.covers for kind in ("weight", "bias")}
    arrays = he({name: weights.arrays[name] for name in sorted(kept)}, seed=0)
    metadata = np.array(json.dumps({"mean": list(weights.mean)}))
    files.prepare(path.parent)
    wanted = mean_activations(network, images, edge)

    def loaded() -> Network:
        buffer = io.BytesIO()
        np.savez(buffer, **arrays, **{formats.METADATA: metadata})
        files.write_whole(path, lambda file: file.write_bytes(buffer.getvalue()))
        return catalogue.load(weights=weights_.read(path))

    arrays = rescaled(arrays, mean_activations(loaded(), images, edge), wanted)
    return loaded()
