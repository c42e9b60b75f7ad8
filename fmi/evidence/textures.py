"""Textures: descriptors of pictures, and the distances between them."""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import List, Optional, Sequence, Tuple

import numpy as np
from PIL import Image

from fmi import codes
from fmi.device.mxnet import NDArray
from fmi.errors import InputError
from fmi.evidence import maps, spectra
from fmi.evidence.spectra import ORIENTATIONS, SCALES
from fmi.networks.base import Network
from fmi.pictures import Source

__all__ = [
    "Colours",
    "Descriptor",
    "GramMatrices",
    "MapMeans",
    "MapMoments",
    "MapSums",
    "OrientedBands",
    "scaled",
]


def scaled(pixels: np.ndarray, long_edge: Optional[int]) -> np.ndarray:
    """Return a picture with a longer side of `long_edge` pixels; as it is if this is ``None``.

    Parameters
    ----------
    pixels
        (H, W, 3) uint8 RGB.

    Raises
    ------
    InputError
        If `long_edge` is not at least 1.
    """
    if long_edge is None or long_edge == max(pixels.shape[:2]):
        return pixels
    if long_edge < 1:
        raise InputError(f"long_edge={long_edge} must be at least 1")
    height, width = (
        max(1, round(side * long_edge / max(pixels.shape[:2]))) for side in pixels.shape[:2]
    )
    resized = Image.fromarray(pixels).resize((width, height), Image.Resampling.LANCZOS)
    return np.asarray(resized)


class Descriptor(abc.ABC):
    """A kind of descriptor: a vector for each picture, and a distance between two vectors.

    Attributes
    ----------
    long_edge
        The longer side, in pixels, to which each picture is brought first. ``None`` keeps their
        sizes, which is right where all are on the same scale, such as panels of one layer, or
        crops and panels at the size that the network sees.
    """

    long_edge: Optional[int]

    @property
    @abc.abstractmethod
    def name(self) -> str:
        """What the distance is called in a table."""

    @abc.abstractmethod
    def _of(self, pictures: Sequence[np.ndarray]) -> np.ndarray:
        """Return the vectors (n, D) of pictures that have the right size."""

    @abc.abstractmethod
    def _between(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Return the distances of vectors (n, D) from vectors (m, D)."""

    def of(self, pictures: Sequence[Source]) -> np.ndarray:
        """Return the descriptors of pictures.

        Parameters
        ----------
        pictures
            Pictures as for :func:`fmi.pictures.read`, such as (H, W, 3) uint8 RGB.

        Returns
        -------
        numpy.ndarray
            (n, D) float32.

        Raises
        ------
        InputError
            If there is no picture, or if one cannot be read or is too small.
        """
        return self._of([scaled(pixels, self.long_edge) for pixels in maps.read_all(pictures)])

    def distances(self, rows: np.ndarray, columns: Optional[np.ndarray] = None) -> np.ndarray:
        """Return the distances between descriptors.

        Parameters
        ----------
        rows, columns
            What :meth:`of` returns for n and for m pictures; without `columns`, `rows` again.

        Returns
        -------
        numpy.ndarray
            (n, m) float64.

        Raises
        ------
        InputError
            If they are not vectors of one length.
        """
        columns = rows if columns is None else columns
        if rows.ndim != 2 or columns.ndim != 2 or rows.shape[1] != columns.shape[1]:
            raise InputError(
                f"descriptors of shapes {rows.shape} and {columns.shape} cannot be compared: both"
                " must be what one descriptor returns for a list of pictures"
            )
        return self._between(rows, columns)


@dataclass(frozen=True)
class _OfMaps(Descriptor):
    """A descriptor by statistics of the feature maps of a network, one layer after the other.

    Attributes
    ----------
    network, layers
        Network, and names of its layers; if there are none, :meth:`_usual`.
    long_edge
        See :class:`Descriptor`.
    precision
        Precision of the network.
    """

    network: Network
    layers: Tuple[str, ...] = ()
    long_edge: Optional[int] = None
    precision: str = "float32"

    @abc.abstractmethod
    def _usual(self) -> Sequence[str]:
        """Return the names of the layers that are used if none is given."""

    @property
    def _layers(self) -> List[str]:
        return [self.network.layer(layer).name for layer in self.layers or self._usual()]

    def _statistics(self, code: NDArray) -> np.ndarray:
        """Return the statistics of a code (B, C, M, N), here the means of its maps, (B, C)."""
        return codes.energies(code).asnumpy() / code[0, 0].size

    def _length(self, channels: int) -> int:
        """Return how many statistics a layer with so many feature maps has."""
        return channels

    def _of(self, pictures: Sequence[np.ndarray]) -> np.ndarray:
        layers, found = self._layers, []
        for _, code in maps.in_batches(self.network, pictures, layers, self.precision):
            parts = [self._statistics(code[name]) for name in layers]
            found.append(np.concatenate(parts, axis=1).astype(np.float32))
        return np.concatenate(found)

    def _between(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Return the means over the layers of ``||p - q|| / (||p|| + ||q||)``."""
        lengths = [self._length(self.network.layer(name).channels) for name in self._layers]
        bounds = np.cumsum([0, *lengths])
        if bounds[-1] != rows.shape[1]:
            raise InputError(
                f"these descriptors have {rows.shape[1]} values, not the {bounds[-1]} of"
                f" {self.name} at {', '.join(self._layers)}"
            )
        total = np.zeros((len(rows), len(columns)))
        for begin, end in zip(bounds, bounds[1:]):
            total += _relative(rows[:, begin:end], columns[:, begin:end])
        return total / len(lengths)


@dataclass(frozen=True)
class GramMatrices(_OfMaps):
    """Gram matrices per position on a network (Gatys et al. 2015, Eq. 1).

    The distance is the mean over the layers of ``||G - H|| / (||G|| + ||H||)``, from 0 to 1, so
    that each layer counts alike (as :func:`fmi.evidence.panels.distance`, without its mean colour).
    The layers are by default the first activations at the first four sizes of the feature maps.
    """

    @property
    def name(self) -> str:
        """What the distance is called in a table."""
        return f"Gram matrices on {self.network.name}"

    def _usual(self) -> Sequence[str]:
        return self.network.landmarks(first=True)[:4]

    def _length(self, channels: int) -> int:
        return channels * (channels + 1) // 2

    def _statistics(self, code: NDArray) -> np.ndarray:
        rows, columns = np.triu_indices(code.shape[1])
        # Half of the symmetric matrix, with its norm.
        weight = np.where(rows == columns, 1, np.sqrt(2)) / code[0, 0].size
        return codes.gram(code).asnumpy()[:, rows, columns] * weight


@dataclass(frozen=True)
class MapMeans(_OfMaps):
    """The texture term of DISTS with equal weights.

    The similarity of two pictures at a feature map with means m and n over its positions is
    ``(2 m n + c) / (m^2 + n^2 + c)`` (Ding et al. 2020, section III), and the distance is 1 minus
    the mean over all feature maps of all layers. What is learnt in DISTS is not used: its
    weights, and the network. Neither are its pooling and its term for the picture itself. The
    layers are by default the last activations of each size of the feature maps.

    Attributes
    ----------
    constant
        The c, as in DISTS: two feature maps that are both nearly 0 are similar.
    """

    constant: float = 1e-6

    @property
    def name(self) -> str:
        """What the distance is called in a table."""
        return f"texture term of DISTS, equal weights, on {self.network.name}"

    def _usual(self) -> Sequence[str]:
        return self.network.landmarks()

    def _between(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        p, q = rows.astype(np.float64), columns.astype(np.float64)
        found = np.empty((len(p), len(q)))
        for index, one in enumerate(p):
            sizes = np.square(one) + np.square(q) + self.constant
            found[index] = (np.square(one - q) / sizes).mean(axis=1)  # 1 - (2 m n + c) / sizes
        return found


@dataclass(frozen=True)
class MapSums(_OfMaps):
    """Sums of the feature maps, the style of Eq. 5, per position.

    The distance is that of :class:`GramMatrices`, so that both statistics are compared in the same
    way. The layers are by default the first activations of each size of the feature maps, which are
    relu1_1 ... relu5_1 of VGG-19 (section 3.3).
    """

    @property
    def name(self) -> str:
        """What the distance is called in a table."""
        return "sums of feature maps"

    def _usual(self) -> Sequence[str]:
        return self.network.landmarks(first=True)[:5]


@dataclass(frozen=True)
class MapMoments(MapSums):
    """Means and standard deviations of the feature maps (Li et al. 2017, section 3.2.2)."""

    @property
    def name(self) -> str:
        """What the distance is called in a table."""
        return "means and standard deviations of feature maps"

    def _length(self, channels: int) -> int:
        return 2 * channels

    def _statistics(self, code: NDArray) -> np.ndarray:
        means = super()._statistics(code)
        squares = codes.energies(code * code).asnumpy() / code[0, 0].size
        return np.concatenate([means, np.sqrt(np.maximum(squares - means**2, 0))], axis=1)


@dataclass(frozen=True)
class Colours(Descriptor):
    """The colours of a picture alone: means and standard deviations of L*, a* and b*.

    Attributes
    ----------
    long_edge
        See :class:`Descriptor`.
    """

    long_edge: Optional[int] = None

    @property
    def name(self) -> str:
        """What the distance is called in a table."""
        return "colour alone"

    def _of(self, pictures: Sequence[np.ndarray]) -> np.ndarray:
        found = []
        for picture in pictures:
            values = spectra.lab(picture).reshape(-1, 3).astype(np.float64)
            found.append(np.concatenate([values.mean(axis=0), values.std(axis=0)]))
        return np.array(found, np.float32)

    def _between(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        return _euclidean(rows, columns)


@dataclass(frozen=True)
class OrientedBands(Descriptor):
    """Statistics of oriented bands of lightness, and of colour, without any network.

    A subset of those of Portilla & Simoncelli 2000 (section 2): mean, standard deviation and
    skewness of L*; the logarithms of mean and standard deviation of the local amplitude in each
    band of :func:`fmi.evidence.spectra.transfers`, whose squares add up to its energy; the
    correlations between the amplitudes of all pairs of bands; and, with colour, means and standard
    deviations of a* and b* and the three correlations of L*, a* and b*.

    The distance is Euclidean. Each of these groups is divided by the square root of its length, so
    that groups count alike; 20 units of CIELAB count as much as a factor e in amplitude or 1 in
    skewness or correlation.

    Attributes
    ----------
    colour
        Whether to use a* and b*. If not, only L* is used.
    long_edge
        See :class:`Descriptor`. A pixel needs about 400 bytes of memory.
    """

    colour: bool = True
    long_edge: Optional[int] = None

    @property
    def name(self) -> str:
        """What the distance is called in a table."""
        return "oriented bands" + (" and colour" if self.colour else "")

    def _of(self, pictures: Sequence[np.ndarray]) -> np.ndarray:
        return np.stack([_statistics(picture, self.colour) for picture in pictures])

    def _between(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        return _euclidean(rows, columns)


_UNIT = 20.0  # of CIELAB
_LEAST = 0.5  # of L*, added to amplitudes: about what rounding to 8 bits leaves in flat regions


def _statistics(picture: np.ndarray, colour: bool) -> np.ndarray:
    """Return the vector of :class:`OrientedBands` for one picture (H, W, 3) uint8 RGB."""
    values = spectra.lab(picture)
    light = values[..., 0]
    centred = light - light.mean(dtype=np.float64)
    spread = light.std(dtype=np.float64)
    skewness = np.mean(centred**3) / (spread**3 + _LEAST**3)
    amplitudes = spectra.amplitudes(light).reshape(SCALES * ORIENTATIONS, -1)
    means, spreads, correlations = _moments(amplitudes)
    groups = [
        np.array([light.mean(dtype=np.float64) / _UNIT, spread / _UNIT, skewness]),
        np.log(means + _LEAST),
        np.log(spreads + _LEAST),
        correlations,
    ]
    if colour:
        means, spreads, correlations = _moments(values.reshape(-1, 3).T)
        groups += [np.concatenate([means[1:], spreads[1:]]) / _UNIT, correlations]
    return np.concatenate([group / np.sqrt(len(group)) for group in groups]).astype(np.float32)


def _moments(values: np.ndarray) -> Tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return means, standard deviations and pairwise correlations of the rows of an array.

    Correlations of what hardly varies tend to 0, since rounding alone would decide them.
    """
    means = values.mean(axis=1, dtype=np.float64)
    centred = values - means[:, None].astype(np.float32)
    covariance = (centred @ centred.T).astype(np.float64) / values.shape[1]
    variances = np.diag(covariance) + _LEAST**2
    rows, columns = np.triu_indices(len(values), 1)
    correlations = covariance[rows, columns] / np.sqrt(variances[rows] * variances[columns])
    return means, np.sqrt(np.diag(covariance)), correlations


def _relative(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Return ``||p - q|| / (||p|| + ||q||)``, 0 where both are 0."""
    sizes = np.linalg.norm(rows.astype(np.float64), axis=1)[:, None]
    sizes = sizes + np.linalg.norm(columns.astype(np.float64), axis=1)
    found = _euclidean(rows, columns)
    return np.divide(found, sizes, out=np.zeros_like(found), where=sizes > 0)


def _euclidean(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Return the Euclidean distances of vectors (n, D) from vectors (m, D)."""
    p, q = rows.astype(np.float64), columns.astype(np.float64)
    sizes = np.square(p).sum(1)[:, None] + np.square(q).sum(1)
    squares = sizes - 2 * (p @ q.T)
    # The subtraction has lost most digits for vectors that are almost equal.
    for i, j in np.argwhere(squares <= 1e-8 * sizes):
        squares[i, j] = np.square(p[i] - q[j]).sum()
    return np.sqrt(squares)
