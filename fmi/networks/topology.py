"""The layers of VGG-19 by name, in order: what needs no weights."""

from __future__ import annotations

from typing import List, Sequence, Tuple

from fmi.errors import unknown

BLOCKS = (2, 2, 4, 4, 4)  # convolutions a block
FILTERS = (64, 128, 256, 512, 512)  # of each convolution of a block


def _names() -> List[str]:
    names = []
    for block, convolutions in enumerate(BLOCKS, start=1):
        for index in range(1, convolutions + 1):
            names += [f"conv{block}_{index}", f"relu{block}_{index}"]
        if block < len(BLOCKS):
            names.append(f"pool{block}")
    return names


LAYERS = tuple(_names())
CONVOLUTIONS = tuple(name for name in LAYERS if name.startswith("conv"))


def check_layer(name: str) -> str:
    """The name itself.

    Raises
    ------
    InputError
        If VGG-19 has no such layer; the message names the nearest ones.
    """
    if name not in LAYERS:
        raise unknown("layer", name, LAYERS)
    return name


def deepest(layers: Sequence[str]) -> str:
    """The layer at which a network that computes all `layers` can end."""
    return max((check_layer(name) for name in layers), key=LAYERS.index)


def convolutions_before(layer: str) -> Tuple[str, ...]:
    """The convolutions that `layer` needs, itself included, in order."""
    return tuple(n for n in LAYERS[: LAYERS.index(layer) + 1] if n.startswith("conv"))


def smallest_side(layer: str) -> int:
    """Pixels a side that a picture needs so that `layer` has at least one position."""
    return int(2 ** sum(name.startswith("pool") for name in LAYERS[: LAYERS.index(layer) + 1]))
