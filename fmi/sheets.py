"""Sheets of panels, drawn with matplotlib as PNG and PDF."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import List, Optional, Sequence, Tuple

import numpy as np
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from fmi import files

__all__ = ["DPI", "PANEL_INCHES", "Block", "save", "sheet", "tiles", "warped"]

PANEL_INCHES = 2.5  # width of a panel on the sheet
DPI = 200


@dataclass(frozen=True)
class Block:
    """Rows of panels under common column titles.

    Attributes
    ----------
    panels
        Rows of (H, W, 3) uint8 pictures; ``None`` leaves a panel empty.
    rows, columns
        Titles of rows and columns, or empty.
    caption
        Text below the block.
    """

    panels: Sequence[Sequence[Optional[np.ndarray]]]
    rows: Sequence[str] = ()
    columns: Sequence[str] = ()
    caption: str = ""


def sheet(blocks: Sequence[Block], note: str = "") -> Figure:
    """Draw a figure with the blocks below each other.

    Parameters
    ----------
    blocks
        One or more blocks.
    note
        Small text in the bottom right corner.
    """
    widest = max(len(row) for block in blocks for row in block.panels)
    heights = [_heights(block) for block in blocks]
    gap, title, caption = 0.08, 0.35, 0.4
    left = 0.45 if any(block.rows for block in blocks) else gap
    width = left + widest * (PANEL_INCHES + gap)
    tall = [
        (title if block.columns else gap)
        + sum(h)
        + gap * len(h)
        + (caption if block.caption else 0)
        for block, h in zip(blocks, heights)
    ]
    height = sum(tall) + (0.25 if note else 0)
    figure = Figure(figsize=(width, height), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    top = height
    for block, rows in zip(blocks, heights):
        top -= title if block.columns else gap
        for index, (row, tall_row) in enumerate(zip(block.panels, rows)):
            for place, panel in enumerate(row):
                if panel is None:
                    continue
                x = left + place * (PANEL_INCHES + gap)
                box = (
                    x / width,
                    (top - tall_row) / height,
                    PANEL_INCHES / width,
                    tall_row / height,
                )
                axes = figure.add_axes(box)
                _draw(axes, panel)
                if index == 0 and block.columns:
                    axes.set_title(block.columns[place], fontsize=14, pad=4)
                if place == 0 and block.rows:
                    axes.set_ylabel(block.rows[index], fontsize=14, labelpad=4)
            top -= tall_row + gap
        if block.caption:
            figure.text(
                0.5, (top - 0.1) / height, block.caption, ha="center", va="top", fontsize=13
            )
            top -= caption
    if note:
        figure.text(1 - gap / width, 0.06 / height, note, ha="right", va="bottom", fontsize=9)
    return figure


def _heights(block: Block) -> List[float]:
    """Return the height of each row in inches, for panels of equal width."""
    rows = []
    for row in block.panels:
        shapes = [panel.shape for panel in row if panel is not None]
        rows.append(max(PANEL_INCHES * shape[0] / shape[1] for shape in shapes))
    return rows


def _draw(axes, panel: np.ndarray) -> None:  # type: ignore[no-untyped-def]
    axes.imshow(panel, interpolation="lanczos", aspect="auto")
    axes.set_xticks([])
    axes.set_yticks([])


def tiles(maps: np.ndarray, side: int = 4) -> np.ndarray:
    """Arrange feature maps as tiles in false colours, from black for 0 to white for the maximum.

    Parameters
    ----------
    maps
        (C, M, N) without negative values.
    side
        Side length of each position in pixels.

    Returns
    -------
    numpy.ndarray
        (H, W, 3) uint8.
    """
    count, height, width = maps.shape
    columns = int(np.ceil(np.sqrt(count)))
    rows = -(-count // columns)
    mosaic = np.full((rows * (height + 1) - 1, columns * (width + 1) - 1), np.nan)
    for index, tile in enumerate(maps):
        top, left = (index // columns) * (height + 1), (index % columns) * (width + 1)
        mosaic[top : top + height, left : left + width] = tile
    colours = colormaps["magma"].with_extremes(bad="grey")
    painted = colours(np.sqrt(mosaic / max(float(maps.max()), 1e-12)))[..., :3]
    return np.kron(np.rint(painted * 255).astype(np.uint8), np.ones((side, side, 1), np.uint8))


def warped(pixels: np.ndarray, size: Tuple[int, int]) -> np.ndarray:
    """Resize a style picture to the size of the content, as in the published Fig. 5."""
    image = Image.fromarray(pixels).resize((size[1], size[0]), Image.Resampling.LANCZOS)
    return np.asarray(image)


def save(figure: Figure, stem: Path) -> Tuple[Path, Path]:
    """Write ``stem.png`` and ``stem.pdf`` without dates, so that equal figures give equal files."""
    png, pdf = stem.with_suffix(".png"), stem.with_suffix(".pdf")
    files.write_whole(
        png, lambda beside: figure.savefig(beside, format="png", metadata={"Software": None})
    )
    undated = {"CreationDate": None, "Producer": None, "Creator": None}
    files.write_whole(pdf, lambda beside: figure.savefig(beside, format="pdf", metadata=undated))
    return png, pdf
