"""The options and the work that ``fmi weights fetch`` and ``fmi pictures fetch`` share."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Mapping

from fmi.sources import fetch, table


def add_fetch(word: argparse.ArgumentParser) -> None:
    """Add the options."""
    word.add_argument("--folder", type=Path, help="where to; by default models/ or pictures/")
    word.add_argument("--offline", action="store_true", help="do not touch the network")


def fetch_all(entries: Mapping[str, table.Source], chosen: argparse.Namespace) -> int:
    """Fetch the entries that are named, or all, and print each one's path."""
    for source in [table.get(entries, name) for name in chosen.names or entries]:
        path = fetch.fetch(source, chosen.folder, forbidden=chosen.offline)
        sys.stdout.write(f"{path}\n")
    return 0
