"""Reach: on which rows and columns of a picture the positions of a layer depend."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple, Union

import numpy as np

__all__ = ["BINARY", "POINTWISE", "Reach", "Reaches", "Unlimited", "of_graph", "pair"]

# Operators whose output at a position depends on their first input at this position alone.
POINTWISE = {
    "Activation",
    "BatchNorm",  # with its moving averages
    "BlockGrad",
    "Cast",
    "Dropout",
    "LRN",  # over neighbouring feature maps
    "LeakyReLU",
    "_copy",
    "abs",
    "amp_cast",
    "clip",
    "erf",
    "exp",
    "hard_sigmoid",
    "identity",
    "negative",
    "relu",
    "sigmoid",
    "softsign",
    "sqrt",
    "square",
    "tanh",
}
# Those of which the same is true for all inputs.
BINARY = {
    "Concat",
    "ElementWiseSum",
    "_Plus",
    "_div",
    "_minus",
    "_mul",
    "_plus",
    "add_n",
    "broadcast_add",
    "broadcast_div",
    "broadcast_maximum",
    "broadcast_minimum",
    "broadcast_mul",
    "broadcast_sub",
    "concat",
    "elemwise_add",
    "elemwise_div",
    "elemwise_mul",
    "elemwise_sub",
}


@dataclass(frozen=True)
class Reach:
    """The pixels, along one axis of a picture, on which the positions of a layer depend.

    Position p depends on the pixels from ``p * stride - before`` to ``p * stride + after``.

    Attributes
    ----------
    stride
        Distance between neighbouring positions.
    before, after
        They may be negative.
    alignment
        Multiple of all strides on the way to the layer. If a part of a picture begins at a multiple
        of this number of pixels, it has the same positions as the picture.
    """

    stride: int = 1
    before: int = 0
    after: int = 0
    alignment: int = 1

    def convolved(self, kernel: int, stride: int = 1, pad: int = 0, dilation: int = 1) -> Reach:
        """Return the reach after a convolution or pooling of codes that have this reach."""
        return Reach(
            self.stride * stride,
            self.before + self.stride * pad,
            self.after + self.stride * (dilation * (kernel - 1) - pad),
            int(np.lcm(self.alignment, self.stride * stride)),
        )


Reaches = Tuple[Reach, Reach]  # along rows and along columns


@dataclass(frozen=True)
class Unlimited:
    """What is known of a layer whose positions may depend on the whole picture.

    Attributes
    ----------
    operator
        Name of the first operator that makes them so, and what it computes.
    """

    operator: str


Found = Union[None, Reaches, Unlimited]  # None: it does not depend on the picture


def of_graph(
    nodes: Sequence[Mapping[str, Any]], picture: str, shapes: Mapping[str, Sequence[int]]
) -> Dict[str, Found]:
    """Return the reach of each operator of a symbol, by name.

    Parameters
    ----------
    nodes
        The nodes in the JSON of the symbol.
    picture
        Name of the input.
    shapes
        Shapes of the parameters.

    Returns
    -------
    dict
        ``None`` for what does not depend on the picture.
    """
    found: List[Found] = []
    for node in nodes:
        if node["op"] == "null":
            found.append((Reach(), Reach()) if node["name"] == picture else None)
            continue
        sources = [source[0] for source in node["inputs"]]
        before = [found[source] for source in sources]
        unlimited = [one for one in before if isinstance(one, Unlimited)]
        limited = [one for one in before if isinstance(one, tuple)]
        others = [shapes.get(nodes[s]["name"]) for s in sources if found[s] is None]
        if unlimited:
            found.append(unlimited[0])
        elif not limited:
            found.append(None)
        else:
            after = _after(node, limited, others)
            found.append(after or Unlimited(f"{node['name']} ({node['op']})"))
    return {node["name"]: one for node, one in zip(nodes, found)}


def _after(
    node: Mapping[str, Any],
    before: Sequence[Reaches],
    constants: Sequence[Optional[Sequence[int]]],
) -> Optional[Reaches]:
    """Return the reach of an operator, or ``None`` if it may depend on the whole picture.

    Parameters
    ----------
    node
        The operator.
    before
        Reach of each input that depends on the picture.
    constants
        Shapes of the other inputs, ``None`` where it is not known.
    """
    op, attrs = node["op"], node.get("attrs") or {}
    if op in ("Convolution", "Pooling"):
        return _convolved(attrs, before[0]) if len(before) == 1 else None
    if op in POINTWISE or re.fullmatch(r"_\w+_scalar", op):
        along_channels = op != "BatchNorm" or attrs.get("axis", "1") == "1"
        return before[0] if along_channels and len(before) == 1 else None
    uniform = all(shape is not None and _same_everywhere(shape) for shape in constants)
    if op in BINARY and uniform and attrs.get("dim", "1") == "1":
        rows, columns = (_united([pair[axis] for pair in before]) for axis in (0, 1))
        return (rows, columns) if rows and columns else None
    return None


def _convolved(attrs: Mapping[str, str], before: Reaches) -> Optional[Reaches]:
    """Return the reach after a convolution or pooling with these attributes."""
    everything = attrs.get("global_pool", "False") in ("True", "true", "1")
    shifted = attrs.get("pooling_convention", "valid") not in ("valid", "full")
    if everything or shifted or attrs.get("layout", "NCHW") not in ("NCHW", "None"):
        return None
    kernel, stride, pad, dilation = (
        pair(attrs.get(key, "()"), default)
        for key, default in (("kernel", 1), ("stride", 1), ("pad", 0), ("dilate", 1))
    )
    rows, columns = (
        before[axis].convolved(kernel[axis], stride[axis], pad[axis], dilation[axis])
        for axis in (0, 1)
    )
    return rows, columns


def pair(text: str, default: int) -> Tuple[int, int]:
    """Return the numbers of an attribute such as ``"(3, 3)"``, along rows and along columns."""
    numbers = [int(number) for number in re.findall(r"\d+", text)]
    return (numbers[0], numbers[-1]) if numbers else (default, default)


def _same_everywhere(shape: Sequence[int]) -> bool:
    """Return whether an array (B, C, H, W) that is broadcast has the same values everywhere."""
    return len(shape) == 4 and shape[2] == shape[3] == 1 or int(np.prod(shape)) == 1


def _united(reaches: Sequence[Reach]) -> Optional[Reach]:
    """Return the reach of a sum of codes; ``None`` if they have different strides."""
    if len({reach.stride for reach in reaches}) > 1:
        return None
    return Reach(
        reaches[0].stride,
        max(reach.before for reach in reaches),
        max(reach.after for reach in reaches),
        int(np.lcm.reduce([reach.alignment for reach in reaches])),
    )
