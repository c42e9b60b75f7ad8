"""Tiles: codes and gradients of large pictures, computed part by part with the same result.

A position of a code depends on a limited part of the picture. The positions of all codes are
divided among tiles, and each tile is computed from a crop of the picture that contains everything
on which its positions depend. Convolutions add zeros around a crop, which is wrong except at the
rim of the picture, but no position of the tile depends on these zeros. The gradient of a loss that
is a sum over positions is therefore the sum of the gradients with respect to the crops. Statistics
that are sums over positions, such as Gram matrices, are added up over all tiles first.

Crops begin at multiples of the largest stride, so that poolings combine the same positions as in
the whole picture. All crops have the same shape, for which memory is allocated once.
"""

from __future__ import annotations

import functools
import operator
from dataclasses import dataclass, replace
from typing import Callable, Dict, List, Mapping, Optional, Sequence, Tuple, TypeVar

import numpy as np

from fmi.device.mxnet import NDArray, mx
from fmi.errors import InputError
from fmi.losses import Loss, Term
from fmi.networks.base import Truncated
from fmi.networks.reach import Reach, Reaches

__all__ = ["Plan", "Section", "Tile", "Tiled", "Window", "largest_crop", "plan", "sections"]

T = TypeVar("T")


@dataclass(frozen=True)
class Section:
    """What a tile is along one axis.

    Attributes
    ----------
    start, stop
        The first pixel of the crop, and the one after the last.
    positions
        The first position of each layer, and the one after the last; both are equal if there is
        none.
    """

    start: int
    stop: int
    positions: Mapping[str, Tuple[int, int]]


@dataclass(frozen=True)
class Window:
    """A rectangle of the rows and columns of arrays (B, C, H, W)."""

    top: int
    bottom: int
    left: int
    right: int

    @property
    def empty(self) -> bool:
        """Whether there is no row or no column."""
        return self.top >= self.bottom or self.left >= self.right

    @property
    def index(self) -> Tuple[slice, ...]:
        """The index of this part of an array."""
        return (slice(None),) * 2 + (slice(self.top, self.bottom), slice(self.left, self.right))

    def moved(self, rows: int, columns: int) -> Window:
        """Return the window moved down and to the right."""
        return Window(
            self.top + rows, self.bottom + rows, self.left + columns, self.right + columns
        )

    def of(self, array: NDArray) -> NDArray:
        """Return a copy of this part of an array; it can be differentiated."""
        begin, end = (None, None, self.top, self.left), (None, None, self.bottom, self.right)
        return mx.nd.slice(array, begin=begin, end=end)


@dataclass(frozen=True)
class Tile:
    """A crop of the picture, and the positions that are computed from it.

    Attributes
    ----------
    crop
        The crop, in pixels of the picture.
    positions
        The positions of each layer, in the code of the picture. A layer without positions in the
        tile is omitted.
    inside
        The same positions in the code of the crop.
    """

    crop: Window
    positions: Mapping[str, Window]
    inside: Mapping[str, Window]


@dataclass(frozen=True)
class Plan:
    """The tiles of a picture, row by row.

    Attributes
    ----------
    tiles
        Each position of each layer belongs to exactly one of them.
    sizes
        Number of rows and columns of the code of each layer.
    """

    tiles: Tuple[Tile, ...]
    sizes: Mapping[str, Tuple[int, int]]

    @property
    def crop(self) -> Tuple[int, int]:
        """Height and width of all crops."""
        crop = self.tiles[0].crop
        return crop.bottom - crop.top, crop.right - crop.left


# --- plans ---


def sections(
    length: int, crop: int, reaches: Mapping[str, Reach], sizes: Mapping[str, int]
) -> List[Section]:
    """Divide one axis of a picture into as few crops of equal length as possible.

    Parameters
    ----------
    length
        Pixels of the picture along the axis.
    crop
        The greatest length of a crop. It is exceeded only if a crop of this length does not
        contain what a position of the deepest layer depends on.
    reaches
        Reach of each layer.
    sizes
        Number of positions of each layer.

    Returns
    -------
    list of Section
        Each position of each layer belongs to exactly one of them.
    """
    alignment, before, after, rest = _margins(length, reaches)
    inner = length - before - after - rest
    longest = max(alignment, _down(crop - before - after - rest, alignment))
    if length <= crop or inner <= longest:
        return [Section(0, length, {name: (0, size) for name, size in sizes.items()})]
    step = _up(-(-inner // -(-inner // longest)), alignment)
    count = -(-inner // step)
    whole = before + step + after + rest
    firsts = [0, *(place * step + before for place in range(1, count))]
    found = []
    for place, first in enumerate(firsts):
        start = min(place * step, length - whole)
        positions = {}
        for name, size in sizes.items():
            stride = reaches[name].stride
            end = size if place == count - 1 else min(size, firsts[place + 1] // stride)
            positions[name] = (min(size, first // stride), end)
        found.append(Section(start, start + whole, positions))
    return found


def plan(
    length: Tuple[int, int],
    crop: Tuple[int, int],
    reaches: Mapping[str, Reaches],
    sizes: Mapping[str, Tuple[int, int]],
) -> Plan:
    """Divide a picture into tiles; the arguments are those of :func:`sections` for both axes."""
    rows, columns = (
        sections(length[axis], crop[axis], _along(axis, reaches), _along(axis, sizes))
        for axis in (0, 1)
    )
    found = []
    for row in rows:
        for column in columns:
            positions, inside = {}, {}
            for name, (vertical, horizontal) in reaches.items():
                window = Window(*row.positions[name], *column.positions[name])
                if not window.empty:
                    positions[name] = window
                    inside[name] = window.moved(
                        -(row.start // vertical.stride), -(column.start // horizontal.stride)
                    )
            if positions:
                part = Window(row.start, row.stop, column.start, column.stop)
                found.append(Tile(part, positions, inside))
    return Plan(tuple(found), sizes)


def largest_crop(
    length: Tuple[int, int],
    reaches: Mapping[str, Reaches],
    fits: Callable[[int, int], bool],
) -> Optional[Tuple[int, int]]:
    """Return the height and width of crops with which the fewest pixels are computed.

    Parameters
    ----------
    length
        Height and width of the picture.
    reaches
        Reach of each layer.
    fits
        Function that returns whether a crop of some height and width fits into memory.

    Returns
    -------
    tuple or None
        ``None`` if not even the smallest sensible crop fits, in which each axis has as many pixels
        for its own positions as before and after them.
    """
    rows, columns = (_lengths(length[axis], _along(axis, reaches)) for axis in (0, 1))
    best, fewest = None, 0
    place = 0
    for row, row_count in reversed(rows):  # the longer the rows, the shorter the columns
        while place < len(columns) and not fits(row, columns[place][0]):
            place += 1
        if place == len(columns):
            break
        column, column_count = columns[place]
        pixels = row * row_count * column * column_count
        if best is None or pixels < fewest:
            best, fewest = (row, column), pixels
    return best


def _along(axis: int, pairs: Mapping[str, Tuple[T, T]]) -> Dict[str, T]:
    """Return the values of each layer for one of both axes."""
    return {name: pair[axis] for name, pair in pairs.items()}


def _margins(length: int, reaches: Mapping[str, Reach]) -> Tuple[int, int, int, int]:
    """Return in pixels: alignment, what a crop needs before and after its positions, and the rest.

    All crops are longer than a multiple of the alignment by the rest, so that the last one, which
    ends where the picture does, has the length of the others.
    """
    alignment = int(np.lcm.reduce([reach.alignment for reach in reaches.values()]))
    before = max(reach.before for reach in reaches.values())
    after = max(reach.after + 1 - reach.stride for reach in reaches.values())
    return (
        alignment,
        _up(max(0, before), alignment),
        _up(max(0, after), alignment),
        length % alignment,
    )


def _lengths(length: int, reaches: Mapping[str, Reach]) -> List[Tuple[int, int]]:
    """Return the sensible lengths of crops with their number, from the longest to the shortest."""
    alignment, before, after, rest = _margins(length, reaches)
    inner, found = length - before - after - rest, [(length, 1)]
    for count in range(2, inner // max(alignment, before + after) + 1):
        step = _up(-(-inner // count), alignment)
        if before + step + after + rest < found[-1][0]:
            found.append((before + step + after + rest, -(-inner // step)))
    return found


def _up(value: int, unit: int) -> int:
    """Round up to a multiple of `unit`."""
    return -(-value // unit) * unit


def _down(value: int, unit: int) -> int:
    """Round down to a multiple of `unit`."""
    return value // unit * unit


# --- codes and gradients ---


class Tiled(Truncated):
    """A truncated network that computes codes and gradients tile by tile.

    Parameters
    ----------
    network
        Truncated network that computes the crops.
    reaches
        Reach of each layer, along rows and columns (:meth:`fmi.networks.base.Network.reach`).
    crop
        The greatest height and width of a crop. Smaller pictures are computed as a whole.
    """

    def __init__(
        self,
        network: Truncated,
        reaches: Mapping[str, Reaches],
        crop: Tuple[int, int],
    ) -> None:
        super().__init__(network.layers, network.block)
        self._network = network
        self._reaches = {name: reaches[name] for name in network.layers}
        self._crop = crop
        self.plan = functools.lru_cache(maxsize=2)(self._planned)

    def _planned(self, height: int, width: int) -> Plan:
        """Return the plan of pictures of some size."""
        sizes = self._network.sizes(height, width)
        return plan((height, width), self._crop, self._reaches, sizes)

    def __call__(self, image: NDArray) -> Dict[str, NDArray]:
        """Return the codes of all layers for (B, 3, H, W) pictures with the mean subtracted."""
        return self._assembled(image, self.layers)

    def code(self, image: NDArray, layer: str) -> NDArray:
        """Return the code (B, C, M, N) of one layer."""
        return self._assembled(image, [layer])[layer]

    def forward(self, image: NDArray) -> Dict[str, NDArray]:
        """Return the codes, as calling the network does."""
        return self(image)

    def _assembled(self, image: NDArray, layers: Sequence[str]) -> Dict[str, NDArray]:
        found: Dict[str, NDArray] = {}
        planned = self.plan(*image.shape[2:])
        for tile in planned.tiles:
            codes = self._network.forward(tile.crop.of(image))
            for name in set(layers) & set(tile.inside):
                if name not in found:
                    shape = (*codes[name].shape[:2], *planned.sizes[name])
                    found[name] = mx.nd.empty(shape, ctx=image.context)
                found[name][tile.positions[name].index] = tile.inside[name].of(codes[name])
            mx.nd.waitall()  # or MXNet would hold several crops at once
        return {name: found[name] for name in layers}

    def sums(
        self, image: NDArray, statistic: Callable[[NDArray], NDArray], layers: Sequence[str]
    ) -> Dict[str, NDArray]:
        """Return a statistic of the codes of `layers`, added up over the tiles."""
        found: Dict[str, NDArray] = {}
        for tile in self.plan(*image.shape[2:]).tiles:
            codes = self._network.forward(tile.crop.of(image))
            for name in set(layers) & set(tile.inside):
                own = statistic(tile.inside[name].of(codes[name]))
                found[name] = own if name not in found else found[name] + own
            mx.nd.waitall()
        return {name: found[name] for name in layers}

    def losses(self, image: NDArray, loss: Loss) -> NDArray:
        """Return the loss of each picture (B,), without its gradient."""
        return self._first_pass(image, loss).losses

    def gradient(self, image: NDArray, loss: Loss) -> Tuple[NDArray, NDArray]:
        """Return the loss of each picture and its gradient, as :meth:`Truncated.gradient` does.

        Raises
        ------
        InputError
            If a term of the loss needs the code as a whole (:attr:`fmi.losses.Term.positions`).
        """
        tiles = self.plan(*image.shape[2:]).tiles
        if len(tiles) == 1:
            return self._network.gradient(image, loss)
        _check(loss)
        summed = any(term.positions == "summed" for term in loss.terms)
        first = self._first_pass(image, loss) if summed else None
        gradient, losses, last = mx.nd.zeros_like(image), [], len(tiles) - 1
        for place in range(last, -1, -1):  # from the last one, whose codes are still there
            tile = tiles[place]
            targets = first.targets[place] if first else [None] * len(loss.terms)
            terms = [
                _within(tile, term, target)
                for term, target in zip(loss.terms, targets)
                if term.layer in tile.inside
            ]
            if not terms:
                continue
            again = first is not None and place == last
            network = self._network.gradient_of_last if again else self._network.gradient
            own, part = network(tile.crop.of(image), Loss(tuple(terms)))
            gradient[tile.crop.index] = tile.crop.of(gradient) + part
            losses.append(own.detach())  # without the arrays of its gradient
            mx.nd.waitall()
        return first.losses if first else functools.reduce(operator.add, losses), gradient

    def _first_pass(self, image: NDArray, loss: Loss) -> _FirstPass:
        """Compute the losses, and add up the statistics that are sums over positions."""
        _check(loss)
        losses: List[NDArray] = []
        sums: List[List[Optional[NDArray]]] = []
        for tile in self.plan(*image.shape[2:]).tiles:
            codes = self._network.forward(tile.crop.of(image))
            sums.append([None] * len(loss.terms))
            for place, term in enumerate(loss.terms):
                if term.layer not in tile.inside:
                    continue
                if term.positions == "summed":
                    sums[-1][place] = _statistic(tile, term)(codes[term.layer])
                else:
                    losses.append(_within(tile, term)(codes[term.layer]))
            mx.nd.waitall()
        targets: List[List[Optional[NDArray]]] = [[None] * len(loss.terms) for _ in sums]
        for place, term in enumerate(loss.terms):
            if term.positions == "summed":
                own = [of_tile[place] for of_tile in sums]
                total = functools.reduce(operator.add, [one for one in own if one is not None])
                losses.append(term.of(total))
                for one, of_tile in zip(own, targets):
                    if one is not None:
                        others = one - total if term.squared else 0
                        of_tile[place] = term.target + others
        return _FirstPass(functools.reduce(operator.add, losses), targets)

    def free(self) -> None:
        """Release the memory of the activations of the last crop; the network stays usable."""
        self._network.free()


@dataclass(frozen=True)
class _FirstPass:
    """What is known after one pass over the tiles.

    Attributes
    ----------
    losses
        Loss of each picture, (B,).
    targets
        For each tile and term: what the statistic of this tile alone should be, given those of the
        other tiles, if it is a sum over positions.
    """

    losses: NDArray
    targets: Sequence[Sequence[Optional[NDArray]]]


def _within(tile: Tile, term: Term, target: Optional[NDArray] = None) -> Term:
    """Return the term for the positions of a tile, given the code of the crop.

    If the statistic is a sum over positions, `target` must be given.
    """
    return replace(
        term,
        statistic=_statistic(tile, term),
        target=tile.positions[term.layer].of(term.target) if target is None else target,
        mask=None,
    )


def _statistic(tile: Tile, term: Term) -> Callable[[NDArray], NDArray]:
    """Return the statistic of the positions of a tile as a function of the code of its crop."""
    window, mask = tile.inside[term.layer], term.mask
    own = replace(term, mask=None if mask is None else tile.positions[term.layer].of(mask))
    return lambda code: own.measured(window.of(code))


def _check(loss: Loss) -> None:
    """Check that the loss can be computed from parts of the codes."""
    for term in loss.terms:
        if term.positions not in ("each", "summed"):
            raise InputError(
                f"a loss at {term.layer} cannot be computed in tiles, because its Term does not say"
                " how its statistic depends on positions: set positions to 'each' or 'summed', or"
                " choose a smaller long_edge or more memory, so that the picture fits as a whole"
            )
