"""Plots of the claims: one figure a claim, as PNG and SVG.

Each quantity has a panel: by layer, or a line for each subject where the values are of no single
layer. Subjects differ in colour (Okabe and Ito 2008, "Color Universal Design"), in marker and in
line style, so that the plots can be read in grey and with any colour vision.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Sequence, Tuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from experiments.claims.table import (
    ALL,
    CONTROLS,
    FILTERS,
    Claim,
    Group,
    Report,
    Row,
    groups,
    numeral,
    subjects,
)
from fmi import files, sheets

__all__ = [
    "COLOURS",
    "DPI",
    "LINES",
    "MARKERS",
    "Look",
    "alternative",
    "drawable",
    "figure",
    "looks",
    "save",
]

DPI = 150
COLUMNS = 2
WIDTH = 8.0  # inches; fonts are made for 800 pixels on the screen
HEADER, EDGE, ABOVE = 0.38, 0.1, 0.18  # inches: the heading, the left edge, and above the axes
ENTRY = 0.21  # inches, height of an entry of the legend
TITLE, LABEL = 54, 24  # characters of a line of a panel's title, and of the name of a subject
LARGEST = 1e30  # what is larger is not drawn; matplotlib's axes end somewhere above
GREY = "#666666"
INK = "#222222"

# Okabe and Ito's colours without their yellow, which is too light for thin lines on white.
BLACK = "#000000"
COLOURS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
MARKERS = ("s", "^", "D", "v", "P", "X", "<", "p", ">", "8")
LINES: Tuple[Any, ...] = (
    (0, (5, 1.5)),
    (0, (1, 1.2)),
    (0, (6, 1.5, 1, 1.5)),
    (0, (3, 1.2, 1, 1.2, 1, 1.2)),
    (0, (2.5, 2.5)),
    (0, (9, 2)),
    (0, (7, 1, 1, 1, 1, 1, 1, 1)),
)
UNDATED: Dict[str, Dict[str, Optional[str]]] = {"png": {"Software": None}, "svg": {"Date": None}}
CHANCE: Dict[str, Any] = {"color": GREY, "linewidth": 1.0, "linestyle": (0, (4, 3)), "zorder": 1}

STYLE: Dict[str, Any] = {
    "axes.axisbelow": True,
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.8,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.formatter.useoffset": False,
    "axes.unicode_minus": False,
    "figure.facecolor": "white",
    "font.size": 9,
    "grid.color": "#E4E4E4",
    "grid.linewidth": 0.7,
    "legend.frameon": False,
    "savefig.facecolor": "white",
    "svg.fonttype": "none",
    "svg.hashsalt": "fmi",
    "text.parse_math": False,
    "xtick.color": GREY,
    "xtick.labelcolor": INK,
    "ytick.color": GREY,
    "ytick.labelcolor": INK,
}


@dataclass(frozen=True)
class Look:
    """How a subject is drawn, in terms of matplotlib."""

    colour: str
    marker: str
    line: Any
    width: float = 1.2
    size: float = 6.0
    order: int = 3


STRONGEST = Look(BLACK, "o", "-", 2.4, 7.0, 5)


def looks(rows: Sequence[Row]) -> Dict[str, Look]:
    """Return how each subject of a claim is drawn.

    :data:`~experiments.claims.table.FILTERS`, or else the first subject, is strongest.
    :data:`~experiments.claims.table.CONTROLS` look the same in all figures.
    """
    names = subjects(rows)
    if not names:
        return {}
    main = names[0]
    places = {name: place for place, name in enumerate(CONTROLS) if name in names}
    count = len(COLOURS)
    unused = [place for place in reversed(range(count)) if place not in places.values()]
    others = (name for name in names if name not in (*CONTROLS, main))
    places.update(zip(others, itertools.chain(unused, itertools.count(count))))
    found = {
        name: Look(COLOURS[place % count], MARKERS[place % len(MARKERS)], LINES[place % len(LINES)])
        for name, place in places.items()
    }
    return {name: STRONGEST if name == main else found[name] for name in names}


@contextlib.contextmanager
def _style() -> Iterator[None]:
    import matplotlib

    with sheets.defaults(), matplotlib.rc_context(STYLE):
        yield


def drawable(claim: Claim) -> bool:
    """Return whether a claim has a value that can be drawn."""
    return any(_finite(row.estimate.value) for row in claim.rows)


def _finite(number: Optional[float]) -> bool:
    return number is not None and math.isfinite(number) and abs(number) <= LARGEST


def figure(report: Report, claim: Claim) -> Figure:
    """Draw a claim of a report: a panel for each quantity, and one legend.

    Values that could not be measured are left out. A panel that lacks all says so.
    """
    found, look = groups(claim, report.layers), looks(claim.rows)
    named = subjects(row for group in found if not group.overall for row in group.rows)
    beside = bool(named) and len(found) % COLUMNS == 1  # the legend takes the place of a panel
    per_line = 3 if max(map(len, named), default=0) <= LABEL + 2 else 2
    lines = len(named) if beside else -(-len(named) // per_line)
    rows = [
        _Line([_Panel(group) for group in found[first : first + COLUMNS]])
        for first in range(0, len(found), COLUMNS)
    ]
    if beside:
        rows[-1] = _Line(rows[-1].panels, ENTRY * (lines + 0.5))
    strip = 0.0 if beside else ENTRY * (lines + 0.5)
    height = HEADER + sum(row.height for row in rows) + strip
    with _style():
        drawn = Figure(figsize=(WIDTH, height), dpi=DPI)
        heading = f"{claim.number}. {claim.title} ({report.facts.network.name})"
        bold: Dict[str, Any] = {"fontsize": 11, "fontweight": "bold", "color": INK}
        drawn.text(EDGE / WIDTH, 1 - 0.08 / height, _plain(heading), va="top", **bold)
        top = height - HEADER
        for row in rows:
            for place, panel in enumerate(row.panels):
                left = EDGE + place * (WIDTH - EDGE) / COLUMNS
                _title(drawn, left, top - row.title, panel.group.quantity)
                x, wide = left + panel.left, (WIDTH - EDGE) / COLUMNS - panel.left - panel.right
                y = top - row.title - ABOVE - panel.axes
                axes = drawn.add_axes((x / WIDTH, y / height, wide / WIDTH, panel.axes / height))
                (_by_subject if panel.group.overall else _by_layer)(axes, panel.group, look)
            top -= row.height
        if beside:
            middle = (top + rows[-1].height / 2) / height
            _legend(drawn, named, look, 1, "center left", (0.5 + 0.2 / WIDTH, middle))
        elif named:
            _legend(drawn, named, look, per_line, "upper center", (0.5, strip / height))
    return drawn


@dataclass(frozen=True)
class _Panel:
    """The size of a panel in inches."""

    group: Group

    @property
    def title(self) -> float:
        """Height of the title."""
        return 0.165 * (_plain(self.group.quantity, TITLE).count("\n") + 1)

    @property
    def left(self) -> float:
        """Room for the labels at the left."""
        slanted = 0.06 * self.longest if _slanted(self.group) else 0.0
        return 1.75 if self.group.overall else max(0.52, slanted)

    @property
    def longest(self) -> int:
        """Number of characters of the longest name of a layer, as it is shown."""
        return min(max(len(layer) for layer in self.group.layers), LABEL)

    @property
    def right(self) -> float:
        """Room at the right, for the word "chance" beside its line."""
        return 0.3 if self.group.overall else 0.55

    @property
    def axes(self) -> float:
        """Height of the axes."""
        lines = max(_plain(name, LABEL).count("\n") + 1 for name in self.group.subjects)
        return len(self.group.subjects) * (0.14 * lines + 0.1) if self.group.overall else 1.75

    @property
    def below(self) -> float:
        """Room for the labels below."""
        return 0.3 + (0.055 * self.longest if _slanted(self.group) else 0.0)


@dataclass(frozen=True)
class _Line:
    """Panels beside each other, whose axes begin at the same height."""

    panels: Sequence[_Panel]
    least: float = 0.0

    @property
    def title(self) -> float:
        """Height of the highest title."""
        return max(panel.title for panel in self.panels)

    @property
    def height(self) -> float:
        """Height of all."""
        panels = max(panel.axes + panel.below for panel in self.panels)
        return max(self.title + ABOVE + panels + 0.12, self.least)


def _slanted(group: Group) -> bool:
    """Return whether the names of the layers are too long to stand side by side."""
    return not group.overall and sum(len(layer) + 1 for layer in group.layers) > 42


def _plain(value: str, width: int = 0) -> str:
    """Return a text as it is drawn, in lines of `width` characters if it is given."""
    shown = " ".join("".join(c if c.isprintable() else " " for c in value).split())
    return "\n".join(textwrap.wrap(shown, width)) if width else shown


def _shortened(name: str) -> str:
    """Return the name of a layer without its middle if it is long."""
    half = LABEL // 2 - 1
    return name if len(name) <= LABEL else f"{name[:half]}..{name[-half:]}"


def _title(drawn: Figure, left: float, bottom: float, quantity: str) -> None:
    width, height = drawn.get_size_inches()
    lines = _plain(quantity[:1].upper() + quantity[1:], TITLE)
    drawn.text(left / width, bottom / height, lines, va="bottom", fontsize=9.5, color=INK)


def _by_layer(axes: Any, group: Group, look: Dict[str, Look]) -> None:
    """Draw a line for each subject over the layers."""
    count = len(group.subjects)
    step = min(0.11, 0.5 / max(count, 1))
    _frame(axes, group, "y")
    for place, subject in enumerate(group.subjects):
        one = look[subject]
        rows = [group.row(subject, layer) for layer in group.layers]
        x = np.arange(len(rows)) + (place - (count - 1) / 2) * step
        y = [row.estimate.value if row else math.nan for row in rows]
        y = [number if _finite(number) else math.nan for number in y]
        for at, row in zip(x, rows):
            _interval(axes.vlines, at, row, one)
        axes.plot(
            x,
            y,
            color=one.colour,
            linestyle=one.line,
            linewidth=one.width,
            **_marker(one),
        )
    by_layer = [_chances(group, layer) for layer in group.layers]
    if by_layer.count(by_layer[0]) == len(by_layer):
        for number in by_layer[0]:
            axes.axhline(number, **CHANCE)
    else:
        for at, numbers in enumerate(by_layer):
            axes.hlines(numbers, at - 0.5, at + 0.5, **CHANCE)
    if by_layer[-1]:
        end = {"xy": (1, by_layer[-1][-1]), "xycoords": ("axes fraction", "data")}
        label = {"xytext": (3, 0), "textcoords": "offset points", "va": "center"}
        axes.annotate("chance", **end, **label, fontsize=8, color=GREY)
    axes.set_xlim(-0.5, len(group.layers) - 0.5)
    axes.set_xticks(range(len(group.layers)))
    axes.set_xticklabels(
        [_shortened(_plain(layer)) for layer in group.layers],
        **({"rotation": 45, "ha": "right", "rotation_mode": "anchor"} if _slanted(group) else {}),
    )


def _by_subject(axes: Any, group: Group, look: Dict[str, Look]) -> None:
    """Draw a line for each subject, one below the other."""
    _frame(axes, group, "x")
    shown = _chances(group, ALL)
    for at, subject in enumerate(group.subjects):
        one, row = look[subject], group.row(subject, ALL)
        _interval(axes.hlines, at, row, one)
        if row and _finite(row.estimate.value):
            axes.plot(
                [row.estimate.value], [at], linestyle="none", color=one.colour, **_marker(one)
            )
        if row and shown and _finite(row.chance):
            axes.vlines(row.chance, at - 0.5, at + 0.5, **CHANCE)
    first = group.row(group.subjects[0], ALL)
    if shown:
        number = first.chance if first and _finite(first.chance) else shown[0]
        end = {"xy": (number, 1), "xycoords": ("data", "axes fraction")}
        label = {"xytext": (0, 2), "textcoords": "offset points", "ha": "center"}
        axes.annotate("chance", **end, **label, fontsize=8, color=GREY)
    axes.set_ylim(len(group.subjects) - 0.5, -0.5)
    axes.set_yticks(range(len(group.subjects)))
    axes.set_yticklabels([_plain(name, LABEL) for name in group.subjects])
    axes.tick_params(axis="y", length=0)


def _marker(one: Look) -> Dict[str, Any]:
    return {
        "marker": one.marker,
        "markersize": one.size,
        "markeredgecolor": "white",
        "markeredgewidth": 0.5,
        "zorder": one.order + 0.5,
    }


def _interval(draw: Any, at: float, row: Optional[Row], one: Look) -> None:
    if row and _finite(row.estimate.low) and _finite(row.estimate.high):
        low, high = row.estimate.low, row.estimate.high
        draw(at, low, high, color=one.colour, linewidth=one.width * 0.8, zorder=one.order)


def _chances(group: Group, layer: str) -> List[float]:
    """Return the values without any effect in a layer, each once; none if nothing is drawn."""
    drawn = any(_finite(row.estimate.value) for row in group.rows)
    found = (row.chance for row in group.rows if drawn and row.layer == layer)
    return sorted({number for number in found if number is not None and _finite(number)})


def _frame(axes: Any, group: Group, axis: str) -> None:
    """Set the limits; the axis begins at 0 where that costs less than half of it."""
    axes.grid(axis=axis)
    drawn = [row for row in group.rows if _finite(row.estimate.value)]
    numbers = [
        float(number)
        for row in drawn
        for number in (row.estimate.value, row.estimate.low, row.estimate.high, row.chance)
        if number is not None and _finite(number)
    ]
    if not numbers:
        axes.text(0.5, 0.5, "not measured", ha="center", va="center", transform=axes.transAxes)
        getattr(axes, f"set_{axis}ticks")([])
        return
    low, high = min(numbers), max(numbers)
    if 0 <= low < high / 2:
        low = 0.0
    if high / 2 < low and high < 0:
        high = 0.0
    margin = 0.06 * (high - low) or 0.06 * max(abs(high), 1e-12)
    getattr(axes, f"set_{axis}lim")(low - margin, high + margin)


def _legend(
    drawn: Figure,
    named: Sequence[str],
    look: Dict[str, Look],
    columns: int,
    where: str,
    anchor: Tuple[float, float],
) -> None:
    handles = [
        Line2D(
            [],
            [],
            color=look[name].colour,
            linestyle=look[name].line,
            linewidth=look[name].width,
            **_marker(look[name]),
        )
        for name in named
    ]
    drawn.legend(
        handles,
        [_plain(name) for name in named],
        loc=where,
        bbox_to_anchor=anchor,
        ncol=columns,
        handlelength=4.2,
        columnspacing=1.8,
        borderaxespad=0,
    )


def alternative(report: Report, claim: Claim) -> str:
    """Return a sentence that tells those who cannot see the plot of a claim what it shows."""
    look = looks(claim.rows)
    parts = []
    for group in groups(claim, report.layers):
        main = next((name for name in group.subjects if look[name] is STRONGEST), "")
        own = [row for row in group.rows if row.subject == main and _finite(row.estimate.value)]
        own = sorted(own, key=lambda row: group.layers.index(row.layer))
        ends = [own[0], own[-1]] if len(own) > 1 else own
        values = [
            numeral(row.estimate.value) + ("" if group.overall else f" at {row.layer}")
            for row in ends
        ]
        words = [f"{main} {' and '.join(values)}"] if values else []
        rest = [row for row in group.rows if row.subject != main]
        others = [row.estimate.value for row in rest if _finite(row.estimate.value)]
        if others:
            low, high = numeral(min(others)), numeral(max(others))
            span = low if low == high else f"from {low} to {high}"
            words.append(f"{'controls' if main == FILTERS else 'others'} {span}")
        parts.append(f"{group.quantity}: {', '.join(words) or 'not measured'}")
    network, told = report.facts.network.name, "; ".join(parts) or "nothing was measured"
    return _plain(f"Plot of claim {claim.number} on {network}: {told}.")


def save(
    report: Report, folder: Path, stem: str = "claim", forms: Sequence[str] = ("png", "svg")
) -> List[Path]:
    """Write ``stem_1.png``, ``stem_1.svg`` and so on for each claim that can be drawn.

    Equal reports give equal files.

    Parameters
    ----------
    report
        The report.
    folder
        Where to write them.
    stem
        What the names of the files begin with.
    forms
        The formats, of PNG and SVG.

    Raises
    ------
    InputError
        If a file cannot be written.
    """
    found = []
    for claim in filter(drawable, report.claims):
        drawn = figure(report, claim)
        for form in forms:
            path = folder / f"{stem}_{claim.number}.{form}"
            _write(drawn, path, form)
            found.append(path)
    return found


def _write(drawn: Figure, path: Path, form: str) -> None:
    def write(beside: Path) -> None:
        with _style():
            drawn.savefig(beside, format=form, metadata=UNDATED[form])

    files.write_whole(path, write)
