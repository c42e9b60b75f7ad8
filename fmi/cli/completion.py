"""``fmi completion``: what a shell needs to complete the commands of fmi."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from fmi.device.environment import lacking

__all__ = ["SHELLS", "add"]

SHELLS = ("bash", "zsh")


def add(commands: Any, parser: argparse.ArgumentParser) -> None:
    """Add the command, which completes all commands of a parser."""
    completion = commands.add_parser(
        "completion",
        help="print the completion of these commands for a shell",
        epilog="example: fmi completion bash > ~/.local/share/bash-completion/completions/fmi",
    )
    completion.add_argument("shell", choices=SHELLS)
    completion.set_defaults(run=lambda chosen: _completion(commands, parser, chosen))


def _completion(commands: Any, parser: argparse.ArgumentParser, chosen: argparse.Namespace) -> int:
    try:
        import shtab  # type: ignore[import-untyped,import-not-found,unused-ignore]
    except ImportError:
        raise lacking("completion", "completion needs shtab") from None
    for command in commands.choices.values():
        command.filled()
    sys.stdout.write(shtab.complete(parser, shell=chosen.shell))
    return 0
