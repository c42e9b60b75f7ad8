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
    "ORIENTATIONS",
    "SCALES",
    "amplitudes",
    "band_energies",
    "frequencies",
    "lab",
    "periodic",
    "transfers",
]

SCALES = 4  # octaves; wavelengths of 2.8, 5.7, 11 and 23 pixels at their centres
ORIENTATIONS = 6
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


def periodic(field: np.ndarray) -> np.ndarray:
    """Return the spectrum of the periodic component of a field, without its mean.

    The discrete Fourier transform joins opposite edges, whose difference appears as a cross of
    horizontal and vertical waves. The periodic component differs from the field by a smooth one
    that takes up this difference (Moisan 2011, "Periodic plus smooth image decomposition", Eq. 11).

    Parameters
    ----------
    field
        (H, W), such as L*.

    Returns
    -------
    numpy.ndarray
        (H, W) complex128, the discrete Fourier transform, 0 at frequency 0.
    """
    centred = field.astype(np.float64) - field.mean(dtype=np.float64)
    jump = np.zeros_like(centred)
    jump[0] += centred[-1] - centred[0]
    jump[-1] += centred[0] - centred[-1]
    jump[:, 0] += centred[:, -1] - centred[:, 0]
    jump[:, -1] += centred[:, 0] - centred[:, -1]
    down, across = (2 * np.cos(2 * np.pi * one) for one in frequencies(*field.shape))
    laplacian = down + across - 4
    laplacian[0, 0] = 1
    spectrum = fft.fft2(centred) - fft.fft2(jump) / laplacian
    spectrum[0, 0] = 0
    return np.asarray(spectrum)


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
    power = ORIENTATIONS - 1
    peak = 2.0**power * math.factorial(power)
    peak /= math.sqrt(ORIENTATIONS * math.factorial(2 * power))
    found = np.empty((SCALES, ORIENTATIONS, height, width), np.float32)
    for scale in range(SCALES):
        octaves = np.log2(radius / TOP) + scale
        ring = np.where(abs(octaves) < 1, np.cos(np.pi / 2 * octaves), 0)
        ring[0, 0] = 0
        for orientation in range(ORIENTATIONS):
            along = np.cos(angle - np.pi * orientation / ORIENTATIONS)
            found[scale, orientation] = ring * 2 * peak * np.maximum(along, 0) ** power
    found.setflags(write=False)  # it is cached
    return found.reshape(SCALES * ORIENTATIONS, height, width)


def amplitudes(field: np.ndarray) -> np.ndarray:
    """Return the local amplitude of a field in each band of :func:`transfers`.

    Parameters
    ----------
    field
        (H, W), such as L*.

    Returns
    -------
    numpy.ndarray
        (SCALES * ORIENTATIONS, H, W) float32, in the unit of the field.
    """
    spectrum = periodic(field).astype(np.complex64)
    return np.abs(fft.ifft2(transfers(*field.shape) * spectrum, overwrite_x=True))


def band_energies(field: np.ndarray) -> np.ndarray:
    """Return the variance of a field in each band, (SCALES * ORIENTATIONS,) float64."""
    power = np.abs(periodic(field)) ** 2 / field.size**2
    return np.tensordot(transfers(*field.shape).astype(np.float64) ** 2, power, 2) / 2
