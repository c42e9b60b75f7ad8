"""Crops: parts of photographs, and which of them excite a filter most."""

from __future__ import annotations

import importlib.util
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, List, Optional, Sequence, Tuple, Union

import numpy as np
from PIL import Image

from fmi import codes, pictures
from fmi.device.environment import pip_install
from fmi.device.mxnet import NDArray
from fmi.errors import InputError, brief
from fmi.evidence import maps
from fmi.networks.base import Network
from fmi.networks.reach import Reach
from fmi.pictures import SUFFIXES, Picture, Source

__all__ = ["SKIMAGE", "SKLEARN", "Crops", "cut", "photographs", "responses", "top"]

log = logging.getLogger(__name__)

# Natural photographs that the packages bring along, also in their oldest supported versions.
SKIMAGE = (
    "astronaut.png",
    "brick.png",
    "chelsea.png",
    "coffee.png",
    "grass.png",
    "gravel.png",
    "motorcycle_left.png",
    "rocket.jpg",
)
SKLEARN = ("china.jpg", "flower.jpg")


def photographs(folder: Union[None, str, Path] = None) -> List[Picture]:
    """Return the photographs of a folder; by default ten of scikit-image and scikit-learn.

    Files that are no pictures are left out, and the log names each of them.

    Parameters
    ----------
    folder
        A folder with pictures of the formats of :data:`fmi.pictures.SUFFIXES`; those in its folders
        are not read.

    Raises
    ------
    InputError
        If scikit-image or scikit-learn is not installed, or if the folder has no picture that can
        be read.
    """
    if folder is None:
        images = [_package("skimage", "scikit-image") / "data" / name for name in SKIMAGE]
        more = _package("sklearn", "scikit-learn") / "datasets" / "images"
        return [pictures.read(path) for path in (*images, *(more / name for name in SKLEARN))]
    try:
        files = sorted(Path(folder).iterdir())
    except (OSError, ValueError) as error:
        raise InputError(
            f"the folder of photographs {brief(folder)} cannot be read:"
            f" {getattr(error, 'strerror', None) or error}"
        ) from None
    found = []
    for file in files:
        if file.suffix.lower() not in SUFFIXES:
            log.warning("%s is left out: it is not a picture", brief(file))
            continue
        try:
            found.append(pictures.read(file))
        except InputError as error:
            log.warning("%s is left out: %s", brief(file), error)
    if not found:
        raise InputError(
            f"no photograph in {brief(folder)} can be read; it must contain files that end in"
            f" {', '.join(SUFFIXES)}"
        )
    return found


def _package(name: str, title: str) -> Path:
    """Return the folder of an installed package, which is not imported."""
    package = importlib.util.find_spec(name)
    if package is None or package.origin is None:
        raise InputError(
            f"the photographs of {title} are needed: {pip_install('claims')}, or give a folder with"
            " photographs"
        )
    return Path(package.origin).parent


@dataclass(frozen=True)
class Crops:
    """Square parts of photographs.

    Attributes
    ----------
    pixels
        (n, size, size, 3) uint8 RGB.
    picture
        (n,) the photograph of each crop, as its number in the list.
    row, column, side
        (n,) the upper left corner and the side of each crop, in pixels of the photograph as it was
        given. The side is `size` at scale 1.
    """

    pixels: np.ndarray
    picture: np.ndarray
    row: np.ndarray
    column: np.ndarray
    side: np.ndarray

    def __len__(self) -> int:
        return len(self.pixels)


def cut(
    photographs: Sequence[Source], size: int, stride: int, scales: Sequence[float] = (1.0,)
) -> Crops:
    """Cut photographs into squares.

    Parameters
    ----------
    photographs
        Pictures as for :func:`fmi.pictures.read`.
    size
        Side of the crops, in pixels.
    stride
        Distance of neighbouring crops, in pixels of the photograph after scaling. The grid is in
        the middle of it. At less than `size`, crops overlap.
    scales
        Scales at which each photograph is cut. At 0.5, it is first reduced to half of its size
        (Lanczos), and a crop shows twice as much on each side.

    Raises
    ------
    InputError
        If size, stride or a scale is not positive, or if no photograph is large enough. The log
        names those that are too small.
    """
    if size < 1 or stride < 1:
        raise InputError(f"size={size} and stride={stride} must be at least 1")
    if not len(scales) or not all(0 < scale < float("inf") for scale in scales):
        raise InputError(f"scales={tuple(scales)} must be positive numbers, at least one")
    if not len(photographs):
        raise InputError("no photograph is given; give at least one")
    found: List[np.ndarray] = []
    places: List[Tuple[float, ...]] = []
    for number, source in enumerate(photographs):
        photograph = pictures.read(source)
        for scale in scales:
            pixels = _scaled(photograph.pixels, scale)
            height, width = pixels.shape[:2]
            if min(height, width) < size:
                log.warning(
                    "photograph %s is left out at scale %g: it has %d x %d pixels, and crops %d",
                    *(photograph.name, scale, width, height, size),
                )
                continue
            # Not 1 / scale: a scaled side is a whole number of pixels.
            down, across = (a / b for a, b in zip(photograph.pixels.shape, pixels.shape[:2]))
            for row in range((height - size) % stride // 2, height - size + 1, stride):
                for column in range((width - size) % stride // 2, width - size + 1, stride):
                    found.append(pixels[row : row + size, column : column + size])
                    places.append((number, row * down, column * across, size * down))
    if not found:
        raise InputError(
            f"no photograph has room for a crop of {size} pixels at scale"
            f" {' or '.join(f'{scale:g}' for scale in scales)}; reduce size or add larger ones"
        )
    numbers, rows, columns, sides = np.array(places).T
    return Crops(np.stack(found), numbers.astype(int), rows, columns, sides)


def _scaled(pixels: np.ndarray, scale: float) -> np.ndarray:
    if scale == 1:
        return pixels
    height, width = (max(1, round(side * scale)) for side in pixels.shape[:2])
    resized = Image.fromarray(pixels).resize((width, height), Image.Resampling.LANCZOS)
    return np.asarray(resized)


def responses(
    network: Network,
    given: Sequence[Source],
    layers: Sequence[str],
    precision: str = "float32",
    interior: bool = False,
) -> Dict[str, np.ndarray]:
    """Return the mean activation of each feature map on each picture.

    Parameters
    ----------
    network, layers
        Network, and names of its layers.
    given
        Pictures as for :func:`fmi.pictures.read`, such as :attr:`Crops.pixels`.
    precision
        One of the network's precisions.
    interior
        Whether to use only the positions that depend on no pixel outside of the picture, where the
        network's padding is.

    Returns
    -------
    dict
        For each layer, by the name given, (n, C) float32.

    Raises
    ------
    InputError
        If a picture cannot be read or is too small: for a layer, or for it to have such positions.
    """
    if not len(layers):
        raise InputError("no layer is given; name at least one")
    names = {layer: network.layer(layer).name for layer in layers}
    found: Dict[str, List[np.ndarray]] = {layer: [] for layer in layers}
    for where, batch in maps.in_batches(network, given, list(names.values()), precision):
        size = pictures.read(given[where[0]]).pixels.shape[:2] if interior else ()
        for layer, name in names.items():
            code = _inside(batch[name], network, name, size) if interior else batch[name]
            found[layer].append(codes.energies(code).asnumpy() / code[0, 0].size)
    return {layer: np.concatenate(parts).astype(np.float32) for layer, parts in found.items()}


def _inside(code: NDArray, network: Network, layer: str, size: Tuple[int, ...]) -> NDArray:
    """Return the positions of a code (B, C, M, N) that depend on pixels of the picture alone."""
    for axis, (reach, pixels) in enumerate(zip(network.reach(layer), size), start=2):
        first, last = _bounds(reach, pixels)
        last = min(last, code.shape[axis] - 1)
        if first > last:
            raise InputError(
                f"each position of {layer} in a picture of {pixels} pixels depends on padding:"
                f" pictures must have at least {_least(reach)} pixels, or omit interior"
            )
        code = code.slice_axis(axis=axis, begin=first, end=last + 1)
    return code


def _bounds(reach: Reach, pixels: int) -> Tuple[int, int]:
    """Return the first and the last position that depends on pixels 0 to ``pixels - 1`` alone."""
    return max(0, -(-reach.before // reach.stride)), (pixels - 1 - reach.after) // reach.stride


def _least(reach: Reach) -> int:
    """Return the side of the smallest picture that has a position without padding."""
    return _bounds(reach, 1)[0] * reach.stride + reach.after + 1


def top(
    responses: np.ndarray,
    crops: Crops,
    number: Optional[int] = None,
    least_distance: float = 1.0,
    per_picture: Optional[int] = None,
) -> np.ndarray:
    """Return the crops that excite a filter most, at most one from each neighbourhood.

    Parameters
    ----------
    responses
        (n,) the response of the filter to each crop.
    crops
        The n crops.
    number
        How many crops to return; by default, all that fit.
    least_distance
        Two crops of one photograph must be this far apart, horizontally or vertically, in units
        of their mean side. At 1 they do not overlap; at 0 all crops may be returned.
    per_picture
        The largest number of crops of one photograph; by default, any. Without it, one large
        texture, such as a brick wall, may be all that a filter's top crops show.

    Returns
    -------
    numpy.ndarray
        (at most `number`,) indices, the largest response first, the earlier crop first where
        responses are equal. Crops whose response is not positive are never returned: a filter that
        is silent on all crops has none.

    Raises
    ------
    InputError
        If there is not one finite response for each crop.
    """
    responses = np.asarray(responses, dtype=np.float64)
    if responses.shape != (len(crops),) or not np.isfinite(responses).all():
        raise InputError(
            f"there must be a finite response for each of {len(crops)} crops; the array has shape"
            f" {responses.shape}"
        )
    rows, columns = crops.row + crops.side / 2, crops.column + crops.side / 2
    chosen: List[int] = []
    for index in np.argsort(-responses, kind="stable"):
        if responses[index] <= 0 or (number is not None and len(chosen) >= number):
            break
        same = crops.picture[chosen] == crops.picture[index]
        if per_picture is not None and same.sum() >= per_picture:
            continue
        sides = (crops.side[chosen] + crops.side[index]) / 2
        apart = np.maximum(
            np.abs(rows[chosen] - rows[index]), np.abs(columns[chosen] - columns[index])
        )
        near = apart < least_distance * sides * (1 - 1e-9)  # rounding of scaled places
        if not (near & same).any():
            chosen.append(int(index))
    return np.array(chosen, dtype=int)
