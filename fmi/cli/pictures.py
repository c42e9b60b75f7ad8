"""``fmi pictures``: list and fetch the paper's pictures."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from fmi.cli.fetching import add_fetch, fetch_all
from fmi.sources import table

__all__ = ["add"]


def add(commands: Any) -> None:
    """Add the command."""
    pictures = commands.add_parser("pictures", help="list and fetch the paper's pictures")
    words = pictures.add_subparsers(dest="word", required=True, metavar="WORD")
    word = words.add_parser(
        "list", help="list author, licence, copyright and state of each picture"
    )
    word.set_defaults(run=_pictures_list)
    word = words.add_parser("fetch", help="download files and check their digests")
    word.add_argument("names", nargs="*", metavar="NAME", help="such as golden_gate (default: all)")
    add_fetch(word)
    word.set_defaults(run=lambda chosen: fetch_all(table.pictures(), chosen))


def _pictures_list(_: argparse.Namespace) -> int:
    for found in table.survey(table.pictures()):
        source = found.source
        where = f": {found.path}" if found.path else ""
        sys.stdout.write(
            f"{source.name}: {source.title}\n    {source.author}, {source.year};"
            f" licence: {source.licence}; in copyright: {source.copyright}\n"
            f"    {source.origin}\n    {found.state}{where}\n"
        )
    return 0
