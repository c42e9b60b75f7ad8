"""What Jupyter shows: a picture with its loss and its settings, and several as a contact sheet."""

from __future__ import annotations

import base64
import html
import math
from typing import Mapping, Sequence, Tuple

__all__ = ["card", "contact", "curve"]

WIDTH, HEIGHT = 220, 90  # of the loss curve, in pixels


def _image(png: bytes, alternative: str, style: str = "") -> str:
    data = base64.b64encode(png).decode("ascii")
    return (
        f'<img src="data:image/png;base64,{data}" alt="{html.escape(alternative, quote=True)}"'
        f' style="max-width:100%;{style}">'
    )


def curve(losses: Sequence[float]) -> str:
    """Return losses as an SVG, logarithmic if all are positive; empty for less than two."""
    finite = [value for value in losses if math.isfinite(value)]
    if len(finite) < 2:
        return ""
    logarithmic = min(finite) > 0
    values = [math.log10(value) if logarithmic else value for value in finite]
    low, high = min(values), max(values)
    span = (high - low) or 1.0
    points = " ".join(
        f"{WIDTH * n / (len(values) - 1):.1f},{HEIGHT - HEIGHT * (value - low) / span:.1f}"
        for n, value in enumerate(values)
    )
    label = f"loss, from {finite[0]:.3g} to {finite[-1]:.3g} in {len(losses)} steps"
    return (
        f'<svg width="{WIDTH}" height="{HEIGHT}" viewBox="-4 -4 {WIDTH + 8} {HEIGHT + 8}"'
        f' role="img" aria-label="{label}"><polyline points="{points}" fill="none"'
        f' stroke="currentColor" stroke-width="1.5"/></svg><div style="font-size:85%">{label}</div>'
    )


def card(png: bytes, title: str, losses: Sequence[float], facts: Mapping[str, object]) -> str:
    """Return a picture with its loss curve and a table beside it, as HTML.

    Parameters
    ----------
    png
        The picture as PNG.
    title
        What it shows, also for those who cannot see it.
    losses
        The loss before each step.
    facts
        Names and values of the table.
    """
    rows = "".join(
        f'<tr><th style="text-align:left;padding-right:1em">{html.escape(name)}</th>'
        f'<td style="text-align:left">{html.escape(str(value))}</td></tr>'
        for name, value in facts.items()
    )
    return (
        '<div style="display:flex;flex-wrap:wrap;gap:1em;align-items:flex-start">'
        f"<div>{_image(png, title)}</div>"
        f"<div><div><b>{html.escape(title)}</b></div>{curve(losses)}"
        f"<table>{rows}</table></div></div>"
    )


def contact(panels: Sequence[Tuple[bytes, str]]) -> str:
    """Return pictures (PNG) with their titles side by side, as HTML."""
    cells = "".join(
        f'<figure style="margin:0;max-width:240px">{_image(png, title)}'
        f'<figcaption style="text-align:center">{html.escape(title)}</figcaption></figure>'
        for png, title in panels
    )
    return f'<div style="display:flex;flex-wrap:wrap;gap:8px">{cells}</div>'
