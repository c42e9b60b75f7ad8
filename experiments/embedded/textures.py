"""Procedural textures: a class is a structure (what is drawn) and a palette (in which colours).

Every picture is computed from seeds alone; no photograph and no data set is involved. A structure
is a function that draws a :class:`Field`, colourless, anew for each canvas: its kind, angle and
period belong to the class, while offset, a small rotation and a small change of scale belong to the
canvas. Random numbers come from :class:`numpy.random.RandomState`, whose stream never changes
between versions of NumPy.

``python -m experiments.embedded.textures sheet.png`` draws a contact sheet of all classes.
"""

from __future__ import annotations

import argparse
import colorsys
from functools import lru_cache
from pathlib import Path
from typing import Callable, Dict, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter

SIZE = 192  # pixels on each side of a canvas
PALETTES = 28
PALETTES_PER_STRUCTURE = 3
HUE_SCHEMES = ("complementary", "triad", "free", "neighbours", "free", "complementary", "pale")
PHI = 0.618034  # golden section: spreads the palettes' hues evenly

Rng = np.random.RandomState


class Field(NamedTuple):
    """A colourless drawing; every array is (SIZE, SIZE), ``noise`` (SIZE, SIZE, 3).

    Attributes
    ----------
    value
        Place on the palette's ramp, or brightness inside a cell, 0 to 1.
    cell
        Numbers of the cells; each cell takes one palette colour, chosen by its number.
    band
        Index of the palette colour, where the structure decides it.
    edge
        Share of the palette's edge colour, 0 to 1.
    noise
        Three independent noises of unit variance in place of ``value``.
    """

    value: np.ndarray
    cell: Optional[np.ndarray] = None
    band: Optional[np.ndarray] = None
    edge: Optional[np.ndarray] = None
    noise: Optional[np.ndarray] = None


class Palette(NamedTuple):
    """RGB ``colours`` (3 to 5, 3) from 0 to 1, an ``edge`` colour (3,), noises' ``mix`` (3, 3)."""

    colours: np.ndarray
    edge: np.ndarray
    mix: np.ndarray


class TextureClass(NamedTuple):
    """A structure in a palette."""

    family: str
    structure: Callable[[Rng], Field]
    palette: Palette


Structure = Callable[[Rng], Field]
Family = Callable[[Rng, int], Structure]


# --------------------------------------------------------------------------------------- palettes


def _hue_scheme(kind: str, hue: float, i: int, n: int, rng: Rng) -> Tuple[float, float, float]:
    """Hue, saturation and value of a palette's colour ``i`` of ``n``."""
    if kind == "complementary":
        return hue + 0.5 * i + 0.04 * rng.randn(), rng.uniform(0.7, 1), rng.uniform(0.35, 1)
    if kind == "triad":
        return hue + i / 3, rng.uniform(0.75, 1), rng.uniform(0.55, 1)
    if kind == "neighbours":
        return hue + 0.1 * i, rng.uniform(0.6, 1), 0.2 + 0.8 * i / (n - 1)
    if kind == "pale":
        return hue + 0.3 * rng.randn(), rng.choice([0.25, 0.9]), rng.choice([0.2, 0.95])
    return rng.rand(), rng.choice([0.5, 0.9, 1.0]), rng.choice([0.3, 0.7, 1.0, 1.0])  # "free"


def _palette(index: int) -> Palette:
    """Palette number ``index``: 3 to 5 colours whose luminances span at least two fifths."""
    rng = Rng(7000 + index)
    n = rng.randint(3, 6)
    scheme = [
        _hue_scheme(HUE_SCHEMES[index % len(HUE_SCHEMES)], index * PHI, i, n, rng) for i in range(n)
    ]
    colours = np.array([colorsys.hsv_to_rgb(h % 1, min(s, 1), min(v, 1)) for h, s, v in scheme])
    luminance = colours @ (0.299, 0.587, 0.114)
    if np.ptp(luminance) < 0.4:
        order = luminance.argsort()
        colours[order[0]] *= 0.35
        colours[order[-1]] = 1 - (1 - colours[order[-1]]) * 0.45
    dark = rng.rand() < 0.7
    edge = colours.mean(0) * rng.choice([0.15, 0.4]) if dark else np.full(3, 0.95)
    mix = rng.randn(3, 3) * 0.16 + np.outer(colours[-1] - 0.5, (0.3, 0.1, 0.1))
    return Palette(colours[rng.permutation(n)], edge, mix)


# ---------------------------------------------------------------------------------- building bricks


def _grid(rng: Rng, angle: float = 0.0, turn: float = 0.07, zoom: float = 0.12) -> np.ndarray:
    """Coordinates in pixels (2, SIZE, SIZE): turned by ``angle`` and, a little, by the canvas."""
    angle = angle + rng.randn() * turn
    scale = np.exp(rng.randn() * zoom)
    y, x = np.mgrid[0:SIZE, 0:SIZE].astype(np.float64)
    cos, sin = np.cos(angle) / scale, np.sin(angle) / scale
    return np.stack([cos * x + sin * y + rng.rand() * 977, cos * y - sin * x + rng.rand() * 977])


def _smooth_noise(rng: Rng, length: float) -> np.ndarray:
    """Periodic low-pass noise of about unit variance; ``length`` is the Gaussian's in pixels."""
    return gaussian_filter(rng.randn(SIZE, SIZE), length, mode="wrap") * length * 3.5


def _warp(rng: Rng, grid: np.ndarray, amount: float, length: float = 10.0) -> np.ndarray:
    """Displace a grid by smooth noise of ``amount`` pixels."""
    if not amount:
        return grid
    return grid + amount * np.stack([_smooth_noise(rng, length), _smooth_noise(rng, length)])


def _band_noise(
    rng: Rng, frequency: float, octaves: float, angle: Optional[float] = None, spread: float = 0.35
) -> np.ndarray:
    """Noise of unit variance around ``frequency`` (cycles a pixel), with or without an angle."""
    fy, fx = np.fft.fftfreq(SIZE)[:, None], np.fft.rfftfreq(SIZE)[None]
    gain = np.exp(-(np.log((np.hypot(fx, fy) + 1e-6) / frequency) ** 2) / (2 * octaves**2))
    if angle is not None:
        gain *= np.exp((np.cos(2 * (np.arctan2(fy, fx) - angle)) - 1) / (2 * spread**2))
    noise = np.fft.irfft2(np.fft.rfft2(rng.randn(SIZE, SIZE)) * gain, s=(SIZE, SIZE))
    return noise / (noise.std() + 1e-9)


def _soft_step(t: np.ndarray, sharpness: float = 1.0) -> np.ndarray:
    """Squash any number into 0 to 1."""
    return 0.5 + 0.5 * np.tanh(sharpness * t)


def _wave(t: np.ndarray, kind: str) -> np.ndarray:
    """Periodic profile of period 1 with values from 0 to 1."""
    if kind == "saw":
        return t - np.floor(t)
    sine = np.sin(2 * np.pi * t)
    if kind == "sine":
        return 0.5 + 0.5 * sine
    return _soft_step(sine, 4) if kind == "square" else _soft_step(sine - 0.75, 5)  # "thin"


def _hash(i: np.ndarray, j: np.ndarray, seed: int) -> np.ndarray:
    """A pseudo-random number from 0 to 2**31 - 1 for every pair of whole numbers."""
    h = i.astype(np.int64) * 374761393 + j.astype(np.int64) * 668265263 + seed * 1442695041
    h &= 0x7FFFFFFF
    h = ((h ^ (h >> 13)) * 1274126177) & 0x7FFFFFFF
    return h ^ (h >> 16)


class Cells(NamedTuple):
    """For every pixel the nearest of scattered points; distances in units of the spacing."""

    nearest: np.ndarray
    second: np.ndarray
    dx: np.ndarray
    dy: np.ndarray
    number: np.ndarray


def _norm(dx: np.ndarray, dy: np.ndarray, metric: str) -> np.ndarray:
    """Length of a vector: "round" Euclidean, "diamond" city block, "square" maximum."""
    if metric == "round":
        return np.hypot(dx, dy)
    return abs(dx) + abs(dy) if metric == "diamond" else np.maximum(abs(dx), abs(dy))


def _cells(
    grid: np.ndarray,
    spacing: float,
    jitter: float,
    seed: int,
    metric: str,
    squash: float,
    shift: float,
) -> Cells:
    """Scatter one point in every box of a (brick-shifted) lattice and find the two nearest ones."""
    x, y = grid[0] / spacing, grid[1] / (spacing * squash)
    row0 = np.floor(y)
    first = np.full(x.shape, 1e9)
    found = Cells(first, first, np.zeros_like(x), np.zeros_like(x), np.zeros(x.shape, np.int64))
    for row in (row0 - 1, row0, row0 + 1):
        offset = shift * (row % 2)
        for column in (np.floor(x - offset) + k for k in (-1, 0, 1)):
            number = _hash(column, row, seed)
            dx = x - (column + offset + 0.5 + jitter * ((number & 1023) / 1023 - 0.5))
            dy = (y - (row + 0.5 + jitter * (((number >> 10) & 1023) / 1023 - 0.5))) * squash
            d = _norm(dx, dy, metric)
            closer = d < found.nearest
            found = Cells(
                np.where(closer, d, found.nearest),
                np.where(closer, found.nearest, np.minimum(found.second, d)),
                np.where(closer, dx, found.dx),
                np.where(closer, dy, found.dy),
                np.where(closer, number, found.number),
            )
    return found


def _seed(rng: Rng) -> int:
    return int(rng.randint(1_000_000))


# ---------------------------------------------------------------------------------------- families
# Each takes the class's random numbers and its number within the family, and returns a structure.


def grating(choice: Rng, index: int) -> Structure:
    """Parallel waves, straight or bent."""
    angle, period = np.pi * index / 12, choice.choice([4, 6, 9, 14])
    kind = choice.choice(["sine", "square", "saw", "thin"])
    bend, length = choice.choice([0, 0, 1.5, 3]), choice.choice([8, 14])

    def draw(rng: Rng) -> Field:
        x, _ = _warp(rng, _grid(rng, angle), bend, length)
        return Field(_wave(x / period, kind))

    return draw


def plaid(choice: Rng, index: int) -> Structure:
    """Two waves on top of each other."""
    angle, between = choice.rand() * np.pi, choice.choice([np.pi / 2, np.pi / 3, np.pi / 4])
    periods, kind = choice.uniform(5, 14, 2), choice.choice(["sine", "square", "thin"])

    def draw(rng: Rng) -> Field:
        x, y = _grid(rng, angle)
        a = _wave(x / periods[0], kind)
        b = _wave((x * np.cos(between) + y * np.sin(between)) / periods[1], kind)
        return Field(((a + b) / 2, np.maximum(a, b), a * b, abs(a - b))[index % 4])

    return draw


def quasicrystal(choice: Rng, index: int) -> Structure:
    """A sum of 3 to 7 plane waves."""
    waves, angle = (3, 4, 5, 7)[index % 4], choice.rand()
    period, sharpness = choice.uniform(5, 11), choice.choice([0.8, 2.5])

    def draw(rng: Rng) -> Field:
        x, y = _grid(rng, angle)
        turns = np.pi * np.arange(waves) / waves
        total = sum(np.cos(2 * np.pi / period * (x * np.cos(t) + y * np.sin(t))) for t in turns)
        return Field(_soft_step(total / np.sqrt(waves), sharpness))

    return draw


def brick(choice: Rng, index: int) -> Structure:
    """Bricks in rows, with joints."""
    width, height = choice.uniform(8, 24), choice.uniform(5, 12)
    offset, joint = choice.choice([0, 0.33, 0.5]), choice.choice([1.0, 1.6, 2.5])
    angle, bend = (0, np.pi / 2, np.pi / 4, -np.pi / 4, 0, 0.3)[index % 6], choice.choice([0, 1])

    def draw(rng: Rng) -> Field:
        x, y = _warp(rng, _grid(rng, angle, 0.05), bend)
        row = np.floor(y / height)
        x = x + row * offset * width
        column = np.floor(x / width)
        in_x, in_y = x - column * width, y - row * height
        edge = (np.minimum(in_x, in_y) < joint).astype(float)
        shade = 0.5 * (in_x / width + in_y / height)
        return Field(shade, cell=_hash(row, column, _seed(rng)), edge=edge)

    return draw


def checker(choice: Rng, index: int) -> Structure:
    """Chequered rectangles."""
    width, height = choice.choice([4, 7, 11, 16], 2)
    angle, bend = (0, np.pi / 4, 0.4)[index % 3], choice.choice([0, 2])

    def draw(rng: Rng) -> Field:
        x, y = _warp(rng, _grid(rng, angle), bend)
        return Field(_soft_step(np.sin(np.pi * x / width) * np.sin(np.pi * y / height), 6))

    return draw


SIMPLE_CELLS = ("stones", "net", "coloured dots", "dots", "cones")
CELL_KINDS = (
    "stones",
    "net",
    "coloured dots",
    "rings",
    "dots",
    "spirals",
    "wavelets",
    "patches",
    "stars",
    "cones",
)


def _cell_field(kind: str, c: Cells, grid: np.ndarray, p: Dict[str, float]) -> Field:
    """Fill the cells of :func:`_cells`: outlined, as dots, rings, stars, striped patches ..."""
    number = c.number if p["coloured"] else None
    gap = (c.second - c.nearest) * p["spacing"]
    direction = np.arctan2(c.dy, c.dx)
    ring = 2 * np.pi * p["rings"] * c.nearest
    turn = (c.number % p["turns"]) * np.pi / p["turns"]
    if kind == "stones":
        return Field(np.clip(1 - c.nearest, 0, 1), c.number, edge=(gap < p["joint"]).astype(float))
    if kind == "net":
        return Field(np.exp(-((gap / p["joint"]) ** 2)))
    if kind == "cones":
        return Field(np.clip(1.6 * c.nearest, 0, 1))
    if kind == "coloured dots":
        outside = (c.nearest > p["radius"]).astype(float)
        return Field(np.clip(1 - c.nearest, 0, 1), c.number, edge=outside)
    if kind == "dots":
        return Field(_soft_step((p["radius"] - c.nearest) * p["spacing"]))
    if kind == "rings":
        return Field(_soft_step(np.cos(ring), 2), number)
    if kind == "spirals":
        return Field(_soft_step(np.cos(ring + p["arms"] * direction), 2))
    if kind == "stars":
        return Field(_soft_step(np.cos(2 * p["arms"] * direction), 2), number)
    if kind == "wavelets":
        along = c.dx * np.cos(turn) + c.dy * np.sin(turn)
        bell = np.exp(-((2.2 * c.nearest) ** 2))
        return Field(0.5 + 0.5 * bell * np.cos(2 * np.pi * p["rings"] * along))
    stripes = _wave((grid[0] * np.cos(turn) + grid[1] * np.sin(turn)) / p["stripe"], "square")
    edge = (gap < p["joint"]).astype(float) if p["coloured"] else None
    return Field(stripes, number, edge=edge)  # "patches"


def cells(choice: Rng, index: int) -> Structure:
    """Scattered or latticed cells, drawn in one of ten ways."""
    kind = CELL_KINDS[index % len(CELL_KINDS)]
    simple = kind in SIMPLE_CELLS
    p = {
        "spacing": choice.choice([8, 12, 18, 26] if simple else [14, 20, 30]),
        "joint": choice.choice([1.2, 2, 3]),
        "radius": choice.uniform(0.25, 0.42),
        "rings": choice.choice([2, 3, 4]),
        "arms": choice.choice([1, 2, 3]),
        "turns": choice.choice([2, 3, 4]),
        "stripe": choice.choice([4, 5, 7]),
        "coloured": int(choice.rand() < 0.6),
    }
    jitter = choice.choice([0, 0.4, 1.0])
    metric = choice.choice(["round", "round", "diamond", "square"])
    squash, shift = choice.choice([1, 1, 0.5, 0.87]), choice.choice([0, 0.5])
    angle = choice.choice([0, 0, np.pi / 4, 0.5])

    def draw(rng: Rng) -> Field:
        grid = _grid(rng, angle)
        found = _cells(grid, p["spacing"], jitter, _seed(rng), metric, squash, shift)
        return _cell_field(kind, found, grid, p)

    return draw


def scales(choice: Rng, index: int) -> Structure:
    """Overlapping round scales in rows, plain or ringed."""
    width = choice.uniform(9, 24)
    height, rings = width * choice.choice([0.35, 0.5]), (0, 2, 3)[index % 3]
    coloured = choice.randint(2)
    angle = (0, np.pi, np.pi / 2, np.pi / 4, -np.pi / 2)[index % 5]

    def draw(rng: Rng) -> Field:
        x, y = _grid(rng, angle)
        row0 = np.floor(y / height)
        value = np.zeros_like(x)
        cell = np.zeros(x.shape, np.int64)
        free = np.ones(x.shape, bool)
        for row in (row0 + 1, row0, row0 - 1, row0 - 2):
            u = x / width - 0.5 * (row % 2)
            column = np.floor(u)
            d = np.hypot((u - column - 0.5) * width, y - row * height) / (0.62 * width)
            here = (d < 1) & free
            value, cell = np.where(here, d, value), np.where(here, _hash(column, row, 5), cell)
            free &= ~here
        edge = (abs(value - 0.97) < 0.08).astype(float) if not rings else None
        value = _wave(value * rings, "sine") if rings else value
        return Field(value, cell if coloured else None, edge=edge)

    return draw


def weave(choice: Rng, index: int) -> Structure:
    """Threads over and under each other."""
    width, angle = choice.choice([5, 7, 10, 15]), (0, np.pi / 4, 0.25)[index % 3]
    repeat, strands, colours = (2, 2, 4, 3)[index % 4], (1, 2, 3)[index % 3], choice.choice([1, 2])

    def draw(rng: Rng) -> Field:
        x, y = _grid(rng, angle) / width
        i, j = np.floor(x), np.floor(y)
        in_x, in_y = x - i, y - j
        over = ((i + j) % repeat) < repeat / 2
        across = np.sin(np.pi * ((np.where(over, in_y, in_x) * strands) % 1))
        along = np.sin(np.pi * np.where(over, in_x, in_y)) ** 0.3
        band = np.where(over, (j % colours) * 2, (i % colours) * 2 + 1).astype(int)
        return Field(across * along, band=band)

    return draw


def chevron(choice: Rng, index: int) -> Structure:
    """Zigzags, waves and herringbones."""
    width, period = choice.choice([7, 10, 16]), choice.choice([5, 7, 10])
    slope, kind = choice.choice([0.6, 1.0]), choice.choice(["sine", "square", "saw", "thin"])
    coloured, angle = choice.rand() < 0.4, (0, np.pi / 2, np.pi / 4, -0.5)[(index // 2) % 4]
    shape = index % 4

    def draw(rng: Rng) -> Field:
        x, y = _grid(rng, angle)
        column, phase = np.floor(x / width), (x / width) % 2
        if shape == 0:
            t = y + slope * width * abs(phase - 1)
        elif shape == 1:
            t = y + slope * width * 0.3 * np.sin(np.pi * phase)
        else:
            t = y + np.where(column % 2 > 0, 1, -1) * slope * x
            t = t + 3 * np.sin(np.pi * (x / width - column)) * (shape == 3)
        cell = _hash(column, np.floor(t / period), _seed(rng)) if coloured else None
        edge = (x - column * width < 1.3).astype(float) if shape >= 2 else None
        return Field(_wave(t / period, kind), cell, edge=edge)

    return draw


def noise(choice: Rng, index: int) -> Structure:
    """Noise in a band of frequencies, all directions or one, soft or nearly two-coloured."""
    frequency = choice.choice([0.05, 0.08, 0.12, 0.18, 0.28])
    octaves = choice.choice([0.15, 0.25, 0.6])
    angle = None if index % 3 == 0 else np.pi * index / 9
    spread, sharpness = choice.choice([0.15, 0.3]), choice.choice([0.6, 3.0])
    level = choice.choice([0, 0.8, -0.8])

    def draw(rng: Rng) -> Field:
        scale, turn = np.exp(rng.randn() * 0.1), rng.randn() * 0.06
        direction = None if angle is None else angle + turn
        field = _band_noise(rng, frequency * scale, octaves, direction, spread)
        return Field(_soft_step(field - level, sharpness))

    return draw


def colour_noise(choice: Rng, index: int) -> Structure:
    """Three noises, one for each direction in colour space."""
    frequencies, octaves = choice.choice([0.04, 0.08, 0.15, 0.3], 3), choice.choice([0.3, 0.8])
    angle = None if index % 2 else choice.rand() * np.pi

    def draw(rng: Rng) -> Field:
        field = np.stack([_band_noise(rng, f, octaves, angle, 0.4) for f in frequencies], -1)
        return Field(np.zeros((SIZE, SIZE)), noise=field)

    return draw


def marble(choice: Rng, index: int) -> Structure:
    """Waves of smooth noise, with or without a drift."""
    length, strength = choice.choice([6, 10, 16]), choice.uniform(0.6, 2.0)
    period, angle = choice.choice([12, 25, 1e4]), np.pi * index / 6
    kind = choice.choice(["sine", "square", "thin", "saw"])

    def draw(rng: Rng) -> Field:
        x, _ = _grid(rng, angle)
        return Field(_wave(strength * _smooth_noise(rng, length) + x / period, kind))

    return draw


def ridge(choice: Rng, index: int) -> Structure:
    """Clouds of three octaves, or the lines where they change sign."""
    frequency, gain = choice.choice([0.02, 0.04, 0.07]), choice.uniform(0.3, 0.8)
    width, lines = choice.choice([0.15, 0.4]), index % 2

    def draw(rng: Rng) -> Field:
        parts = [_band_noise(rng, frequency * 2**k, 0.4) * gain**k for k in range(3)]
        total = np.sum(parts, axis=0)
        return Field(np.exp(-abs(total) / width) if lines else _soft_step(total, 0.7))

    return draw


def truchet(choice: Rng, index: int) -> Structure:
    """Square tiles, each one of two mirror images."""
    width, lines, shape = choice.choice([8, 12, 18]), choice.choice([1, 2]), index % 3

    def draw(rng: Rng) -> Field:
        x, y = _grid(rng) / width
        i, j = np.floor(x), np.floor(y)
        in_x, in_y = x - i, y - j
        in_x = np.where(_hash(i, j, _seed(rng)) & 1, in_x, 1 - in_x)
        if shape == 0:
            d = np.minimum(np.hypot(in_x, in_y), np.hypot(1 - in_x, 1 - in_y))
            return Field(_soft_step(np.cos(2 * np.pi * lines * (d - 0.5)), 2))
        if shape == 1:
            return Field(_soft_step((in_x - in_y) * width, 0.7))
        return Field(_soft_step(np.cos(2 * np.pi * lines * (in_x - in_y)), 3))

    return draw


def glyph(choice: Rng, index: int) -> Structure:
    """Rows of small invented letters."""
    letters, side = choice.choice([1, 2, 4]), choice.choice([4, 5, 7])
    shapes = choice.rand(letters, side, side) < 0.5
    if index % 2:
        shapes |= shapes[:, :, ::-1]
    shapes = np.pad(shapes.astype(float), ((0, 0), (0, 1), (0, 1)))
    pixel, shift = choice.choice([1.5, 2, 3]), choice.choice([0, 2])
    coloured, angle = choice.randint(2), (0, 0, np.pi / 4, 0.4)[index % 4]

    def draw(rng: Rng) -> Field:
        x, y = np.floor(_grid(rng, angle) / pixel).astype(int)
        row = y // (side + 1)
        x = x + (row % 2) * shift
        number = _hash(x // (side + 1), row, _seed(rng))
        ink = shapes[number % letters, y % (side + 1), x % (side + 1)]
        if coloured:
            return Field(np.full(ink.shape, 0.6), number >> 3, edge=1 - ink)
        return Field(ink)

    return draw


def triangles(choice: Rng, index: int) -> Structure:
    """A triangular tiling."""
    width, angle = choice.choice([9, 14, 22]), choice.choice([0, np.pi / 2, 0.3])
    coloured, joint = index % 2, choice.choice([0, 0.08])

    def draw(rng: Rng) -> Field:
        x, y = _grid(rng, angle)
        a, b = x / width - y / (width * np.sqrt(3)), y / (width * np.sqrt(0.75))
        i, j = np.floor(a), np.floor(b)
        in_a, in_b = a - i, b - j
        upper = (in_a + in_b > 1).astype(int)
        border = np.minimum(np.minimum(in_a, in_b), abs(in_a + in_b - 1))
        return Field(
            0.8 * np.where(upper, in_a, in_b),
            cell=_hash(i * 2 + upper, j, _seed(rng)) if coloured else None,
            band=None if coloured else upper,
            edge=(border < joint).astype(float) if joint else None,
        )

    return draw


def _leaf_distance(shape: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Below 1 inside a leaf of unit radius."""
    if shape == "box":
        return 1.3 * np.maximum(abs(x), abs(y))
    if shape == "triangle":
        return np.maximum(np.maximum(-2 * y, 1.73 * x + y), y - 1.73 * x)
    if shape == "lens":
        return abs(y) + x * x
    d = np.hypot(x, y)
    if shape == "ring":
        return np.where(d < 0.5, 2.0, d)
    return d * (1 + 0.35 * np.cos(5 * np.arctan2(y, x))) if shape == "star" else d  # "disc"


def _leaf_shade(
    fill: str, d: np.ndarray, x: np.ndarray, y: np.ndarray, stripe: float
) -> np.ndarray:
    """Brightness inside a leaf; ``x`` and ``y`` in pixels along and across it."""
    if fill == "flat":
        return np.full(d.shape, 0.55)
    if fill == "round":
        return 1 - d
    if fill == "striped":
        return _wave(y / stripe, "square")
    return 0.5 + 0.5 * np.sin(2 * np.pi * x / stripe) * np.sin(2 * np.pi * y / stripe)  # "dotted"


def _dead_leaves(
    rng: Rng,
    radii: Tuple[float, float],
    power: float,
    cover: float,
    angle: float,
    turn: float,
    slim: float,
    shape: str,
    fill: str,
    stripe: float,
) -> Field:
    """Drop leaves on top of each other until their areas add up to ``cover`` canvases.

    Radii in pixels follow a power law; ``slim`` is a leaf's width over its length.
    """
    value, cell = np.zeros((SIZE, SIZE)), np.zeros((SIZE, SIZE), np.int64)
    zoom = np.exp(rng.randn() * 0.1)
    low, high = (zoom * radius for radius in radii)
    covered = 0.0
    while covered < cover * SIZE * SIZE:
        r = (low**-power + rng.rand() * (high**-power - low**-power)) ** (-1 / power)
        covered += 3 * r * r * slim
        theta, (cx, cy) = angle + rng.randn() * turn, rng.rand(2) * (SIZE + 2 * r) - r
        reach, number = int(r) + 2, rng.randint(1, 1 << 20)
        rows = slice(max(0, int(cy) - reach), min(SIZE, int(cy) + reach))
        columns = slice(max(0, int(cx) - reach), min(SIZE, int(cx) + reach))
        y, x = np.mgrid[rows, columns]
        along = (x - cx) * np.cos(theta) + (y - cy) * np.sin(theta)
        across = (y - cy) * np.cos(theta) - (x - cx) * np.sin(theta)
        d = _leaf_distance(shape, along / r, across / (r * slim))
        shade = _leaf_shade(fill, d, along, across, stripe)
        value[rows, columns] = np.where(d < 1, shade, value[rows, columns])
        cell[rows, columns] = np.where(d < 1, number, cell[rows, columns])
    return Field(np.clip(value, 0, 1), cell, edge=(cell == 0).astype(float))


def leaves(choice: Rng, index: int) -> Structure:
    """Leaves of many sizes that hide each other."""
    radii = (choice.choice([3, 5]), choice.choice([10, 18, 30]))
    cover, turn = choice.choice([0.6, 2.5]), choice.choice([0.15, 3.0])
    shape = ("disc", "box", "triangle", "ring", "lens", "star")[index % 6]
    fill = ("flat", "round", "striped", "dotted")[index % 4]
    slim, stripe = choice.choice([1, 1, 0.5]), choice.choice([4, 6])
    angle = np.pi * index / 7
    return lambda rng: _dead_leaves(rng, radii, 2.0, cover, angle, turn, slim, shape, fill, stripe)


def strokes(choice: Rng, index: int) -> Structure:
    """Brush strokes: slim leaves, mostly in one direction."""
    radii = (5.0, choice.choice([10, 16]))
    cover, turn = choice.choice([0.7, 2.5]), choice.choice([0.12, 0.4, 3.0])
    shape, fill = ("disc", "box", "lens")[index % 3], ("flat", "round", "striped")[index % 3]
    slim, angle = choice.choice([0.15, 0.25]), np.pi * index / 8
    return lambda rng: _dead_leaves(rng, radii, 1.5, cover, angle, turn, slim, shape, fill, 3.0)


def composite(choice: Rng, index: int) -> Structure:
    """Two fine structures side by side in a coarse one, which only deep layers can see at once."""
    fine: Sequence[Family] = (grating, checker, plaid, cells, noise, truchet, chevron, glyph)
    first = fine[index % 8](Rng(choice.randint(1 << 30)), choice.randint(12))
    second = fine[(index + 1 + index // 8) % 8](Rng(choice.randint(1 << 30)), choice.randint(12))
    period, angle = choice.uniform(26, 44), choice.choice([0, np.pi / 2, np.pi / 4, -np.pi / 4])
    shape, metric = index % 4, choice.choice(["round", "diamond", "square"])

    def draw(rng: Rng) -> Field:
        x, y = _grid(rng, angle)
        if shape == 0:
            inside = np.sin(2 * np.pi * x / period) > 0
        elif shape == 1:
            inside = np.sin(2 * np.pi * x / period) * np.sin(2 * np.pi * y / period) > 0
        elif shape == 2:
            inside = _cells(np.stack([x, y]), period, 0.0, 0, metric, 1.0, 0.5).nearest < 0.36
        else:
            inside = _smooth_noise(rng, period / 6) > 0
        a, b = first(rng).value, second(rng).value
        return Field(np.clip(np.where(inside, 0.5 * a, 0.5 + 0.5 * b), 0, 1))

    return draw


FAMILIES: Tuple[Tuple[Family, int], ...] = (  # and the number of structures of each
    (grating, 12),
    (plaid, 6),
    (quasicrystal, 4),
    (brick, 6),
    (checker, 4),
    (cells, 20),
    (scales, 6),
    (weave, 6),
    (chevron, 8),
    (noise, 9),
    (colour_noise, 4),
    (marble, 6),
    (ridge, 4),
    (truchet, 4),
    (glyph, 6),
    (triangles, 4),
    (leaves, 10),
    (strokes, 8),
    (composite, 24),
)


# ------------------------------------------------------------------------------ classes, pictures


@lru_cache(maxsize=None)
def classes() -> Tuple[TextureClass, ...]:
    """All texture classes; every structure appears in three palettes."""
    palettes = [_palette(i) for i in range(PALETTES)]
    rng = Rng(3)
    deck: List[int] = []
    found = []
    for number, (family, count) in enumerate(FAMILIES):
        for index in range(count):
            structure = family(Rng(1000 * number + index), index)
            for _ in range(PALETTES_PER_STRUCTURE):
                deck = deck or list(rng.permutation(PALETTES))
                found.append(TextureClass(family.__name__, structure, palettes[deck.pop()]))
    return tuple(found)


def _ramp(value: np.ndarray, colours: np.ndarray) -> np.ndarray:
    """Walk through the colours in order: (H, W) from 0 to 1 -> (H, W, 3)."""
    place = np.clip(value, 0, 1) * (len(colours) - 1)
    lower = np.minimum(place.astype(int), len(colours) - 2)
    share = (place - lower)[..., None]
    return colours[lower] * (1 - share) + colours[lower + 1] * share


def paint(field: Field, palette: Palette) -> np.ndarray:
    """Colour a field: (SIZE, SIZE, 3) RGB, about 0 to 1."""
    colours, shade = palette.colours, np.clip(field.value, 0, 1)[..., None]
    if field.noise is not None:
        picture = colours.mean(0) + field.noise @ palette.mix.T
    elif field.cell is not None:
        flat = colours[(field.cell >> 4) % len(colours)]
        picture = flat * (0.45 + 0.55 * shade) + (1 - shade) * 0.12 * colours[-1]
    elif field.band is not None:
        picture = colours[field.band % len(colours)] * (0.3 + 0.7 * shade)
    else:
        picture = _ramp(field.value, colours)
    if field.edge is not None:
        edge = field.edge[..., None]
        picture = picture * (1 - edge) + palette.edge * edge
    return picture


def canvas(label: int, number: int) -> np.ndarray:
    """Canvas ``number`` of class ``label``: (SIZE, SIZE, 3) uint8 RGB, the same at every call."""
    texture = classes()[label]
    rng = Rng((label, number, 1))
    palette = texture.palette
    jittered = palette._replace(colours=palette.colours + rng.randn(*palette.colours.shape) * 0.03)
    picture = paint(texture.structure(rng), jittered)
    blur = rng.uniform(0.3, 0.8)
    picture = gaussian_filter(picture, (blur, blur, 0))
    return np.clip(picture * 255, 0, 255).astype(np.uint8)


def contact_sheet(columns: int = 24, tile: int = 96, gap: int = 2) -> Image.Image:
    """One corner of one canvas of every class, ``columns`` a row."""
    count = len(classes())
    rows = -(-count // columns)
    step = tile + gap
    sheet = np.full((rows * step - gap, columns * step - gap, 3), 255, np.uint8)
    for label in range(count):
        y, x = label // columns * step, label % columns * step
        sheet[y : y + tile, x : x + tile] = canvas(label, 0)[:tile, :tile]
    return Image.fromarray(sheet)


def main(arguments: Optional[Sequence[str]] = None) -> None:
    """Command line: draw the contact sheet."""
    parser = argparse.ArgumentParser(description="Draw a contact sheet of all texture classes.")
    parser.add_argument("picture", type=Path, help="where to write it (PNG)")
    contact_sheet().save(parser.parse_args(arguments).picture)


if __name__ == "__main__":
    main()
