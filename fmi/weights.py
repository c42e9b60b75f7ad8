"""Weights of VGG-19: found, read from ``.npz`` and MXNet's ``.params``, brought to one form.

The one form: float32, kernels (O, I, 3, 3) for RGB on the 0-255 scale minus a mean colour.
"""

from __future__ import annotations

import hashlib
import io
import logging
import os
import re
import struct
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Mapping, Sequence, Tuple, Union

import numpy as np

from fmi import vgg
from fmi.errors import InputError, unknown

log = logging.getLogger(__name__)

CAFFE_MEAN = (123.68, 116.779, 103.939)  # RGB; the VGG authors', also in the 2016 code
# Gluon's model zoo takes (x / 255 - mean) / std.
ZOO_MEAN = (0.485, 0.456, 0.406)
ZOO_STD = (0.229, 0.224, 0.225)

NDARRAY_LIST = 0x112  # first word of MXNet's .params files
NDARRAY_V2 = 0xF993FAC9
NDARRAY_V3 = 0xF993FACA
DTYPES = {0: np.float32, 1: np.float64, 2: np.float16}


@dataclass(frozen=True)
class Weights:
    """A network's weights in the one form.

    Attributes
    ----------
    name
        The file's name without its suffix.
    path, sha256
        The file and its digest.
    mean
        RGB colour, 0-255, to subtract from a picture.
    arrays
        ``conv1_1_weight`` (O, I, 3, 3), ``conv1_1_bias`` (O,) ...
    """

    name: str
    path: Path
    sha256: str
    mean: Tuple[float, float, float]
    arrays: Mapping[str, np.ndarray]

    def describe(self) -> Dict[str, object]:
        """What identifies the weights, for an inversion's settings."""
        return {"name": self.name, "sha256": self.sha256, "mean": list(self.mean)}


def folders() -> List[Path]:
    """Where weights are looked for: ``FMI_MODELS``, then ``models/`` of the checkout."""
    named = [Path(p) for p in os.environ.get("FMI_MODELS", "").split(os.pathsep) if p]
    return named + [Path(__file__).resolve().parent.parent / "models"]


def load(weights: Union[str, Path], layers: Sequence[str]) -> Weights:
    """Weights that cover `layers`.

    Parameters
    ----------
    weights
        A path; or ``"vgg19"`` or ``"auto"``: the first file in :func:`folders` whose name
        starts with ``vgg19`` and that covers the layers.
    layers
        Names of layers.

    Raises
    ------
    InputError
        If no file is found, it cannot be read, or it lacks a layer; the first missing
        convolution is named.
    """
    needed = vgg.convolutions_before(vgg.deepest(layers))
    text = str(weights)
    if text not in ("auto", "vgg19"):
        if os.sep not in text and "." not in text:
            raise unknown("weights", text, ("auto", "vgg19", "or a path"))
        return _covering(read(weights), needed)
    problem = None
    for file in _candidates():
        try:
            return _covering(read(file), needed)
        except InputError as error:
            problem = problem or error
            log.debug("%s", error)
    if problem is not None:
        raise problem
    places = ", ".join(str(folder) for folder in folders())
    raise InputError(
        f"no VGG-19 weights (vgg19*.npz or vgg19*.params) in {places}; give WEIGHTS=path, or put"
        " the file's folder into FMI_MODELS"
    )


def _candidates() -> List[Path]:
    return [
        file
        for folder in folders()
        for file in sorted(folder.glob("vgg19*"))
        if file.suffix in (".npz", ".params")
    ]


def _covering(weights: Weights, needed: Sequence[str]) -> Weights:
    for name in needed:
        if f"{name}_weight" not in weights.arrays:
            raise InputError(
                f"{weights.path} lacks {name}, the layers asked for need {needed[0]} to"
                f" {needed[-1]}; ask for shallower layers or give other weights"
            )
    return weights


def read(path: Union[str, Path]) -> Weights:
    """A weights file in any of the known layouts, told by its content.

    Raises
    ------
    InputError
        If the file is missing, is neither ``.npz`` nor ``.params``, or holds no VGG-19.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"weights {path} cannot be read: {error.strerror}") from None
    try:
        arrays = _arrays(data)
        arrays, mean = canonical(arrays)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    return Weights(path.stem, path, hashlib.sha256(data).hexdigest(), mean, arrays)


def _arrays(data: bytes) -> Dict[str, np.ndarray]:
    if data[:2] == b"PK":
        return _read_npz(data)
    if len(data) >= 8 and struct.unpack("<Q", data[:8])[0] == NDARRAY_LIST:
        return read_ndarray_list(data)
    raise InputError("is neither an .npz file nor MXNet's .params")


def _read_npz(data: bytes) -> Dict[str, np.ndarray]:
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as file:
            return {name: file[name] for name in file.files if name.startswith("conv")}
    except (ValueError, OSError, KeyError, EOFError, zipfile.BadZipFile, MemoryError) as error:
        raise InputError(f"the .npz file is damaged: {error}") from None


class _Words:
    """A cursor over bytes that refuses to read past their end."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, count: int) -> bytes:
        if count < 0 or self.at + count > len(self.data):
            raise InputError("the .params file is cut short or damaged")
        self.at += count
        return self.data[self.at - count : self.at]

    def unpack(self, form: str) -> Tuple[Any, ...]:
        return struct.unpack("<" + form, self.take(struct.calcsize("<" + form)))


def read_ndarray_list(data: bytes) -> Dict[str, np.ndarray]:
    """The arrays of MXNet's ``.params`` format (legacy, V2 and V3), read without MXNet.

    ``mx.nd.load`` trusts the counts in a file's header, so that a damaged one can fill the
    memory; here nothing is taken that the file does not hold.

    Raises
    ------
    InputError
        If the file is damaged, or holds sparse arrays or other types than floats.
    """
    words = _Words(data)
    _, _, count = words.unpack("QQQ")
    arrays = [_ndarray(words) for _ in range(min(count, len(data)))]
    (named,) = words.unpack("Q")
    if named != count:
        raise InputError(f"the .params file holds {count} arrays but {named} names")
    names = []
    for _ in range(named):
        (length,) = words.unpack("Q")
        names.append(words.take(length).decode("utf-8", errors="replace"))
    return dict(zip(names, arrays))


def _ndarray(words: _Words) -> np.ndarray:
    (magic,) = words.unpack("I")
    if magic in (NDARRAY_V2, NDARRAY_V3):
        (storage,) = words.unpack("i")
        if storage not in (0, -1):
            raise InputError("the .params file holds a sparse array")
        (dimensions,) = words.unpack("i")
        shape = words.unpack(f"{_dimensions(dimensions)}q")
    else:  # legacy: the first word is the number of dimensions
        shape = words.unpack(f"{_dimensions(magic)}I")
    _, _, dtype = words.unpack("iii")  # device type and number, element type
    if dtype not in DTYPES or any(side < 0 for side in shape):
        raise InputError("the .params file holds an array of unknown type or shape")
    size = 1
    for side in shape:
        size *= side
    item = np.dtype(DTYPES[dtype]).newbyteorder("<")
    return np.frombuffer(words.take(size * item.itemsize), dtype=item).reshape(shape)


def _dimensions(count: int) -> int:
    if not 1 <= count <= 8:
        raise InputError("the .params file is damaged or of an unknown version")
    return count


def canonical(
    arrays: Mapping[str, np.ndarray],
) -> Tuple[Dict[str, np.ndarray], Tuple[float, float, float]]:
    """Field names, float32, and the mean colour; Gluon's input scale is folded into conv1_1.

    Parameters
    ----------
    arrays
        Named ``conv1_1_weight`` or ``arg:conv1_1_weight`` (Caffe's weights), or as Gluon's
        ``vision.vgg19`` names them: ``features.0.weight`` or ``vgg0_conv0_weight``, which take
        ``(x / 255 - mean) / std``.

    Raises
    ------
    InputError
        If there is no VGG-19 in them, shapes do not fit, or values are not finite.
    """
    plain = {name.split(":")[-1]: array for name, array in arrays.items()}
    named = {
        name: plain[name] for conv in vgg.CONVOLUTIONS for name in _pair(conv) if name in plain
    }
    mean = CAFFE_MEAN
    if not named:
        named = _gluon(plain)
        mean = tuple(255 * value for value in ZOO_MEAN)  # type: ignore[assignment]
    if not named:
        raise InputError("holds no VGG-19: there is no conv1_1_weight")
    result = {name: np.ascontiguousarray(array, dtype=np.float32) for name, array in named.items()}
    if mean is not CAFFE_MEAN and "conv1_1_weight" in result:
        scale = 255 * np.asarray(ZOO_STD, dtype=np.float32)
        result["conv1_1_weight"] = result["conv1_1_weight"] / scale[None, :, None, None]
    _check_shapes(result)
    return result, mean


def _pair(convolution: str) -> Tuple[str, str]:
    return f"{convolution}_weight", f"{convolution}_bias"


def _gluon(arrays: Mapping[str, np.ndarray]) -> Dict[str, np.ndarray]:
    """Gluon's names to the field's, by the order of the convolutions."""
    found: Dict[int, Dict[str, np.ndarray]] = {}
    for name, array in arrays.items():
        match = re.fullmatch(r"(?:features\.|\w*?conv)(\d+)[._](weight|bias)", name)
        if match:
            found.setdefault(int(match.group(1)), {})[match.group(2)] = array
    convolutions = [
        found[index]
        for index in sorted(found)
        if {"weight", "bias"} <= set(found[index]) and found[index]["weight"].ndim == 4
    ]
    result = {}
    for name, pair in zip(vgg.CONVOLUTIONS, convolutions):
        result.update({f"{name}_{kind}": array for kind, array in pair.items()})
    return result


def _check_shapes(arrays: Mapping[str, np.ndarray]) -> None:
    channels = 3
    for convolution in vgg.CONVOLUTIONS:
        weight, bias = (arrays.get(name) for name in _pair(convolution))
        if weight is None or bias is None:
            if weight is not bias:
                raise InputError(f"{convolution} lacks its weight or its bias")
            continue
        if weight.shape[1:] != (channels, 3, 3) or bias.shape != weight.shape[:1]:
            raise InputError(
                f"{convolution} has weight {weight.shape} and bias {bias.shape}, its weight"
                f" should be (O, {channels}, 3, 3)"
            )
        if not (np.isfinite(weight).all() and np.isfinite(bias).all()):
            raise InputError(f"{convolution} holds values that are not finite")
        channels = weight.shape[0]
