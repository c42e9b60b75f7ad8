"""``fmi weights``: list, fetch, verify, show and convert weights."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from fmi.cli.fetching import add_fetch, fetch_all
from fmi.sources import table

__all__ = ["add"]


def add(commands: Any) -> None:
    """Add the command."""
    weights = commands.add_parser("weights", help="list, fetch, verify, show and convert weights")
    words = weights.add_subparsers(dest="word", required=True, metavar="WORD")
    word = words.add_parser("list", help="list known and present weights, digests and licences")
    word.set_defaults(run=_weights_list)
    word = words.add_parser("fetch", help="download files and check their digests")
    word.add_argument("names", nargs="+", metavar="NAME", help="such as vgg19")
    add_fetch(word)
    word.set_defaults(run=lambda chosen: fetch_all(table.models(), chosen))
    word = words.add_parser("verify", help="read every file that is present and check its digest")
    word.set_defaults(run=_weights_verify)
    word = words.add_parser("show", help="show layout, layers, statistics and input of a file")
    word.add_argument("file", type=Path)
    word.set_defaults(run=_weights_show)
    word = words.add_parser(
        "convert", help="convert a file to .npz, for RGB input on the 0-255 scale"
    )
    word.add_argument("file", type=Path)
    word.add_argument("out", type=Path)
    word.set_defaults(run=_weights_convert)


def _weights_list(_: argparse.Namespace) -> int:
    from fmi.networks import report

    sys.stdout.write(f"{report.survey()}\n")
    return 0


def _weights_verify(_: argparse.Namespace) -> int:
    from fmi.networks import report

    results = report.verify()
    for path, state, _usable in results:
        sys.stdout.write(f"{path}: {state}\n")
    if not results:
        sys.stdout.write("no weights were found: fmi weights fetch vgg19\n")
    return 0 if all(usable for _, _, usable in results) else 2


def _weights_show(chosen: argparse.Namespace) -> int:
    from fmi.networks import report, weights

    sys.stdout.write(f"{report.report(weights.read(chosen.file))}\n")
    return 0


def _weights_convert(chosen: argparse.Namespace) -> int:
    from fmi.networks import report

    written = report.convert(chosen.file, chosen.out)
    sys.stdout.write(f"{written.path}: sha256 {written.sha256}\n")
    return 0
