"""The command line: ``fmi feature-map photo.jpg --layer relu3_2 --filters 4,17 -o out/``."""

from __future__ import annotations

import sys
from typing import List, Optional

from fmi.cli import signals  # the other modules are imported when Ctrl-C is handled

ABOUT = (
    "Show what the filters of a convolutional network extract from a picture, draw the figures of"
    " arXiv 1608.04170, and fetch weights and pictures."
)


def main(arguments: Optional[List[str]] = None) -> int:
    """Run a command.

    Parameters
    ----------
    arguments
        By default, those of this process, which is then expected to end.

    Returns
    -------
    int
        The exit status: 0, 2 for an error in the input or the output, 130 after Ctrl-C, 143 after
        SIGTERM, or 141 if the reader of standard output has ended.
    """
    with signals.handled(ends=arguments is None) as stop:
        from fmi.cli import output
        from fmi.errors import FmiError

        try:
            return stop.call(_run, arguments)
        except KeyboardInterrupt:
            pass
        except Exception as error:
            known = isinstance(error, FmiError) and not isinstance(error, output.OutputError)
            if not stop.number or known:  # else a library has converted the interrupt
                return _report(error)
        output.tell(signals.INTERRUPTED)
        return stop.status


def _report(error: Exception) -> int:
    """Report an error of the user or of the output, and return the exit status."""
    from fmi.cli import output
    from fmi.errors import FmiError

    if not isinstance(error, FmiError):
        raise error
    if isinstance(error, output.ReaderGone):
        return output.BROKEN_PIPE
    output.tell(f"fmi: {error}")
    return 2


def _run(arguments: Optional[List[str]]) -> int:
    import argparse
    import logging

    from tqdm.contrib.logging import logging_redirect_tqdm

    import fmi
    from fmi.cli import (
        atlas,
        claims,
        completion,
        doctor,
        draw,
        inversions,
        layers,
        output,
        pictures,
        repeat,
        results,
        sheet,
        sweep,
        weights,
    )
    from fmi.cli.lazy import Command

    with output.redirected():
        parser = argparse.ArgumentParser(prog="fmi", description=ABOUT)
        parser.add_argument("--version", action="version", version=f"fmi {fmi.__version__}")
        parser.add_argument("--verbose", action="store_true", help="log every detail")
        commands = parser.add_subparsers(
            dest="command", required=True, metavar="COMMAND", parser_class=Command
        )
        for module in (
            inversions,
            repeat,
            sheet,
            draw,
            sweep,
            atlas,
            claims,
            layers,
            results,
            weights,
            pictures,
            doctor,
        ):
            module.add(commands)
        completion.add(commands, parser)
        try:
            chosen = parser.parse_args(arguments)
        except OSError:  # standard error cannot be written, where it says what is wrong
            return 2
        logging.basicConfig(
            level=logging.DEBUG if chosen.verbose else logging.INFO,
            format="%(message)s",
            stream=sys.stderr,
        )
        for library in ("matplotlib", "PIL"):
            logging.getLogger(library).setLevel(logging.WARNING)
        with logging_redirect_tqdm():
            return int(chosen.run(chosen))
