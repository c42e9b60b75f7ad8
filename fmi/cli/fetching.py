"""What ``fmi weights fetch`` and ``fmi pictures fetch`` have in common."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Mapping

from fmi.sources import fetch, table

__all__ = ["add_fetch", "fetch_all"]


def add_fetch(word: argparse.ArgumentParser) -> None:
    """Add the options of a fetch command."""
    word.add_argument("--folder", type=Path, help="target folder (default: models/ or pictures/)")
    word.add_argument("--offline", action="store_true", help="do not access the network")


def fetch_all(entries: Mapping[str, table.Source], chosen: argparse.Namespace) -> int:
    """Fetch the named entries, or all of them, and print the path of each file."""
    for source in [table.get(entries, name) for name in chosen.names or entries]:
        path = fetch.fetch(source, chosen.folder, forbidden=chosen.offline)
        sys.stdout.write(f"{path}\n")
    return 0
