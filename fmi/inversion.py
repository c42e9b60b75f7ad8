"""Inversions: the result of a call, its record, and saving."""

from __future__ import annotations

import functools
import io
import json
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Union

import numpy as np
from PIL import Image

import fmi
from fmi import files, pictures
from fmi.device.mxnet import mx
from fmi.errors import InputError

__all__ = ["Inversion", "versions"]


@dataclass
class Inversion:
    """A picture made from a code, and how it came about.

    Attributes
    ----------
    array
        (H, W, 3) float32 RGB on the 0-255 scale, neither clipped nor denoised.
    loss
        One value a step.
    change
        Relative change of the picture in its last step.
    stopped
        ``"change"``, ``"steps"`` or ``"interrupted"``.
    record
        All that is needed to repeat it, as plain data.
    seconds
        From the start of its batch until it stopped.
    """

    array: np.ndarray
    loss: List[float]
    change: float
    stopped: str
    record: Dict[str, Any]
    seconds: float

    @property
    def settings(self) -> Dict[str, Any]:
        """The record, under its earlier name."""
        return self.record

    @property
    def steps(self) -> int:
        """How many steps were made."""
        return len(self.loss)

    @property
    def undenoised(self) -> Image.Image:
        """The picture clipped to 8 bits."""
        return Image.fromarray(pictures.eight_bits(self.array))

    @functools.cached_property
    def image(self) -> Image.Image:
        """The picture clipped to 8 bits and denoised, as the authors' figures show it."""
        pixels = pictures.eight_bits(self.array)
        return Image.fromarray(pictures.denoised(pixels, self.record["settings"]["denoise"]))

    def describe(self) -> Dict[str, Any]:
        """The record and how the descent ended, as plain data."""
        final = self.loss[-1] if self.loss else None
        outcome = {"steps": self.steps, "stopped": self.stopped, "change": self.change}
        return {**self.record, "outcome": {**outcome, "final_loss": final}}

    def save(self, path: Union[str, Path], undenoised: bool = False, **extra: Any) -> None:
        """Write the picture as PNG, its description in a text chunk and in a JSON beside it.

        Parameters
        ----------
        path
            Name of the PNG. The JSON gets the same name, ending in ``.json``.
        undenoised
            Write the picture before denoising too, its name ending in ``_undenoised.png``.
        extra
            Further entries of the JSON.

        Raises
        ------
        InputError
            If `path` does not end in ``.png`` or cannot be written.
        """
        path = Path(path)
        if path.suffix.lower() != ".png":
            raise InputError(
                f"{path}: inversions are saved as .png; choose a name that ends in .png"
            )
        text = json.dumps(self.describe(), sort_keys=True)
        if undenoised:
            raw = path.with_name(f"{path.stem}_undenoised.png")
            pictures.save_png(raw, np.asarray(self.undenoised), {"fmi": text})
        pictures.save_png(path, np.asarray(self.image), {"fmi": text})
        record = {**self.describe(), "loss": self.loss, **extra}
        files.save_json(path.with_suffix(".json"), record)

    def _repr_png_(self) -> bytes:
        """What Jupyter shows."""
        buffer = io.BytesIO()
        self.image.save(buffer, format="PNG")
        return buffer.getvalue()

    def __repr__(self) -> str:
        height, width = self.array.shape[:2]
        return (
            f"Inversion({self.record['function']}, {width} x {height}, {self.steps} steps,"
            f" stopped by {self.stopped}, {self.seconds:.1f} s)"
        )


def versions() -> Dict[str, str]:
    """The versions that a result depends on."""
    return {
        "fmi": fmi.__version__,
        "mxnet": mx.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }
