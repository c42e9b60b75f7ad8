"""Appearance: how colourful and how intricate a picture is."""

from __future__ import annotations

import bz2

import numpy as np

from fmi import pictures
from fmi.evidence import spectra
from fmi.pictures import Source

__all__ = [
    "BIN",
    "SHARE",
    "anisotropy",
    "bandwidth",
    "centroid",
    "colour_entropy",
    "colourfulness",
    "compressed_size",
    "significant_bands",
]

BIN = 10.0  # side of a bin of the colour histogram, in units of CIELAB
SHARE = 0.02  # of the energy of all bands, about half of what each of 24 equal ones has


def colourfulness(picture: Source) -> float:
    """Return the colourfulness of a picture: 0 for grey, about 110 for an extremely colourful one.

    This is ``M(3)`` of Hasler & Süsstrunk 2003 (section 6) with ``rg = R - G`` and
    ``yb = (R + G) / 2 - B`` on the 0-255 scale: the standard deviation in the plane of rg and yb
    plus 0.3 times the distance of its mean from grey.

    Parameters
    ----------
    picture
        As for :func:`fmi.pictures.read`, such as (H, W, 3) uint8 RGB; so in all functions here.
    """
    red, green, blue = np.moveaxis(pictures.read(picture).pixels.astype(np.float64), 2, 0)
    opponents = (red - green, (red + green) / 2 - blue)
    spread = np.hypot(*(one.std() for one in opponents))
    return float(spread + 0.3 * np.hypot(*(one.mean() for one in opponents)))


def colour_entropy(picture: Source) -> float:
    """Return the entropy of the histogram of colours in CIELAB, in bits.

    The bins are cubes of side :data:`BIN`, of which one is centred on L* = 0, a* = 0, b* = 0. It is
    0 for one colour, and at most the logarithm of the number of pixels.
    """
    bins = np.rint(spectra.lab(picture).reshape(-1, 3) / BIN).astype(np.int64) + 64
    _, counts = np.unique(bins @ (128 * 128, 128, 1), return_counts=True)
    shares = counts / counts.sum()
    return float(np.abs((shares * np.log2(shares)).sum()))


def _power(picture: Source) -> np.ndarray:
    """Return the power spectrum (H, W) of L* with sum 1; NaN if L* does not vary."""
    return spectra.power(spectra.lab(picture)[..., 0])


def centroid(picture: Source) -> float:
    """Return the mean spatial frequency of L* in cycles per pixel, weighted with the power.

    For the spectrum see :func:`fmi.evidence.spectra.power`. White noise has 0.38, a sine its own
    frequency.

    Returns
    -------
    float
        NaN if L* does not vary.
    """
    power = _power(picture)
    return float((np.hypot(*spectra.frequencies(*power.shape)) * power).sum())


def bandwidth(picture: Source) -> float:
    """Return the bandwidth of L* in octaves.

    This is the standard deviation of the logarithm to base 2 of the spatial frequency, weighted
    with the power. A sine has 0, in whatever direction.

    Returns
    -------
    float
        NaN if L* does not vary.
    """
    power = _power(picture)
    radius = np.hypot(*spectra.frequencies(*power.shape))
    radius[0, 0] = 1  # where there is no power
    octaves = np.log2(radius)
    mean = (octaves * power).sum()
    return float(np.sqrt((np.square(octaves - mean) * power).sum()))


def anisotropy(picture: Source) -> float:
    """Return how much of one orientation the power of L* is: 0 for none, 1 for stripes.

    With the angle t of each frequency, it is the length of the mean of ``(cos 2t, sin 2t)``,
    weighted with the power: the coherence ``(l1 - l2) / (l1 + l2)`` of the two eigenvalues of the
    tensor of orientations (Bigün & Granlund 1987), which is 0 for two orthogonal sets of stripes
    too.

    Returns
    -------
    float
        NaN if L* does not vary.
    """
    power = _power(picture)
    down, across = spectra.frequencies(*power.shape)
    double = 2 * np.arctan2(down, across)
    cosine, sine = np.cos(double), np.sin(double)
    sine[(down == -0.5) & (across == -0.5)] = 0  # which stands for both diagonals
    return float(np.hypot((cosine * power).sum(), (sine * power).sum()))


def significant_bands(picture: Source, share: float = SHARE) -> int:
    """Return how many oriented bands of L* have more than a share of the energy of all bands.

    The bands are those of :func:`fmi.evidence.spectra.transfers`. It is 0 if L* does not vary.
    """
    energies = spectra.band_energies(spectra.lab(picture)[..., 0])
    return int((energies > share * energies.sum()).sum())


def compressed_size(picture: Source) -> float:
    """Return the size of a picture after lossless compression, in bytes per pixel.

    Each pixel is replaced by its difference from Paeth's prediction, as in PNG (filter type 4), and
    the channels are compressed one after the other with bzip2, whose output does not depend on the
    version of a library as that of zlib does. White noise has 3, one colour nearly 0. Small
    pictures have more, because of some 40 bytes of header.
    """
    pixels = pictures.read(picture).pixels
    padded = np.pad(pixels.astype(np.int16), ((1, 0), (1, 0), (0, 0)))
    left, above, corner = padded[1:, :-1], padded[:-1, 1:], padded[:-1, :-1]
    toward = left + above - corner
    distances = np.abs([toward - left, toward - above, toward - corner])
    predicted = np.choose(distances.argmin(axis=0), (left, above, corner))
    differences = (pixels - predicted).astype(np.uint8)  # modulo 256
    height, width = pixels.shape[:2]
    return len(bz2.compress(differences.transpose(2, 0, 1).tobytes(), 9)) / (height * width)
