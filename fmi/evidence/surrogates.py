"""Surrogates: pictures that keep a part of another picture's structure, and nothing else."""

from __future__ import annotations

import numpy as np

from fmi import pictures
from fmi.errors import InputError
from fmi.pictures import Source

__all__ = ["phase_randomised", "random_phases", "shuffled", "whole_patches"]


def whole_patches(picture: Source, patch: int) -> np.ndarray:
    """Return a picture without the rim, at the right and at the bottom, that fills no patch.

    Parameters
    ----------
    picture
        As for :func:`fmi.pictures.read`, such as (H, W, 3) uint8 RGB.
    patch
        Side of the square patches, in pixels.

    Returns
    -------
    numpy.ndarray
        (H - H % patch, W - W % patch, 3) uint8 RGB.

    Raises
    ------
    InputError
        If fewer than two patches fit into the picture.
    """
    pixels = pictures.read(picture).pixels
    height, width = pixels.shape[:2]
    if patch < 1 or (height // patch) * (width // patch) < 2:
        raise InputError(
            f"patch={patch} must be at least 1, and two patches must fit into the picture of"
            f" {width} x {height} pixels"
        )
    return pixels[: height - height % patch, : width - width % patch]


def shuffled(picture: Source, patch: int, seed: int) -> np.ndarray:
    """Return a picture whose patches are in random order.

    What is larger than a patch is destroyed; colours and what is smaller are kept, but for new
    edges between the patches (after Gatys et al. 2017, "Texture and art with deep neural
    networks", and Geirhos et al. 2019).

    Parameters
    ----------
    picture
        As for :func:`fmi.pictures.read`, such as (H, W, 3) uint8 RGB.
    patch
        Side of the square patches, in pixels.
    seed
        Seed of the permutation, in which some patches may keep their place.

    Returns
    -------
    numpy.ndarray
        uint8 RGB of the size of :func:`whole_patches`, with which it should be compared: the rim
        is cropped.

    Raises
    ------
    InputError
        If fewer than two patches fit into the picture.
    """
    pixels = whole_patches(picture, patch)
    rows, columns = pixels.shape[0] // patch, pixels.shape[1] // patch
    patches = pixels.reshape(rows, patch, columns, patch, 3).swapaxes(1, 2)
    order = np.random.RandomState(seed).permutation(rows * columns)
    mixed = patches.reshape(rows * columns, patch, patch, 3)[order]
    mixed = mixed.reshape(rows, columns, patch, patch, 3).swapaxes(1, 2)
    return mixed.reshape(pixels.shape)


def random_phases(field: np.ndarray, seed: int) -> np.ndarray:
    """Return a field with random phases, the same change of phase in all channels.

    Means, power spectra and cross spectra of the channels stay as they are (Galerne, Gousseau &
    Morel 2011, "Random phase textures", section III; the phases are those of white noise).

    Parameters
    ----------
    field
        (H, W, C).

    Returns
    -------
    numpy.ndarray
        (H, W, C) float64.
    """
    height, width = field.shape[:2]
    noise = np.fft.rfft2(np.random.RandomState(seed).normal(size=(height, width)))
    turn = noise / np.abs(noise)
    turn[0, 0] = 1
    spectrum = np.fft.rfft2(field, axes=(0, 1)) * turn[..., None]
    return np.fft.irfft2(spectrum, s=(height, width), axes=(0, 1))


def phase_randomised(picture: Source, seed: int) -> np.ndarray:
    """Return a picture with random phases: it keeps only mean colour and spectra.

    See :func:`random_phases`. The result is rounded and clipped to 0-255, which changes the
    spectra: of the ten photographs of :func:`fmi.evidence.crops.photographs`, 0 to 16 % of the
    values are clipped, the standard deviation falls by 0 to 18 %, and the amplitudes of the spectra
    change by 1 to 26 % of their norm, most where much is black or white. The spectra of a picture
    whose opposite edges differ contain a cross of horizontal and vertical waves, and so does the
    result.

    Parameters
    ----------
    picture
        As for :func:`fmi.pictures.read`, such as (H, W, 3) uint8 RGB.
    seed
        Seed of the phases.

    Returns
    -------
    numpy.ndarray
        (H, W, 3) uint8 RGB.
    """
    found = random_phases(pictures.read(picture).pixels, seed)
    return np.clip(np.rint(found), 0, 255).astype(np.uint8)
