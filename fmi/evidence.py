"""Similarity of textures, measured by colour and Gram matrices."""

from __future__ import annotations

from typing import List, Sequence

import numpy as np
from PIL import Image

from fmi import codes, pictures
from fmi.device.mxnet import context, mx
from fmi.networks.base import Network

__all__ = ["SIZE", "TRIM", "descriptors", "distance", "distances"]

SIZE = (250, 187)  # width and height of a panel in the published Fig. 3
TRIM = 6  # pixels removed at each side: frames of the published panels, effects of zero padding


def descriptors(
    panels: Sequence[np.ndarray], network: Network, layers: Sequence[str]
) -> List[List[np.ndarray]]:
    """Return the descriptors of each panel: its mean colour and Gram matrices per position.

    Parameters
    ----------
    panels
        Pictures (H, W, 3) uint8 RGB of any size.
    network, layers
        Network and layers for the Gram matrices.

    Returns
    -------
    list of list of numpy.ndarray
        For each panel, the colour (3,) and a Gram matrix (C, C) for each layer.
    """
    device = context("cpu")
    truncated = network.truncated(layers, "avg", device)
    found = []
    for panel in panels:
        image = np.asarray(Image.fromarray(panel).resize(SIZE, Image.Resampling.LANCZOS))
        image = image[TRIM:-TRIM, TRIM:-TRIM].astype(np.float32)
        code = truncated(mx.nd.array(pictures.from_rgb(image, network.mean), ctx=device))
        grams = [codes.gram(code[name]).asnumpy()[0] / code[name][0, 0].size for name in code]
        found.append([image.mean(axis=(0, 1)), *grams])
    return found


def distance(first: Sequence[np.ndarray], second: Sequence[np.ndarray]) -> float:
    """Return the sum of ``||p - q|| / (||p|| + ||q||)`` over the descriptors of two panels."""
    total = 0.0
    for p, q in zip(first, second):
        size = float(np.linalg.norm(p) + np.linalg.norm(q))
        total += float(np.linalg.norm(p - q)) / size if size else 0.0
    return total


def distances(
    rows: Sequence[np.ndarray],
    columns: Sequence[np.ndarray],
    network: Network,
    layers: Sequence[str],
) -> np.ndarray:
    """Return the distances between panels, an array of shape (len(rows), len(columns))."""
    left, right = (descriptors(panels, network, layers) for panels in (rows, columns))
    return np.array([[distance(p, q) for q in right] for p in left])
