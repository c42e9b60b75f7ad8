"""Inversions: the results of calls, with their records."""

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
    """A picture computed from a code, and the record of its computation.

    Attributes
    ----------
    array
        (H, W, 3) float32 RGB on the 0-255 scale, neither clipped nor denoised.
    loss
        Loss before each step.
    change
        Relative change of the picture in the last step.
    stopped
        ``"change"``, ``"steps"`` or ``"interrupted"``.
    record
        Everything that is needed to repeat the computation, as plain data.
    seconds
        Time from the start of the batch until this picture stopped.
    """

    array: np.ndarray
    loss: List[float]
    change: float
    stopped: str
    record: Dict[str, Any]
    seconds: float

    @property
    def settings(self) -> Dict[str, Any]:
        """The record (former name)."""
        return self.record

    @property
    def steps(self) -> int:
        """The number of steps."""
        return len(self.loss)

    @property
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
        outcome = {"steps": self.steps, "stopped": self.stopped, "change": self.change}
        return {**self.record, "outcome": {**outcome, "final_loss": final}}

    def save(self, path: Union[str, Path], undenoised: bool = False, **extra: Any) -> None:
        """Write the picture as PNG, with its description in a text chunk and in a JSON file.

        Parameters
        ----------
        path
            Path of the PNG. The JSON file has the same name with the suffix ``.json``.
        undenoised
            Whether to write the picture before denoising too, to ``..._undenoised.png``.
        extra
            Additional entries of the JSON file.

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
        """Return the PNG that Jupyter shows."""
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
    """Return the versions of the software that a result depends on."""
    return {
        "fmi": fmi.__version__,
        "mxnet": mx.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }
