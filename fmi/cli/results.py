"""``fmi results``: list and remove the results in the store."""

from __future__ import annotations

import argparse
import datetime
import sys
from pathlib import Path
from typing import Any, Dict

__all__ = ["add"]


def add(commands: Any) -> None:
    """Add the command."""
    results = commands.add_parser("results", help="list and remove the results in the store")
    words = results.add_subparsers(dest="word", required=True, metavar="WORD")
    word = words.add_parser("list", help="list the results")
    _add_store(word)
    word.add_argument("--json", action="store_true", help="print JSON, with the whole records")
    word.set_defaults(run=_list)
    word = words.add_parser(
        "prune",
        help="remove damaged results and what killed processes have left; with options, more",
    )
    _add_store(word)
    word.add_argument(
        "--outdated",
        action="store_true",
        help="remove results of other versions of fmi, MXNet, NumPy, scikit-image, SciPy or Pillow",
    )
    word.add_argument(
        "--older-than", metavar="DAYS", help="remove results that are older than some days"
    )
    word.add_argument("--all", action="store_true", help="remove all results")
    word.add_argument("--dry-run", action="store_true", help="only list what would be removed")
    word.set_defaults(run=_prune)


def _add_store(word: argparse.ArgumentParser) -> None:
    word.add_argument(
        "--store", type=Path, help="folder of the store (default: FMI_STORE, or results/store)"
    )


def _list(chosen: argparse.Namespace) -> int:
    from fmi import files
    from fmi.runs import store

    entries = list(store.open_store(chosen.store).entries())
    if chosen.json:
        rows = [
            {
                "key": entry.key,
                "when": entry.when.isoformat(),
                "seconds": entry.seconds,
                "bytes": entry.bytes,
                "record": entry.record,
            }
            for entry in entries
        ]
        sys.stdout.write(files.json_text(rows))
        return 0
    for entry in entries:
        record: Any = entry.record
        pictures = ", ".join(picture["name"] for picture in record["pictures"].values())
        sys.stdout.write(
            f"{entry.key[:12]}  {entry.when:%Y-%m-%d %H:%M}  {entry.bytes / 1e6:6.1f} MB"
            f"  {record['function']} {entry.place}  {pictures}  {record['network']['name']}"
            f"  {record['settings']['preset']}  seed {record['seed']}  {record['precision']}\n"
        )
    size = sum(entry.bytes for entry in entries)
    sys.stdout.write(f"{len(entries)} results, {size / 1e6:.1f} MB\n")
    return 0


def _prune(chosen: argparse.Namespace) -> int:
    from fmi import checks
    from fmi.runs import store

    held = store.open_store(chosen.store)
    reasons: Dict[str, str] = {}
    now = datetime.datetime.now(datetime.timezone.utc)
    age = None
    if chosen.older_than is not None:
        days = checks.checked("--older-than", chosen.older_than, checks.Days)
        age = datetime.timedelta(days=days)
    names = held.names()  # first, so that what is added meanwhile is not taken for damaged
    for name in names:
        entry = held.entry(name)
        if entry is None:
            reasons[name] = "damaged"
        elif chosen.all:
            reasons[name] = "--all"
        elif chosen.outdated and store.outdated(entry.record):
            reasons[name] = "other versions"
        elif age is not None and now - entry.when > age:
            reasons[name] = f"older than {age.days} days"
    for name, reason in reasons.items():
        if not chosen.dry_run:
            held.remove(name)
        sys.stdout.write(f"{name[:12]}  {reason}\n")
    if not chosen.dry_run:
        held.sweep()
        held.tidy(everything=True)
    verb = "would be removed" if chosen.dry_run else "removed"
    sys.stdout.write(f"{len(reasons)} of {len(names)} results {verb}\n")
    return 0
