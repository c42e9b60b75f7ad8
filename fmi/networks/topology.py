"""The VGG family: the names and the order of the layers of its members, without weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Iterable, List, Optional, Tuple

__all__ = ["FAMILY", "FILTERS", "VGG11", "VGG13", "VGG16", "VGG19", "Topology", "told_by"]

FILTERS = (64, 128, 256, 512, 512)  # filters of each convolution in block 1 to 5, for all members


@dataclass(frozen=True)
class Topology:
    """A member of the VGG family (Simonyan & Zisserman 2014, configurations A, B, D and E).

    Layers have the customary names: conv1_1, relu1_1, conv1_2, relu1_2, pool1, conv2_1 ... The
    pooling after the last block and the dense layers after it are omitted.

    Attributes
    ----------
    blocks
        Number of convolutions in each block.
    """

    blocks: Tuple[int, ...]

    @property
    def name(self) -> str:
        """The name, such as ``"VGG-19"``; the number includes the three dense layers."""
        return f"VGG-{sum(self.blocks) + 3}"

    @property
    def layers(self) -> Tuple[str, ...]:
        """All layers, from ``conv1_1`` on."""
        names: List[str] = []
        for block, convolutions in enumerate(self.blocks, start=1):
            for index in range(1, convolutions + 1):
                names += [f"conv{block}_{index}", f"relu{block}_{index}"]
            if block < len(self.blocks):
                names.append(f"pool{block}")
        return tuple(names)

    @property
    def convolutions(self) -> Tuple[str, ...]:
        """The convolutions, in order."""
        return tuple(name for name in self.layers if name.startswith("conv"))

    def deepest(self, layers: Iterable[str]) -> str:
        """Return the layer at which a network that computes all `layers` can end."""
        return max(layers, key=self.layers.index)

    def convolutions_before(self, layer: str) -> Tuple[str, ...]:
        """Return the convolutions that `layer` needs, including itself, in order."""
        before = self.layers[: self.layers.index(layer) + 1]
        return tuple(name for name in before if name.startswith("conv"))

    def smallest_side(self, layer: str) -> int:
        """Return the smallest side, in pixels, of a picture that leaves `layer` a position."""
        before = self.layers[: self.layers.index(layer) + 1]
        return int(2 ** sum(name.startswith("pool") for name in before))

    def modules(self, norm: bool) -> Tuple[int, ...]:
        """Return the indices of the convolutions among the modules in torchvision and Gluon.

        Parameters
        ----------
        norm
            Whether a BatchNorm follows each convolution.
        """
        places, at = [], 0
        for count in self.blocks:
            for _ in range(count):
                places.append(at)
                at += 3 if norm else 2  # convolution, (BatchNorm,) relu
            at += 1  # pooling
        return tuple(places)


VGG11 = Topology((1, 1, 2, 2, 2))
VGG13 = Topology((2, 2, 2, 2, 2))
VGG16 = Topology((2, 2, 3, 3, 3))
VGG19 = Topology((2, 2, 4, 4, 4))
FAMILY = (VGG19, VGG16, VGG13, VGG11)  # deepest first, since incomplete files may fit several


def told_by(convolutions: Iterable[str]) -> Optional[Topology]:
    """Return the member that has these convolutions, or the deepest one if several do.

    Every block except the last is assumed to be complete. If no member fits, a convolution is
    missing from the file, and the deepest member that has all given convolutions is returned.
    """
    there = set(convolutions)
    having = [member for member in FAMILY if there <= set(member.convolutions)]
    highest = {name[4]: max(int(n[6]) for n in there if n[4] == name[4]) for name in there}
    for member in having:
        followed = [block for block in highest if block < max(highest)]
        if all(highest[block] == member.blocks[int(block) - 1] for block in followed):
            return member
    return having[0] if having else None
