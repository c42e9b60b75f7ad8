"""The command line: ``fmi draw experiments/fig3.yaml LAYERS=relu1_2 STEPS=60``."""

from __future__ import annotations

import argparse
import logging
import sys
from typing import List, Optional

from tqdm.contrib.logging import logging_redirect_tqdm

import fmi
from fmi.cli import doctor, draw, layers, pictures, results, weights
from fmi.errors import FmiError


def main(arguments: Optional[List[str]] = None) -> int:
    """Run a command; return exit status 0, 2 for an error in the input, or 130 after Ctrl-C."""
    parser = argparse.ArgumentParser(prog="fmi", description=fmi.__doc__)
    parser.add_argument("--version", action="version", version=f"fmi {fmi.__version__}")
    parser.add_argument("--verbose", action="store_true", help="log every detail")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for module in (draw, layers, results, weights, pictures, doctor):
        module.add(commands)
    chosen = parser.parse_args(arguments)
    logging.basicConfig(
        level=logging.DEBUG if chosen.verbose else logging.INFO,
        format="%(message)s",
        stream=sys.stderr,
    )
    for library in ("matplotlib", "PIL", "fontTools"):
        logging.getLogger(library).setLevel(logging.WARNING)
    try:
        with logging_redirect_tqdm():
            return int(chosen.run(chosen))
    except FmiError as error:
        sys.stderr.write(f"fmi: {error}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write(
            "fmi: interrupted; finished panels are kept, run the command again to resume\n"
        )
        return 130
