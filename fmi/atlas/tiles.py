"""Tiles: small squares of panels, and the pictures that are made of many of them."""

from __future__ import annotations

import math
from typing import Dict, List, Mapping, Optional, Sequence

import numpy as np
from PIL import Image

__all__ = ["BLANK", "FIELDS", "SIDE", "columns", "evenly", "row", "side", "spritemap", "tile"]

SIDE = 96  # pixels of a tile
FIELDS = 8  # receptive fields across a tile, at most
BLANK = 128  # grey level where there is no panel


def side(receptive_field: int) -> int:
    """Return the side of the part of a panel that a tile shows, in pixels of the panel.

    At most :data:`FIELDS` receptive fields, so that the texture is not lost when it is made
    smaller, and at least :data:`SIDE`, so that it is not enlarged.
    """
    return max(SIDE, FIELDS * receptive_field)


def tile(pixels: np.ndarray, part: int, size: int = SIDE) -> np.ndarray:
    """Return the middle of a panel as a tile.

    Parameters
    ----------
    pixels
        (H, W, 3) uint8 RGB.
    part
        Side of the square that is shown; the short side of the panel if that is less.
    size
        Side of the tile.

    Returns
    -------
    numpy.ndarray
        (size, size, 3) uint8 RGB.
    """
    height, width = pixels.shape[:2]
    part = min(part, height, width)
    top, left = (height - part) // 2, (width - part) // 2
    square = pixels[top : top + part, left : left + part]
    return np.asarray(Image.fromarray(square).resize((size, size), Image.Resampling.LANCZOS))


def columns(channels: int) -> int:
    """Return the number of columns of a spritemap, as lucid has it: about as many as rows."""
    return math.ceil(math.sqrt(channels))


def spritemap(tiles: Mapping[int, np.ndarray], channels: int) -> np.ndarray:
    """Return the tiles of a layer in the order of its channels, row by row.

    Parameters
    ----------
    tiles
        Tiles (S, S, 3) uint8 RGB by channel, at least one.
    channels
        Number of channels of the layer. Those without a tile are grey.

    Returns
    -------
    numpy.ndarray
        (rows * S, columns * S, 3) uint8 RGB.
    """
    size, wide = len(next(iter(tiles.values()))), columns(channels)
    found = np.full((-(-channels // wide) * size, wide * size, 3), BLANK, np.uint8)
    for channel, pixels in tiles.items():
        top, left = channel // wide * size, channel % wide * size
        found[top : top + size, left : left + size] = pixels
    return found


def row(pictures: Sequence[Optional[np.ndarray]], size: int = SIDE) -> np.ndarray:
    """Return square pictures side by side, each (size, size), grey where there is none."""
    found = np.full((size, max(1, len(pictures)) * size, 3), BLANK, np.uint8)
    for place, pixels in enumerate(pictures):
        if pixels is not None:
            found[:, place * size : (place + 1) * size] = tile(pixels, min(pixels.shape[:2]), size)
    return found


def evenly(items: Sequence[int], number: int) -> List[int]:
    """Return at most `number` of the items, evenly spaced, the first and the last among them."""
    if len(items) <= number:
        return list(items)
    places: Dict[int, None] = {}
    for n in range(number):
        places[round(n * (len(items) - 1) / (number - 1))] = None
    return [items[place] for place in places]
