"""Spectra: the lightness of a picture in oriented bands of frequency."""

from __future__ import annotations

import functools
import math
from typing import Tuple

import numpy as np
from scipy import fft
from skimage.color import rgb2lab

from fmi import pictures
from fmi.pictures import Source

__all__ = [
    "FLAT",
    "MARGIN",
    "ORIENTATIONS",
    "SCALES",
    "amplitudes",
    "band_energies",
    "frequencies",
    "lab",
    "power",
    "transfers",
]

SCALES = 4  # octaves; wavelengths of 2.8, 5.7, 11 and 23 pixels at their centres
ORIENTATIONS = 6
MARGIN = 16  # pixels: most of the reach of the coarsest band
FLAT = 1e-3  # of L*: float32 values of equal colours may differ in the last digits
TOP = math.sqrt(0.125)  # cycles per pixel: the finest band ends where the spectrum does, at 0.707


def lab(picture: Source) -> np.ndarray:
    """Return a picture in CIELAB.

    Parameters
    ----------
    picture
        As for :func:`fmi.pictures.read`, such as (H, W, 3) uint8 RGB.

    Returns
    -------
    numpy.ndarray
        (H, W, 3) float32: L* from 0 to 100, a*, b*.
    """
    unit = pictures.read(picture).pixels.astype(np.float32) / 255
    return np.asarray(rgb2lab(unit), dtype=np.float32)


def frequencies(height: int, width: int) -> Tuple[np.ndarray, np.ndarray]:
    """Return the vertical (H, 1) and horizontal (1, W) frequencies, in cycles per pixel."""
    return fft.fftfreq(height)[:, None], fft.fftfreq(width)[None, :]


def power(field: np.ndarray) -> np.ndarray:
    """Return the power spectrum of a field without its mean, as shares of its sum.

    The field is multiplied by a Hann window first: otherwise the discrete Fourier transform, which
    joins opposite edges, would show their difference as a cross of horizontal and vertical waves.

    Parameters
    ----------
    field
        (H, W), such as L*.

    Returns
    -------
    numpy.ndarray
        (H, W) float64 with sum 1, and 0 at frequency 0; NaN if the field does not vary.
    """
    if np.ptp(field) < FLAT:
        return np.full(field.shape, np.nan)
    down, across = (np.sin(np.pi * (np.arange(n) + 0.5) / n) ** 2 for n in field.shape)
    window = np.outer(down, across)
    centred = field - np.average(field, weights=window)
    found = np.square(np.abs(fft.fft2(centred * window)))
    found[0, 0] = 0
    return found / found.sum()


@functools.lru_cache(maxsize=8)
def transfers(height: int, width: int) -> np.ndarray:
    """Return the transfer functions of complex oriented bands.

    These are the bands of the steerable pyramid, without subsampling: raised cosines of an octave
    on each side in the logarithm of the frequency, times a power of the cosine of the angle on one
    half-plane (Portilla & Simoncelli 2000, section 2.1). The real part of a response is the
    band-passed picture, and the absolute value its local amplitude, which does not depend on phase.
    Between the centres of the finest and the coarsest band, the squares at a frequency and at its
    negative add up to 4, so that half of the mean square amplitudes is the variance of the picture.

    Returns
    -------
    numpy.ndarray
        (SCALES * ORIENTATIONS, H, W) float32. Scales are ordered from the finest, and the
        orientations of each by the direction in which the brightness varies: from horizontal
        (vertical stripes) in steps of ``180 / ORIENTATIONS`` degrees towards the bottom.
    """
    down, across = frequencies(height, width)
    radius, angle = np.hypot(down, across), np.arctan2(down, across)
    radius[0, 0] = 1
    exponent = ORIENTATIONS - 1
    peak = 2.0**exponent * math.factorial(exponent)
    peak /= math.sqrt(ORIENTATIONS * math.factorial(2 * exponent))
    found = np.empty((SCALES, ORIENTATIONS, height, width), np.float32)
    for scale in range(SCALES):
        octaves = np.log2(radius / TOP) + scale
        ring = np.where(abs(octaves) < 1, np.cos(np.pi / 2 * octaves), 0)
        ring[0, 0] = 0
        for orientation in range(ORIENTATIONS):
            along = np.cos(angle - np.pi * orientation / ORIENTATIONS)
            found[scale, orientation] = ring * 2 * peak * np.maximum(along, 0) ** exponent
    found.setflags(write=False)  # it is cached
    return found.reshape(SCALES * ORIENTATIONS, height, width)


def amplitudes(field: np.ndarray) -> np.ndarray:
    """Return the local amplitude of a field in each band of :func:`transfers`.

    The discrete Fourier transform joins opposite edges, which changes the amplitudes near them.
    Therefore a rim of :data:`MARGIN` pixels, or of a quarter of a smaller side, is left out.

    Parameters
    ----------
    field
        (H, W), such as L*.

    Returns
    -------
    numpy.ndarray
        (SCALES * ORIENTATIONS, H - 2 * MARGIN, W - 2 * MARGIN) float32, in the unit of the field.
    """
    centred = (field - field.mean(dtype=np.float64)).astype(np.float32)
    found = fft.ifft2(transfers(*field.shape) * fft.fft2(centred), overwrite_x=True)
    rows, columns = (min(MARGIN, side // 4) for side in field.shape)
    return np.abs(found[:, rows : field.shape[0] - rows, columns : field.shape[1] - columns])


def band_energies(field: np.ndarray) -> np.ndarray:
    """Return the variance of a field in each band, (SCALES * ORIENTATIONS,) float64.

    It is 0 if the field does not vary.
    """
    if np.ptp(field) < FLAT:
        return np.zeros(SCALES * ORIENTATIONS)
    return np.square(amplitudes(field)).mean(axis=(1, 2), dtype=np.float64) / 2
