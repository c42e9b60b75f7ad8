"""The figures that the authors published: where each panel stands.

They are in output/ of github.com/xzqjack/FeatureMapInversion: feature_map_golden_gate.png (Fig. 3),
and Fig. 4 and 5 of arXiv 1608.04170.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Dict, Mapping, Tuple

import numpy as np

from fmi import pictures
from fmi.errors import InputError

__all__ = ["SHEETS", "Panels", "Sheet", "ours"]

Panels = Dict[str, np.ndarray]  # by the name of the panel's file in a results folder, without .png


@dataclass(frozen=True)
class Sheet:
    """A published figure.

    Attributes
    ----------
    figure
        Its number in the paper, for messages.
    size, panel
        Width and height of the figure and of each panel, in pixels.
    columns
        For each column, the names of its panels, with ``{}`` in place of the row, and its left.
    rows
        For each row, its name and its top.
    """

    figure: str
    size: Tuple[int, int]
    panel: Tuple[int, int]
    columns: Mapping[str, int]
    rows: Mapping[str, int]

    @property
    def places(self) -> Dict[str, Tuple[int, int]]:
        """Left and top of each panel by its name, row by row."""
        return {
            name.format(row): (left, top)
            for row, top in self.rows.items()
            for name, left in self.columns.items()
        }

    def read(self, path: Path) -> Panels:
        """Return the panels of the published figure, each (H, W, 3) uint8 RGB.

        Raises
        ------
        InputError
            If the file is not this figure.
        """
        pixels = pictures.read(path).pixels
        if pixels.shape[:2] != self.size[::-1]:
            width, height = self.size
            raise InputError(
                f"{path} is not the published {self.figure}, which has {width} x {height} pixels"
            )
        width, height = self.panel
        return {
            name: pixels[top : top + height, left : left + width]
            for name, (left, top) in self.places.items()
        }


SHEETS = {
    "fig3": Sheet(
        "Fig. 3",
        (1440, 1080),
        (250, 187),
        {
            "{}_filter0": 69,
            "{}_filter1": 344,
            "{}_filter2": 620,
            "{}_filter3": 896,
            "{}_filter4": 1172,
        },
        {"relu1_2": 48, "relu2_2": 256, "relu3_2": 463, "relu4_2": 671, "relu5_2": 878},
    ),
    "fig4": Sheet(
        "Fig. 4",
        (2052, 720),
        (396, 296),
        {
            "relu1_1_draw{}": 12,
            "relu2_1_draw{}": 420,
            "relu3_1_draw{}": 828,
            "relu4_1_draw{}": 1237,
            "relu5_1_draw{}": 1645,
        },
        {"0": 72, "1": 382},
    ),
    "fig5": Sheet(
        "Fig. 5",
        (1872, 1152),
        (351, 263),
        {
            "golden_gate/{}_gatys": 423,
            "golden_gate/{}_purposeful": 785,
            "tubingen/{}_gatys": 1148,
            "tubingen/{}_purposeful": 1510,
        },
        {"frida_kahlo": 51, "seated_nude": 326, "starry_night": 600, "the_scream": 875},
    ),
}


def ours(folder: Path, sheet: Sheet) -> Panels:
    """Return our panels of a figure, those that are in a results folder.

    Raises
    ------
    InputError
        If there is none.
    """
    files = {name: folder / f"{name}.png" for name in sheet.places}
    found = {name: pictures.read(file).pixels for name, file in files.items() if file.is_file()}
    if not found:
        raise InputError(f"no panels such as {next(iter(sheet.places))}.png in {folder}")
    return found
