"""How weights files call the arrays of VGG-19: from a file's names to convolutions."""

from __future__ import annotations

import functools
import re
from typing import Callable, Dict, Mapping, Optional, Tuple

import numpy as np

from fmi.errors import InputError
from fmi.networks import topology
from fmi.sources import table
from fmi.sources.table import Layout

Key = Tuple[str, str]  # convolution, and weight, bias, gamma, beta, mean or variance
Namer = Callable[[str, bool], Optional[Key]]  # from a name, and whether there is a BatchNorm
KINDS = {
    "W": "weight", "b": "bias", "kernel": "weight", "weight": "weight", "bias": "bias",
    "filters": "weight", "biases": "bias", "0": "weight", "1": "bias",
    "gamma": "gamma", "beta": "beta", "running_mean": "mean", "running_var": "variance",
}  # fmt: skip
NORM = {"weight": "gamma", "bias": "beta"}  # torchvision's names for them
NUMBER = re.compile(r"\d{1,2}")


def _field(name: str, _: bool) -> Optional[Key]:
    match = re.fullmatch(r"(?:arg:)?(conv[1-5]_[1-4])_(weight|bias)", name)
    return (match[1], match[2]) if match else None


def _dotted(name: str, _: bool) -> Optional[Key]:
    match = re.fullmatch(r"(conv[1-5]_[1-4])\.(weight|bias)", name)
    return (match[1], match[2]) if match else None


def _keras(name: str, _: bool) -> Optional[Key]:
    if name.startswith("optimizer"):
        return None
    match = re.fullmatch(
        r"(?:.*/)?block([1-5])_conv([1-4])/(?:.*/)?(?:block\d_conv\d_)?(W|b|kernel|bias)"
        r"(?:_\d+)?(?::0)?",
        name,
    ) or re.fullmatch(r"(?:.*/)?block([1-5])_conv([1-4])/vars/([01])", name)
    if match:
        return f"conv{match[1]}_{match[2]}", KINDS[match[3]]
    match = re.fullmatch(r"(?:.*/)?layers/conv2d(?:_(\d{1,2}))?/vars/([01])", name)
    return _at(int(match[1] or 0), KINDS[match[2]]) if match else None


def _matconvnet(name: str, _: bool) -> Optional[Key]:
    match = re.fullmatch(r"layers/(conv[1-5]_[1-4])/(filters|biases)", name)
    return (match[1], KINDS[match[2]]) if match else None


def _features(name: str, norm: bool) -> Optional[Key]:
    """torchvision's, timm's and Gluon's structural names: numbered modules."""
    match = re.fullmatch(
        r"(?:.*\.)?features\.(\d{1,2})"
        r"\.(weight|bias|gamma|beta|running_mean|running_var)",
        name,
    )
    if not match:
        return None
    module, kind = int(match[1]), KINDS[match[2]]
    places = _modules(norm)
    if module in places:
        return topology.CONVOLUTIONS[places.index(module)], kind
    if norm and module - 1 in places:
        return topology.CONVOLUTIONS[places.index(module - 1)], NORM.get(kind, kind)
    return f"module {module}", kind


def _prefixed(name: str, _: bool) -> Optional[Key]:
    """Gluon's prefixed names: convolutions are counted."""
    match = re.fullmatch(r"(?:arg:)?(?:\w*_)?conv(\d{1,2})_(weight|bias)", name) or re.fullmatch(
        r"(?:arg:|aux:)?(?:\w*_)?batchnorm(\d{1,2})_(gamma|beta|running_mean|running_var)", name
    )
    return _at(int(match[1]), KINDS[match[2]]) if match else None


def _at(index: int, kind: str) -> Key:
    inside = index < len(topology.CONVOLUTIONS)
    return (topology.CONVOLUTIONS[index] if inside else f"convolution {index}"), kind


@functools.lru_cache(maxsize=None)
def _modules(norm: bool) -> Tuple[int, ...]:
    """The places of VGG-19's convolutions among its modules."""
    places, at = [], 0
    for count in topology.BLOCKS:
        for _ in range(count):
            places.append(at)
            at += 3 if norm else 2  # convolution, (BatchNorm,) relu
        at += 1  # pooling
    return tuple(places)


# Name, layout that it suggests, whether other numbers of filters than VGG-19's are possible.
NAMINGS: Tuple[Tuple[Namer, str, bool], ...] = (
    (_field, "caffe", True),
    (_dotted, "caffe-bgr", False),
    (_keras, "keras", False),
    (_matconvnet, "matconvnet", False),
    (_features, "zoo", False),
    (_prefixed, "zoo", False),
)


def named_arrays(
    arrays: Mapping[str, np.ndarray], layout: Optional[Layout] = None
) -> Tuple[Layout, Dict[Key, np.ndarray]]:
    """Arrays by convolution and kind, and the layout that their names suggest.

    Parameters
    ----------
    arrays
        As :func:`fmi.formats.read` returns them.
    layout
        Of the source, where it is known.

    Raises
    ------
    InputError
        If the names are not those of a VGG-19.
    """
    norm = any(name.endswith("running_mean") for name in arrays)
    for namer, suggested, any_size in NAMINGS:
        named: Dict[Key, np.ndarray] = {}
        for name, array in arrays.items():
            key = namer(name, norm)
            if key is None or (key[0] not in topology.CONVOLUTIONS and array.ndim != 4):
                continue  # such as the bias of a dense layer
            if key in named:
                raise InputError(f"two of its arrays could be {key[0]}'s {key[1]}")
            named[key] = array
        if not named:
            continue
        strange = next((name for name, _ in named if name not in topology.CONVOLUTIONS), None)
        if strange:
            raise InputError(f"is no VGG-19: {strange} is a convolution that VGG-19 has not")
        found = layout or table.layouts()[suggested]
        if not any_size:
            _check_filters(named, found)
        return found, named
    raise InputError("holds no VGG-19: none of its arrays is called as VGG-19's conv1_1 is")


def _check_filters(named: Mapping[Key, np.ndarray], layout: Layout) -> None:
    """VGG-16 and others have layers of the same names; the numbers of filters tell."""
    for (name, kind), array in named.items():
        expected = topology.FILTERS[int(name[4]) - 1]
        found = array.shape[layout.kernel.index("O")] if kind == "weight" else array.shape[0]
        if found != expected:
            raise InputError(f"is no VGG-19: {name} has {found} filters, not {expected}")
