"""Memory: what a call is allowed to use, what it needs, and whether it must work in tiles."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional, Sequence, Tuple

from fmi.errors import InputError
from fmi.networks import tiles
from fmi.networks.base import Network

__all__ = ["SMALLEST", "Need", "allowed"]

SMALLEST = 1 << 20  # a smaller number of bytes is a mistake
# Measured: arrays as large as the picture in a descent and after it, among them the picture before
# and after a step, its gradient, the copy for a callback, and the result in float64.
PICTURES = 11
CODES = 2  # the content's and the target


def allowed(memory: float, free: int) -> int:
    """Return the number of bytes that a call may use.

    Parameters
    ----------
    memory
        A share of the free memory, up to 1, or a number of bytes.
    free
        The free memory in bytes, which is never exceeded.

    Raises
    ------
    InputError
        If the number is between 1 and :data:`SMALLEST`.
    """
    if memory <= 1:
        return int(memory * free)
    if memory < SMALLEST:
        raise InputError(
            f"memory={memory:g} is a number of bytes, but too small; give bytes, such as 4e9, or a"
            " share of the free memory, such as 0.5"
        )
    return min(int(memory), free)


@dataclass(frozen=True)
class Need:
    """What a call needs, in bytes.

    Attributes
    ----------
    network, precision
        The network, and the number format in which it computes.
    layers
        Names of the layers of the loss.
    kept
        Those whose codes are needed as a whole, even if the network computes in tiles.
    optimiser
        Number of arrays as large as the picture that the optimiser keeps
        (:func:`fmi.optimisers.kept`).
    """

    network: Network
    precision: str
    layers: Sequence[str]
    kept: Sequence[str]
    optimiser: int

    def codes(self, layers: Sequence[str], height: int, width: int) -> int:
        """Return the size of the codes of one picture."""
        sizes = self.network.sizes(height, width)
        extents = ((self.network.layer(name).channels, *sizes[name]) for name in layers)
        return sum(4 * channels * rows * columns for channels, rows, columns in extents)

    def gradient(self, height: int, width: int) -> int:
        """Estimate what the gradient of one picture needs: the network, targets, differences."""
        own = self.network.picture_bytes(self.layers, height, width, self.precision)
        return own + 2 * self.codes(self.layers, height, width)

    def state(self, height: int, width: int) -> int:
        """Return the size of the arrays of a descent that are as large as the picture."""
        return (PICTURES + self.optimiser) * 3 * 4 * height * width

    def whole(self, height: int, width: int) -> int:
        """Estimate what one picture needs if the network computes it as a whole."""
        return self.gradient(height, width) + self.state(height, width)

    def crop(self, height: int, width: int, room: int) -> Optional[Tuple[int, int]]:
        """Return the height and width of the largest crops with which a picture fits into `room`.

        Returns
        -------
        tuple or None
            ``None`` if not even the smallest crops fit.

        Raises
        ------
        InputError
            If the network cannot compute a layer in tiles.
        """
        reaches = {name: self.network.reach(name) for name in self.layers}
        left = room - CODES * self.codes(self.kept, height, width) - self.state(height, width)
        return tiles.largest_crop(
            (height, width), reaches, lambda rows, columns: self.gradient(rows, columns) <= left
        )
