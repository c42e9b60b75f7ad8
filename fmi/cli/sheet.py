"""``fmi sheet``: the filters of a layer as one labelled contact sheet."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any, Optional

from fmi.cli import inversions
from fmi.cli.lazy import Command
from fmi.errors import InputError

__all__ = ["add"]


def add(commands: Any) -> None:
    """Add the command."""
    sheet = commands.add_parser(
        "sheet",
        help="draw some or all filters of a layer as one labelled sheet",
        description="Invert filters of a layer and draw them as one sheet, PNG and PDF.",
        usage="fmi sheet PICTURE --layer LAYER [--filters 0-15] [-o OUT.png] [options]",
        epilog="example: fmi sheet photo.jpg --layer relu3_2 --filters 0-15 -o relu3_2.png",
    )
    if isinstance(sheet, Command):
        sheet.fill = _fill
    sheet.set_defaults(run=_run)


def _fill(sheet: argparse.ArgumentParser) -> None:
    sheet.add_argument("picture", metavar="PICTURE", help="a file, or skimage:coffee")
    sheet.add_argument("--layer", required=True, help="such as relu3_2")
    sheet.add_argument("--filters", help="such as 4,17 or 0-15; default: all")
    group = sheet.add_argument_group("results")
    group.add_argument(
        "-o", "--out", type=Path, metavar="OUT", help="a .png file (PICTURE_LAYER.png)"
    )
    group.add_argument("--columns", type=int, default=8, metavar="N", help="panels in a row (8)")
    group.add_argument(
        "--energy-shares", action="store_true", help="the energy share of each filter in its title"
    )
    group.add_argument("--store", metavar="FOLDER", help="folder of results, which are kept")
    inversions.add_keywords(sheet, "feature_map")


def _run(chosen: argparse.Namespace) -> int:
    from fmi import checks, files, invert, sheets
    from fmi.call import ALL, places_of
    from fmi.runs.contact import contact

    if chosen.columns < 1:
        raise InputError(f"--columns {chosen.columns} must be at least 1")
    if chosen.out is not None and chosen.out.suffix.lower() != ".png":
        raise InputError(f"-o {chosen.out} must end in .png; the PDF is written beside it")
    if chosen.out is not None and chosen.out.is_dir():
        raise InputError(f"-o {chosen.out} is a folder; name a .png file in it")
    picture, *others = inversions.sources([chosen.picture])
    if others:
        raise InputError(
            f"a sheet shows one picture, but {len(others) + 1} match {chosen.picture!r}"
        )
    options = inversions.options_of(chosen)
    numbers = chosen.filters
    if numbers != ALL:
        numbers = checks.checked("filters", numbers, Optional[checks.Numbers])
    (layer, *more), filters = places_of(chosen.layer, None, numbers)
    if more:
        raise InputError("a sheet shows one layer")
    network = inversions.loaded(options, [layer])
    own = network.layer(layer)
    filters = filters or list(range(own.channels))
    stem = chosen.out.with_suffix("") if chosen.out else Path(f"{picture.stem}_{layer}")
    given = inversions.given_pictures(chosen, [chosen.picture])
    png = stem.with_name(f"{stem.name}.png")
    inversions.check_kept(png, given, [png])
    files.prepare(stem.parent)  # rather than fail after minutes
    found = invert.feature_map(picture, layer, filters, **options)
    if len(found) < len(filters) or any(one.stopped == "interrupted" for one in found):
        raise KeyboardInterrupt
    finished = [one for one in found if one.finished]
    diverged = [f"{layer}:{n}" for n, one in zip(filters, found) if not one.finished]
    if not finished:
        raise inversions.diverging(diverged, len(filters))
    block = contact(finished, own, chosen.columns, chosen.energy_shares)
    for path in sheets.save(sheets.sheet([block], network.note), stem):
        sys.stdout.write(f"{path}\n")
    if diverged:
        raise inversions.diverging(diverged, len(filters))
    return 0
