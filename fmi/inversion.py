"""Inversions: the results of calls, with their records."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import io
import json
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, Optional, Protocol, Sequence, Tuple, Union

import numpy as np
from PIL import Image

import fmi
from fmi import files, notebook, pictures
from fmi.device.mxnet import mx
from fmi.errors import InputError, shown

__all__ = [
    "FINISHED",
    "Inversion",
    "Inversions",
    "Keep",
    "Keeper",
    "Place",
    "source_digest",
    "versions",
]

FINISHED = ("change", "steps")  # how a descent that has come to its end has stopped
# Sources whose changes may change pictures: everything that fmi.invert needs to compute them.
SOURCES = (
    "call.py",
    "codes.py",
    "descent.py",
    "device/mxnet.py",
    "inversion.py",
    "losses.py",
    "networks/*.py",
    "optimisers.py",
    "pictures.py",
    "regularisers.py",
    "request.py",
    "settings.py",
    "sources/formats.py",
    "whitening.py",
)


@dataclass(frozen=True)
class Place:
    """Which of the pictures of a call: a filter, a draw, or a direction.

    Attributes
    ----------
    filter
        The filter whose feature map is inverted.
    before
        The filters before it in a chain; ``None`` if there is no chain.
    draw
        Number of the draw, counted from 0.
    direction
        The direction in the space of channels.
    """

    filter: Optional[int] = None
    before: Optional[Tuple[int, ...]] = None
    draw: Optional[int] = None
    direction: Optional[Tuple[float, ...]] = None

    def describe(self) -> Dict[str, Any]:
        """Return the place as plain data, for the record of an inversion."""
        if self.draw is not None:
            return {"draw": self.draw}
        if self.direction is not None:
            return {"direction": list(self.direction)}
        if self.filter is None:
            return {}
        found: Dict[str, Any] = {"filter": self.filter, "chain": self.before is not None}
        return found if self.before is None else {**found, "filters_before": list(self.before)}

    def __str__(self) -> str:
        numbers = (self.filter, self.draw)
        return "".join(str(number) for number in numbers if number is not None)


@dataclass
class Inversion:
    """A picture computed from a code, and the record of its computation.

    Attributes
    ----------
    array
        (H, W, 3) float32 RGB on the 0-255 scale, neither clipped nor denoised.
    loss
        Loss before each step.
    change
        Relative change of the picture in the last step; ``None`` before the first one.
    stopped
        ``"change"``, ``"steps"``, ``"interrupted"`` or ``"diverged"``
        (see :class:`fmi.descent.Descent`).
    record
        Everything that is needed to repeat the computation, as plain data.
    seconds
        Time that it took; of a step of several pictures, each counts an equal share.
    explained
        The part of the target that the code F of the picture explains, ``1 - ||F - T||^2 /
        ||T||^2``; with several terms, ``1 - loss / loss of zeros``
        (see :meth:`fmi.losses.Loss.explained`). ``None`` if the descent has not come to its end.
    energy_share
        The share of the energy of F that lies in the wanted feature map; the mean over the layers
        if there are several. ``None`` if no feature map was isolated, or if activations of the
        layer may be negative, such as those of a convolution before its relu.
    """

    array: np.ndarray
    loss: List[float]
    change: Optional[float]
    stopped: str
    record: Dict[str, Any]
    seconds: float
    explained: Optional[float] = None
    energy_share: Optional[float] = None

    @property
    def settings(self) -> Dict[str, Any]:
        """The record (former name)."""
        return self.record

    @property
    def steps(self) -> int:
        """The number of steps."""
        return len(self.loss)

    @property
    def finished(self) -> bool:
        """Whether the descent has come to its end."""
        return self.stopped in FINISHED

    @functools.cached_property
    def undenoised(self) -> Image.Image:
        """The picture clipped to 8 bits."""
        return Image.fromarray(pictures.eight_bits(self.array))

    @functools.cached_property
    def image(self) -> Image.Image:
        """The picture clipped to 8 bits and denoised, as in the authors' figures."""
        pixels = pictures.eight_bits(self.array)
        return Image.fromarray(pictures.denoised(pixels, self.record["settings"]["denoise"]))

    def describe(self) -> Dict[str, Any]:
        """Return the record and the outcome of the descent as plain data."""
        final = self.loss[-1] if self.loss else None
        outcome = {
            "steps": self.steps,
            "stopped": self.stopped,
            "change": self.change,
            "final_loss": final,
            "explained": self.explained,
            "energy_share": self.energy_share,
        }
        return {**self.record, "outcome": outcome}

    def save(self, path: Union[str, Path], undenoised: bool = False, **extra: Any) -> None:
        """Write the picture as PNG, JPEG or WebP, and its description as JSON beside it.

        A PNG has the pixels as they are, and the description in a text chunk too. JPEG (quality 95,
        full colour resolution) and WebP (quality 95) are smaller, but alter the pixels a little.

        Parameters
        ----------
        path
            Path of the picture, which ends in ``.png``, ``.jpg``, ``.jpeg`` or ``.webp``. The JSON
            file has the same name with the suffix ``.json``.
        undenoised
            Whether to write the picture before denoising too, to ``..._undenoised`` in the same
            format.
        extra
            Additional entries of the JSON file.

        Raises
        ------
        InputError
            If `path` has another suffix or cannot be written, if the format is too small for the
            picture, or if JSON cannot represent `extra`.
        """
        path = _path(path)
        record = {**self.describe(), "loss": self.loss, **extra}
        files.json_text(record)  # refuse it before anything is written
        text = json.dumps(self.describe(), sort_keys=True)
        if undenoised:
            raw = path.with_name(f"{path.stem}_undenoised{path.suffix}")
            pictures.save(raw, np.asarray(self.undenoised), {"fmi": text})
        pictures.save(path, np.asarray(self.image), {"fmi": text})
        files.save_json(path.with_suffix(".json"), record)

    def _repr_png_(self) -> bytes:
        """Return the PNG that Jupyter shows."""
        buffer = io.BytesIO()
        self.image.save(buffer, format="PNG")
        return buffer.getvalue()

    @property
    def title(self) -> str:
        """What it shows, such as ``relu3_2:17``."""
        record = self.record
        layers = ",".join(record["layers"])
        if "filter" in record:
            return f"{layers}:{record['filter']}"
        draw = f" {record['draw']}" if "draw" in record else ""
        return f"{record['function']}{draw}, {layers}"

    def _repr_html_(self) -> str:
        """Return what Jupyter shows: the picture, the loss curve and the main settings."""
        record, settings = self.record, self.record["settings"]
        names = [one["name"] for one in record["pictures"].values()]
        facts = {
            "picture": ", ".join(names),
            "network": record["network"]["name"],
            "preset": settings["preset"],
            "steps": f"{self.steps}, stopped by {self.stopped}",
            "explained": "" if self.explained is None else f"{self.explained:.1%}",
            "energy share": "" if self.energy_share is None else f"{self.energy_share:.1%}",
            "seconds": f"{self.seconds:.1f}",
        }
        shown = {name: value for name, value in facts.items() if value}
        return notebook.card(self._repr_png_(), self.title, self.loss, shown)

    def __repr__(self) -> str:
        height, width = self.array.shape[:2]
        return (
            f"Inversion({self.record['function']}, {width} x {height}, {self.steps} steps,"
            f" stopped by {self.stopped}, {self.seconds:.1f} s)"
        )


class Inversions(List[Inversion]):
    """A list of inversions, which Jupyter shows as a contact sheet."""

    def _repr_html_(self) -> str:
        return notebook.contact([(one._repr_png_(), one.title) for one in self])


def _path(path: Union[str, Path]) -> Path:
    try:
        return Path(path)
    except TypeError:
        raise InputError(
            f"path={shown(path)} must be the path of a picture, such as result.png"
        ) from None


Keep = Callable[[int, Inversion], None]


class Keeper(Protocol):
    """What a call expects of a store of results, such as :class:`fmi.runs.store.Store`."""

    @property
    def snapshots(self) -> Path:
        """The folder for snapshots of descents that have not ended."""

    def obtain(
        self,
        records: Sequence[Mapping[str, Any]],
        compute: Callable[[Sequence[int], Keep], List[Inversion]],
    ) -> List[Inversion]:
        """Return the inversions with these records: stored ones, or new ones from `compute`.

        Parameters
        ----------
        records
            One record for each inversion, without its outcome.
        compute
            Function that computes the inversions with some indices of `records`. It passes each
            one, with its index, to its second argument as soon as it has finished.

        Returns
        -------
        list of Inversion
            In the order of `records`; after Ctrl-C, inversions that were not started are missing.
        """


@functools.lru_cache(maxsize=None)
def versions() -> Dict[str, str]:
    """Return the versions of the software that a result depends on.

    ``fmi_source`` is :func:`source_digest`.
    """
    packages = {
        name: importlib.metadata.version(name)
        for name in ("numpy", "scikit-image", "scipy", "pillow")
    }
    return {
        **packages,
        "fmi": fmi.__version__,
        "fmi_source": source_digest(Path(fmi.__file__).parent),
        "mxnet": mx.__version__,
        "python": platform.python_version(),
    }


def source_digest(folder: Path) -> str:
    """Return a sha256 of the source files that compute pictures, :data:`SOURCES`.

    Parameters
    ----------
    folder
        Folder of the package.
    """
    made = hashlib.sha256()
    for file in sorted(path for pattern in SOURCES for path in folder.glob(pattern)):
        made.update(f"{file.relative_to(folder)}\0{files.file_digest(file, 'sha256')}\n".encode())
    return made.hexdigest()
