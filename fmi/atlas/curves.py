"""Curves: the loss of a descent as an SVG that stands inside a page."""

from __future__ import annotations

import math
from typing import List, Sequence, Tuple

from markupsafe import Markup

__all__ = ["POINTS", "loss_curve"]

WIDTH, HEIGHT = 480, 160  # of the drawing, in its own units
LEFT, RIGHT, TOP, BOTTOM = 68, 12, 12, 34  # margins with the labels
POINTS = 200  # of a long curve, evenly spaced


def loss_curve(loss: Sequence[float]) -> Markup:
    """Return the loss before each step as SVG; its colours are those of the page's text.

    The axis of the loss is logarithmic if all losses are positive. A long curve is reduced to
    :data:`POINTS` steps, the first and the last among them, and those with the largest and the
    smallest loss.

    Parameters
    ----------
    loss
        Loss before each step, finite; empty for none.
    """
    if not loss:
        return Markup("")
    logarithmic = min(loss) > 0
    count = min(POINTS, len(loss))
    even = (round(n * (len(loss) - 1) / max(1, count - 1)) for n in range(count))
    steps = sorted({*even, loss.index(max(loss)), loss.index(min(loss))})
    heights = [math.log10(loss[n]) if logarithmic else loss[n] for n in steps]
    low, high = min(heights), max(heights)
    points = " ".join(
        f"{_scaled(n, 0, len(loss) - 1, LEFT, WIDTH - RIGHT):.1f},"
        f"{_scaled(h, low, high, HEIGHT - BOTTOM, TOP):.1f}"
        for n, h in zip(steps, heights)
    )
    about = (
        f"Loss over {len(loss)} steps: from {loss[0]:.3g} before the first to {loss[-1]:.3g}"
        " before the last."
    )
    texts: List[Tuple[float, float, str, str]] = [
        (LEFT - 6, TOP + 8, "end", f"{max(loss):.3g}"),
        (LEFT - 6, HEIGHT - BOTTOM, "end", f"{min(loss):.3g}"),
        (LEFT, HEIGHT - 14, "start", "1"),
        (WIDTH - RIGHT, HEIGHT - 14, "end", f"{len(loss)}"),
        (
            (LEFT + WIDTH - RIGHT) / 2,
            HEIGHT - 14,
            "middle",
            "step (logarithmic loss)" if logarithmic else "step",
        ),
    ]
    labels = "".join(
        f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}">{text}</text>'
        for x, y, anchor, text in texts
    )
    axes = f"M{LEFT} {TOP}V{HEIGHT - BOTTOM}H{WIDTH - RIGHT}"
    return Markup(
        f'<svg class="curve" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{about}">'
        f'<path class="axes" d="{axes}"/><polyline points="{points}"/>{labels}</svg>'
    )


def _scaled(value: float, low: float, high: float, begin: float, end: float) -> float:
    """Return where a value of [low, high] lies between two places; the middle if both are equal."""
    part = (value - low) / (high - low) if high > low else 0.5
    return begin + part * (end - begin)
