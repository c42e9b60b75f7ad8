"""``fmi claims``: the claims of the paper, measured with controls."""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path
from typing import Any

from fmi.errors import InputError

__all__ = ["add"]


def add(commands: Any) -> None:
    """Add the command."""
    claims = commands.add_parser(
        "claims",
        help="measure the claims of the paper, with controls (in a clone)",
        epilog="example: fmi claims WEIGHTS=vgg16-hed CLAIMS=1,2",
    )
    claims.add_argument(
        "overrides", nargs="*", metavar="KEY=VALUE", help="such as CLAIMS=1,2 N=16 K=4"
    )
    claims.set_defaults(run=_claims)


def _claims(chosen: argparse.Namespace) -> int:
    here = str(Path.cwd())  # experiments/ is no part of the package
    if here not in sys.path:
        sys.path.insert(0, here)
    if not (Path(here) / "experiments" / "claims").is_dir():
        raise InputError(
            "fmi claims needs the folder experiments/ of a clone of this project: change to it"
        )
    importlib.import_module("experiments.claims.__main__").run(chosen.overrides)
    return 0
