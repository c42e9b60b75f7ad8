"""``fmi doctor``: report what is installed, what is missing, and how to fix it."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

__all__ = ["add"]


def add(commands: Any) -> None:
    """Add the command."""
    doctor = commands.add_parser(
        "doctor", help="report what is installed, what is missing, and how to fix it"
    )
    doctor.add_argument("--json", action="store_true", help="print JSON, for bug reports")
    doctor.set_defaults(run=_doctor)


def _doctor(chosen: argparse.Namespace) -> int:
    from fmi import doctor

    report = doctor.examine()
    sys.stdout.write(f"{json.dumps(report, indent=2) if chosen.json else doctor.text(report)}\n")
    return 0 if report["device"] else 2
