"""Panels: the distance of two textures, and what is kept of a picture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import List, Sequence

import numpy as np
from PIL import Image
from skimage.color import rgb2lab
from skimage.filters import sobel
from skimage.metrics import structural_similarity

from fmi import codes, pictures
from fmi.device.mxnet import context, mx
from fmi.networks.base import Network

__all__ = ["SIZE", "TRIM", "Kept", "descriptors", "distance", "distances", "kept"]

SIZE = (250, 187)  # width and height of a panel in the published Fig. 3
TRIM = 6  # pixels removed at each side: frames of the published panels, effects of zero padding


@dataclass(frozen=True)
class Kept:
    """How much of one picture another one keeps.

    Attributes
    ----------
    ssim
        Structural similarity of the lightness L* (Wang et al. 2004), at most 1.
    edges
        Correlation of the edges, the size of the Sobel gradient of L*; from -1 to 1.
    colour
        Mean distance of the colours in the plane of a* and b* of CIELAB.
    """

    ssim: float
    edges: float
    colour: float


def kept(panel: np.ndarray, picture: np.ndarray) -> Kept:
    """Return how much of a picture a panel keeps.

    Parameters
    ----------
    panel, picture
        Pictures (H, W, 3) uint8 RGB; they are compared at :data:`SIZE`, without :data:`TRIM`.
    """
    (light, *colours), (other, *others) = (
        np.moveaxis(rgb2lab(_inner(one) / 255), 2, 0) for one in (panel, picture)
    )
    edges, theirs = sobel(light), sobel(other)
    flat = not (edges.std() and theirs.std())
    return Kept(
        ssim=float(structural_similarity(light, other, data_range=100)),
        edges=0.0 if flat else float(np.corrcoef(edges.ravel(), theirs.ravel())[0, 1]),
        colour=float(np.hypot(*(p - q for p, q in zip(colours, others))).mean()),
    )


def _inner(panel: np.ndarray) -> np.ndarray:
    """Return a panel at :data:`SIZE` without :data:`TRIM`, float32."""
    image = np.asarray(Image.fromarray(panel).resize(SIZE, Image.Resampling.LANCZOS))
    return image[TRIM:-TRIM, TRIM:-TRIM].astype(np.float32)


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
    truncated = network.truncated(layers, "avg", device, pool_rounding="down")
    found = []
    for panel in panels:
        image = _inner(panel)
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
