"""Training data: canvases of every texture class on disk, and batches of crops cut out of them.

A batch is a pure function of (canvases, settings, seed, step): a run that resumes at some step sees
exactly the pictures that an uninterrupted run sees.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Mapping, NamedTuple, Sequence, Tuple

import numpy as np
from tqdm import tqdm

from experiments.embedded import textures

log = logging.getLogger(__name__)

MEAN = np.array((123.68, 116.779, 103.939), np.float32)  # RGB; subtracted before the network
SCALE = np.float32(1 / 60)  # then multiplied, in training only: folded into conv1_1 at the end
PLAIN_NOISE = 4.0  # largest standard deviation of the noise in plain pictures, 0-255 scale


@dataclass(frozen=True)
class Phase:
    """One stretch of training.

    Attributes
    ----------
    steps
        Number of batches.
    optimiser
        MXNet's name of it, and its settings.
    crop
        Side of a crop in pixels.
    batch
        Textured crops in a batch.
    rate
        Learning rate at the first and at the last step, a half cosine in between.
    mix
        Share of the crops that a second class partly hides.
    flat
        Share of the crops that a flat region partly hides.
    contrast
        Lowest and highest factor on the contrast.
    thresholds
        Threshold of each of the five blocks, see :class:`experiments.embedded.network.Unit`.
    noise
        Largest standard deviation of the colour noise, 0-255 scale.
    first_thresholds
        The same for the first relu of each block; empty: as the others of the block.
    """

    steps: int
    optimiser: Mapping[str, Any]
    crop: int
    batch: int
    rate: Sequence[float]
    mix: float
    flat: float
    contrast: Sequence[float]
    noise: float
    thresholds: Sequence[float]
    first_thresholds: Sequence[float] = ()


class Batch(NamedTuple):
    """Pictures (B, 3, crop, crop) as the network takes them, two labels and their shares (2, B).

    A share is the part of the picture that shows the class. The last picture is plain: the mean
    colour and weak noise; its shares are 0.
    """

    pictures: np.ndarray
    labels: np.ndarray
    shares: np.ndarray


def to_network(pictures: np.ndarray) -> np.ndarray:
    """(B, H, W, 3) RGB on the 0-255 scale -> the training network's (B, 3, H, W) float32."""
    return np.ascontiguousarray(((pictures - MEAN) * SCALE).transpose(0, 3, 1, 2), np.float32)


def _canvases_of(label: int, count: int) -> np.ndarray:
    return np.stack([textures.canvas(label, number) for number in range(count)])


def draw_canvases(path: Path, labels: int, count: int) -> np.ndarray:
    """Draw (or find) ``count`` canvases of the first ``labels`` classes.

    Returns
    -------
    numpy.ndarray
        (labels, count, SIZE, SIZE, 3) uint8 RGB, memory-mapped from ``path``.
    """
    shape = (labels, count, textures.SIZE, textures.SIZE, 3)
    if not path.exists():
        log.info("drawing %d canvases of each of %d classes", count, labels)
        part = path.with_name(path.name + ".part")
        drawn = np.lib.format.open_memmap(part, mode="w+", dtype=np.uint8, shape=shape)
        with multiprocessing.get_context("fork").Pool(os.cpu_count()) as pool:
            found = pool.imap(partial(_canvases_of, count=count), range(labels))
            for label, pictures in enumerate(tqdm(found, "canvases", labels)):
                drawn[label] = pictures
        drawn.flush()
        part.replace(path)
    canvases = np.load(path, mmap_mode="r")
    if canvases.shape != shape:
        raise ValueError(f"{path} holds {canvases.shape}, expected {shape}: delete it to draw anew")
    return canvases


def cut(
    canvases: np.ndarray, labels: np.ndarray, crop: int, rng: np.random.RandomState
) -> np.ndarray:
    """One random crop of a random canvas for every label: (B, crop, crop, 3) uint8."""
    numbers = rng.randint(canvases.shape[1], size=len(labels))
    corners = rng.randint(canvases.shape[2] - crop + 1, size=(len(labels), 2))
    return np.stack(
        [
            canvases[label, number, y : y + crop, x : x + crop]
            for label, number, (y, x) in zip(labels, numbers, corners)
        ]
    )


def recolour(
    pictures: np.ndarray, contrast: Sequence[float], rng: np.random.RandomState
) -> np.ndarray:
    """Change contrast, mix the colour channels a little and shift the mean colour; (B, H, W, 3)."""
    n = len(pictures)
    low, high = np.log(contrast)
    gain = np.exp(rng.uniform(low, high, (n, 1, 1)))
    matrix = (np.eye(3) * gain + 0.05 * rng.randn(n, 3, 3)).astype(np.float32)
    shift = (14 * rng.randn(n, 1, 3)).astype(np.float32)
    flat = pictures.reshape(n, -1, 3).astype(np.float32) - 128
    return (flat @ matrix.transpose(0, 2, 1) + 128 + shift).reshape(pictures.shape)


def regions(count: int, crop: int, rng: np.random.RandomState) -> np.ndarray:
    """Random regions, a wavy half plane or a disc each: (count, crop, crop) bool."""
    y, x = np.mgrid[:crop, :crop].astype(np.float32) - crop / 2
    angle = rng.uniform(0, 2 * np.pi, (count, 1, 1)).astype(np.float32)
    offset = (rng.randn(count, 1, 1) * crop * 0.18).astype(np.float32)
    radius = (rng.uniform(0.2, 0.45, (count, 1, 1)) * crop).astype(np.float32)
    cx, cy = (rng.randn(2, count, 1, 1) * crop * 0.2).astype(np.float32)
    along = x * np.cos(angle) + y * np.sin(angle)
    half = along + 4 * np.sin(0.15 * x + 3 * angle) > offset
    disc = np.hypot(x - cx, y - cy) < radius
    return np.where(rng.rand(count, 1, 1) < 0.6, half, disc)


def noisy(pictures: np.ndarray, most: float, rng: np.random.RandomState) -> np.ndarray:
    """Add white noise, of a random standard deviation up to ``most`` for each picture."""
    fast = np.random.Generator(np.random.SFC64(int(rng.randint(1 << 30))))
    strength = rng.uniform(0, most, (len(pictures), 1, 1, 1)).astype(np.float32)
    return pictures + strength * fast.standard_normal(pictures.shape, np.float32)


def batch(canvases: np.ndarray, phase: Phase, seed: int, step: int) -> Batch:
    """The training batch of ``step``; see :class:`Phase` and :class:`Batch`."""
    rng = np.random.RandomState((seed, step))
    n = phase.batch
    first = rng.randint(len(canvases), size=n)
    pictures = recolour(cut(canvases, first, phase.crop, rng), phase.contrast, rng)
    order = rng.permutation(n)
    kind = rng.rand(n)
    mixed, flat = kind < phase.mix, (kind >= phase.mix) & (kind < phase.mix + phase.flat)
    hidden = regions(n, phase.crop, rng) & (mixed | flat)[:, None, None]
    colour = rng.uniform(0, 255, (n, 1, 1, 3)).astype(np.float32)
    cover = np.where(mixed[:, None, None, None], pictures[order], colour)
    pictures = np.where(hidden[..., None], cover, pictures)
    share = hidden.mean((1, 2))
    pictures = np.clip(noisy(pictures, phase.noise, rng), 0, 255)
    plain = noisy(np.tile(MEAN, (1, phase.crop, phase.crop, 1)), PLAIN_NOISE, rng)
    labels, shares = np.stack([first, first[order]]), np.stack([1 - share, share * mixed])
    one_more = ((0, 0), (0, 1))
    return Batch(
        to_network(np.concatenate([pictures, plain])),
        np.pad(labels, one_more),
        np.pad(shares, one_more),
    )


def clean_crops(
    canvases: np.ndarray, crop: int, count: int, seed: int
) -> Tuple[np.ndarray, np.ndarray]:
    """``count`` crops without any change: pictures (count, 3, crop, crop) and labels (count,)."""
    rng = np.random.RandomState(seed)
    labels = rng.permutation(np.arange(count) % len(canvases))
    return to_network(cut(canvases, labels, crop, rng)), labels
