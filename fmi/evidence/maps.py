"""Maps: the feature maps of many pictures of any size, computed in batches."""

from __future__ import annotations

from typing import Dict, Iterator, List, Sequence, Tuple

import numpy as np

from fmi import pictures
from fmi.device.mxnet import NDArray, context, mx
from fmi.errors import InputError
from fmi.networks.base import Network
from fmi.pictures import Source

__all__ = ["PIXELS", "in_batches", "read_all"]

PIXELS = 1 << 19  # of a batch: VGG-19 then needs about 0.3 GB


def read_all(given: Sequence[Source]) -> List[np.ndarray]:
    """Return the pixels of pictures, (H, W, 3) uint8 RGB each.

    Raises
    ------
    InputError
        If there is none, or if one of them cannot be read.
    """
    if not len(given):
        raise InputError("no picture is given; give at least one")
    return [pictures.read(picture).pixels for picture in given]


def in_batches(
    network: Network, given: Sequence[Source], layers: Sequence[str], precision: str = "float32"
) -> Iterator[Tuple[range, Dict[str, NDArray]]]:
    """Yield the codes of pictures, several of one size at a time.

    The network uses average pooling with sizes rounded down, unlike :mod:`fmi.invert`, whose
    presets round them up.

    Parameters
    ----------
    network, layers
        Network, and names of its layers.
    given
        Pictures as for :func:`fmi.pictures.read`, such as (H, W, 3) uint8 RGB.
    precision
        One of the network's precisions; the codes are float32.

    Yields
    ------
    tuple
        The positions of some pictures in `given`, and by the full name of each layer their codes
        (B, C, M, N), which the next batch may overwrite.

    Raises
    ------
    InputError
        If a picture cannot be read or is too small for a layer, or if a layer does not exist.
    """
    pixels = read_all(given)
    names = list(dict.fromkeys(network.layer(layer).name for layer in layers))
    for number, picture in enumerate(pixels):
        height, width = picture.shape[:2]
        network.check_size(names, height, width, f"picture {number}")
    device = context("cpu")
    truncated = network.truncated(names, "avg", device, precision, pool_rounding="down")
    begin = 0
    while begin < len(pixels):
        height, width = pixels[begin].shape[:2]
        end = begin + 1
        while (
            end < len(pixels)
            and pixels[end].shape[:2] == (height, width)
            and (end - begin + 1) * height * width <= PIXELS
        ):
            end += 1
        batch = [pictures.from_rgb(picture, network.mean) for picture in pixels[begin:end]]
        yield range(begin, end), truncated(mx.nd.array(np.concatenate(batch), ctx=device))
        begin = end
