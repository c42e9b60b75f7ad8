"""Sheets of panels, drawn with matplotlib as PNG and PDF.

They are drawn with matplotlib's own defaults, whatever is in the user's ``matplotlibrc``.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Sequence, Tuple, TypeVar

import numpy as np
from PIL import Image

from fmi import files
from fmi.errors import SetupError

__all__ = [
    "DPI",
    "MOST_PIXELS",
    "PANEL_INCHES",
    "Block",
    "Scale",
    "defaults",
    "in_rows",
    "save",
    "sheet",
    "tiles",
    "warped",
]

T = TypeVar("T")

PANEL_INCHES = 2.5  # width of a panel on the sheet
DPI = 200
MOST_PIXELS = 65000  # largest width or height of a sheet; matplotlib refuses 2**16
GAP, TITLE, CAPTION, NOTE, ROW_TITLE = 0.08, 0.35, 0.4, 0.25, 0.45  # in inches
ROW = 1.0  # least height of a row with a title
BAR = 0.35  # height of a colour bar with its numbers
ELLIPSIS = "\N{HORIZONTAL ELLIPSIS}"


def _import_matplotlib() -> Any:
    """Import matplotlib without ``MPLBACKEND``, which may be wrong and is not needed here."""
    if "matplotlib" in sys.modules:
        import matplotlib

        return matplotlib
    backend = os.environ.pop("MPLBACKEND", None)
    try:
        import matplotlib
    except Exception as error:
        raise SetupError(
            f"matplotlib cannot be imported ({type(error).__name__}: {error}): check the file"
            " matplotlibrc, or pip install --force-reinstall matplotlib"
        ) from error
    finally:
        if backend is not None:
            os.environ["MPLBACKEND"] = backend
    if backend:
        with contextlib.suppress(ValueError):
            matplotlib.rcParams["backend"] = backend  # for those who import matplotlib later
    return matplotlib


matplotlib = _import_matplotlib()
from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402


@contextlib.contextmanager
def defaults() -> Iterator[None]:
    """Use matplotlib's own defaults inside the ``with`` statement."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        yield


@dataclass(frozen=True)
class Scale:
    """A scale bar.

    Attributes
    ----------
    pixels
        Its length in pixels of the panel, cut off at the panel's width.
    text
        What it stands for, such as "receptive field".
    """

    pixels: float
    text: str


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
    titles
        Rows of titles above each panel; or empty.
    maxima
        Rows of the values that white stands for in panels of :func:`tiles`; or empty. They are
        shown as a colour bar below each panel.
    scale
        A bar at the lower left of the first panel, and what it stands for.

    Titles and captions are plain text: formulas are not interpreted, what cannot be shown is
    escaped, and what does not fit is made smaller or cut off.
    """

    panels: Sequence[Sequence[Optional[np.ndarray]]]
    rows: Sequence[str] = ()
    columns: Sequence[str] = ()
    caption: str = ""
    titles: Sequence[Sequence[str]] = ()
    maxima: Sequence[Sequence[float]] = ()
    scale: Optional[Scale] = None


def sheet(blocks: Sequence[Block], note: str = "") -> Figure:
    """Draw a figure with the blocks below each other.

    All panels have boxes of the same width, which are as high as the highest panel of the row
    needs; a panel of another shape is centred in its box.

    Parameters
    ----------
    blocks
        One or more blocks.
    note
        Small text in the bottom right corner.
    """
    widest = max(len(row) for block in blocks for row in block.panels)
    heights = [_heights(block) for block in blocks]
    left = ROW_TITLE if any(block.rows for block in blocks) else GAP
    width = left + widest * (PANEL_INCHES + GAP)
    tall = [
        (TITLE if block.columns else GAP)
        + sum(h)
        + GAP * len(h)
        + TITLE * len(block.titles)
        + BAR * len(block.maxima)
        + (CAPTION if block.caption else 0)
        for block, h in zip(blocks, heights)
    ]
    height = sum(tall) + (NOTE if note else 0)
    dpi = min(DPI, int(MOST_PIXELS / max(width, height)))
    with defaults():
        figure = Figure(figsize=(width, height), dpi=dpi, facecolor="white")
        FigureCanvasAgg(figure)
        top = height
        for block, rows in zip(blocks, heights):
            top -= TITLE if block.columns else GAP
            for index, (row, tall_row) in enumerate(zip(block.panels, rows)):
                top -= TITLE if block.titles else 0
                for place, panel in enumerate(row):
                    x = left + place * (PANEL_INCHES + GAP)
                    axes = _box(figure, x, top, tall_row, panel)
                    if index == 0 and block.columns:
                        room = PANEL_INCHES * (2 if _alone(block.columns, place) else 1)
                        title, how = _fitting(figure, block.columns[place], 14, room)
                        axes.set_title(title, pad=4, **how)
                    if block.titles:
                        title, how = _fitting(figure, block.titles[index][place], 12, PANEL_INCHES)
                        axes.set_title(title, pad=4, **how)
                    if block.scale and index == place == 0 and panel is not None:
                        _draw_scale(figure, axes, block.scale, panel.shape[1])
                    if place == 0 and block.rows:
                        title, how = _fitting(figure, block.rows[index], 14, tall_row + GAP)
                        axes.set_ylabel(title, labelpad=4, **how)
                top -= tall_row + GAP
                for place, maximum in enumerate(block.maxima[index] if block.maxima else ()):
                    _draw_colours(figure, left + place * (PANEL_INCHES + GAP), top, maximum)
                top -= BAR if block.maxima else 0
            if block.caption:
                _text(figure, 0.5, (top - 0.1) / height, block.caption, 13, ("center", "top"))
                top -= CAPTION
        if note:
            _text(figure, 1 - GAP / width, 0.06 / height, note, 9, ("right", "bottom"))
    return figure


def _alone(titles: Sequence[str], place: int) -> bool:
    """Return whether a title has empty ones on both sides, and thus half their room."""
    return 0 < place < len(titles) - 1 and not titles[place - 1] and not titles[place + 1]


def _draw_colours(figure: Figure, x: float, top: float, maximum: float) -> None:
    """Draw the colours of :func:`tiles` from 0 to a maximum below a panel at `x` inches."""
    width, height = figure.get_size_inches()
    box = (x / width, (top - 0.1) / height, PANEL_INCHES / width, 0.1 / height)
    axes = figure.add_axes(box)
    values = np.linspace(0, maximum, 256)[None]
    axes.imshow(_false_colours(values, maximum), aspect="auto", extent=(0, 1, 0, 1))
    axes.set_yticks([])
    axes.set_xticks([0, 1], ["0", f"{maximum:.3g}"], fontsize=9)
    first, last = axes.get_xticklabels()
    first.set_horizontalalignment("left")
    last.set_horizontalalignment("right")


def _draw_scale(figure: Figure, axes: Any, scale: Scale, width: int) -> None:
    """Draw a scale bar into the axes of a panel that is `width` pixels wide."""
    share = min(scale.pixels / width, 1 - 0.06)
    text, how = _fitting(figure, scale.text, 8, 0.94 * PANEL_INCHES)
    for colour, line in (("black", 4.5), ("white", 2.5)):
        axes.plot(
            [0.03, 0.03 + share],
            [0.04, 0.04],
            color=colour,
            linewidth=line,
            solid_capstyle="butt",
            transform=axes.transAxes,
        )
    plate = {"facecolor": "black", "alpha": 0.6, "pad": 1.5, "linewidth": 0}
    axes.text(0.03, 0.08, text, color="white", transform=axes.transAxes, bbox=plate, **how)


def _heights(block: Block) -> List[float]:
    """Return the height of each row in inches, for panels of equal width and titles of rows."""
    least = ROW if block.rows else 0.0
    found = [[_height(panel) for panel in row if panel is not None] for row in block.panels]
    return [max(least, *heights) if heights else PANEL_INCHES for heights in found]


def _height(panel: np.ndarray) -> float:
    return PANEL_INCHES * panel.shape[0] / panel.shape[1]


def _box(figure: Figure, x: float, top: float, tall: float, panel: Optional[np.ndarray]) -> Any:
    """Draw a panel into its box, and return the axes for the titles of the box.

    Parameters
    ----------
    figure
        The sheet.
    x, top, tall
        Left and upper edge and height of the box in inches from the lower left corner.
    panel
        The picture, if any.
    """
    width, height = figure.get_size_inches()

    def add(x: float, top: float, wide: float, tall: float) -> Any:
        axes = figure.add_axes((x / width, (top - tall) / height, wide / width, tall / height))
        axes.set_xticks([])
        axes.set_yticks([])
        return axes

    box = add(x, top, PANEL_INCHES, tall)
    if panel is not None and _height(panel) == tall:
        box.imshow(panel, interpolation="lanczos", aspect="auto")
        return box
    box.set_frame_on(False)
    if panel is not None:
        own = _height(panel)
        axes = add(x, top - (tall - own) / 2, PANEL_INCHES, own)
        axes.imshow(panel, interpolation="lanczos", aspect="auto")
    return box


def _text(
    figure: Figure, x: float, y: float, text: str, size: float, anchor: Tuple[str, str]
) -> None:
    """Draw a text across the sheet; `x` and `y` are shares of its width and height."""
    shown, how = _fitting(figure, text, size, figure.get_size_inches()[0] - 2 * GAP)
    horizontal, vertical = anchor
    figure.text(x, y, shown, ha=horizontal, va=vertical, **how)


def _fitting(figure: Figure, text: str, size: float, room: float) -> Tuple[str, Dict[str, Any]]:
    """Return a text as it is shown, and keywords for it.

    What cannot be shown is escaped. If the text is longer than `room` inches, it is made smaller,
    at most by half, and then cut off.
    """
    text = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
    canvas: Any = figure.canvas
    measure = canvas.get_renderer().get_text_width_height_descent

    def fits(shown: str, size: float) -> bool:
        font = matplotlib.font_manager.FontProperties(size=size)
        return bool(measure(shown, font, ismath=False)[0] <= room * figure.dpi)

    smallest = size / 2
    while size > smallest and not fits(text, size):
        size -= 0.5
    if not fits(text, size):
        low, high = 0, len(text)  # so many characters fit and do not fit
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if fits(text[:middle] + ELLIPSIS, size) else (low, middle)
        text = text[:low] + ELLIPSIS
    return text, {"fontsize": size, "parse_math": False}


def tiles(maps: np.ndarray, side: int = 4) -> np.ndarray:
    """Arrange feature maps as tiles in false colours, from black for 0 to white for the maximum.

    Negative values are green.

    Parameters
    ----------
    maps
        (C, M, N).
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
    painted = _false_colours(mosaic, float(np.abs(maps).max()))
    painted[mosaic < 0] = painted[mosaic < 0][:, [1, 0, 1]]
    return np.kron(np.rint(painted * 255).astype(np.uint8), np.ones((side, side, 1), np.uint8))


def _false_colours(values: np.ndarray, maximum: float) -> np.ndarray:
    """Return the colours of values (H, W), (H, W, 3) from 0 to 1; NaN is grey."""
    colours = matplotlib.colormaps["magma"].with_extremes(bad="grey")
    return np.asarray(colours(np.sqrt(np.abs(values) / max(maximum, 1e-12)))[..., :3])


def warped(pixels: np.ndarray, size: Tuple[int, int]) -> np.ndarray:
    """Resize a style picture to the size of the content, as in the published Fig. 5."""
    image = Image.fromarray(pixels).resize((size[1], size[0]), Image.Resampling.LANCZOS)
    return np.asarray(image)


def in_rows(items: Sequence[T], columns: int) -> List[List[T]]:
    """Divide panels or titles into rows of at most so many."""
    return [list(items[n : n + columns]) for n in range(0, len(items), columns)]


def save(figure: Figure, stem: Path) -> Tuple[Path, Path]:
    """Write ``stem.png`` and ``stem.pdf`` without dates, so that equal figures give equal files."""
    png, pdf = (stem.with_name(f"{stem.name}.{form}") for form in ("png", "pdf"))
    undated = {"CreationDate": None, "Producer": None, "Creator": None}
    for path, metadata in ((png, {"Software": None}), (pdf, undated)):
        _write(figure, path, metadata)
    return png, pdf


@contextlib.contextmanager
def _quiet(library: str) -> Iterator[None]:
    """Let a library log nothing but warnings inside the ``with`` statement."""
    logger = logging.getLogger(library)
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)


def _write(figure: Figure, path: Path, metadata: Any) -> None:
    form = path.suffix[1:]

    def write(beside: Path) -> None:
        with defaults():
            matplotlib.rcParams["pdf.fonttype"] = 42  # text that can be searched and edited
            with _quiet("fontTools"):  # it tells of each letter that a PDF needs
                figure.savefig(beside, format=form, metadata=metadata)

    files.write_whole(path, write)
