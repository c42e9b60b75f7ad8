"""``fmi atlas``: the panels of a sweep as a folder of web pages."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

__all__ = ["add"]


def add(commands: Any) -> None:
    """Add the command."""
    atlas = commands.add_parser("atlas", help="make web pages of the panels of a sweep")
    atlas.add_argument(
        "folder", type=Path, metavar="DIR", help="folder of the results of fmi sweep"
    )
    atlas.add_argument(
        "--out", type=Path, metavar="FOLDER", help="folder of the web pages (default: DIR/atlas)"
    )
    atlas.add_argument(
        "--photos",
        type=Path,
        metavar="FOLDER",
        help="photographs for the natural crops (default: scikit-image's and scikit-learn's)",
    )
    atlas.add_argument("--title", help="title of the atlas (default: it names the network)")
    atlas.set_defaults(run=_atlas)


def _atlas(chosen: argparse.Namespace) -> int:
    from fmi.atlas import contents, site  # imports MXNet; main() reports if it is missing

    out = chosen.out or chosen.folder / "atlas"
    site.check_out(out)
    site.write(contents.read(chosen.folder, chosen.photos, chosen.title), out)
    sys.stdout.write(f"{out / 'index.html'}\n")
    return 0
