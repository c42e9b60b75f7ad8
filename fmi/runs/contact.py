"""Contact sheets: inversions of single feature maps with their names, as one block."""

from __future__ import annotations

from typing import Sequence

import numpy as np

from fmi import settings as presets
from fmi.inversion import Inversion
from fmi.networks.base import Layer
from fmi.sheets import Block, Scale, in_rows

__all__ = ["contact"]


def contact(
    found: Sequence[Inversion], layer: Layer, columns: int = 8, shares: bool = False
) -> Block:
    """Return inversions as a block with a title above each.

    Parameters
    ----------
    found
        Inversions of filters of one layer from one picture.
    layer
        The layer, whose receptive field the scale bar shows.
    columns
        Number of panels in a row.
    shares
        Whether the titles tell the energy share of each filter too.
    """
    record = found[0].record
    titles = [_title(one, shares) for one in found]
    network, settings = record["network"]["name"], record["settings"]
    usual = presets.as_dict(presets.preset(settings["preset"]))
    changed = [f", {name}={v}" for name, v in settings.items() if v != usual.get(name)]
    return Block(
        panels=in_rows([np.asarray(one.image) for one in found], columns),
        titles=in_rows(titles, columns),
        caption=f"{record['pictures']['content']['name']}, {network}, preset {settings['preset']}"
        + "".join(changed),
        scale=Scale(layer.receptive_field, f"receptive field, {layer.receptive_field} pixels"),
    )


def _title(one: Inversion, shares: bool) -> str:
    title = one.title
    if shares and one.energy_share is not None:
        title += f"  ({100 * one.energy_share:.3g} % of the energy)"
    return title
