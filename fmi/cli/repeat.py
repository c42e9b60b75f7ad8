"""``fmi repeat``: compute a picture again from its record."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any, Dict, List

from fmi.cli.lazy import Command
from fmi.errors import InputError

__all__ = ["add"]

OPTIONS = {
    "network": "the record's network, if its name does not suffice to find it: see fmi code --help",
    "weights": "its weights, likewise: a name or a file",
    "ctx": "cpu, gpu or gpu(1) (that of the record)",
    "precision": "float32, bfloat16, float16 or auto (that of the record)",
    "memory": "share of the free memory, or bytes such as 4e9",
}


def add(commands: Any) -> None:
    """Add the command."""
    repeat = commands.add_parser(
        "repeat",
        help="compute a picture again from its record",
        description=(
            "Compute a picture again from its record: the JSON beside each result, which its PNG"
            " contains too. Pictures and network are found by name, and checked with their digests."
        ),
        usage="fmi repeat RECORD [-o OUT] [--picture [ROLE=]FILE ...] [options]",
        epilog="example: fmi repeat out/photo_relu3_2_filter4.json --picture content=photo.jpg",
    )
    if isinstance(repeat, Command):
        repeat.fill = _fill
    repeat.set_defaults(run=_run)


def _fill(repeat: argparse.ArgumentParser) -> None:
    repeat.add_argument("record", type=Path, metavar="RECORD", help="the JSON or PNG of a result")
    repeat.add_argument(
        "-o",
        "--out",
        type=Path,
        default=Path(),
        metavar="OUT",
        help="a .png, .jpg or .webp file, or a folder (RECORD_repeated.png in this folder)",
    )
    repeat.add_argument(
        "--picture",
        action="append",
        default=[],
        metavar="[ROLE=]FILE",
        help=(
            "a picture that is not found by its name: content, style, style_2 ..., init or mask;"
            " an array as .npy"
        ),
    )
    for name, text in OPTIONS.items():
        repeat.add_argument(f"--{name}", metavar="NAME", help=text)


def _run(chosen: argparse.Namespace) -> int:
    from fmi import checks, files, repetition
    from fmi.cli import inversions
    from fmi.sources import table

    record = repetition.read(chosen.record)
    roles: Dict[str, Any] = {}
    others: List[Any] = []
    for text in chosen.picture:
        role, equals, file = text.partition("=")
        if equals and role.isidentifier() and not table.is_file(Path(text)):
            if role in roles:
                raise InputError(f"--picture {role}= is given twice")
            roles[role] = _source(file)
        else:
            others.append(_source(text))
    options = {name: getattr(chosen, name) for name in OPTIONS}
    options = {name: value for name, value in options.items() if value is not None}
    if "memory" in options:
        options["memory"] = checks.checked("memory", options["memory"], checks.Memory)
    asked = repetition.ask(
        record, roles, others, [chosen.record.parent], name=str(chosen.record), **options
    )
    path = chosen.out
    if not inversions.is_file(path):
        path = path / f"{chosen.record.stem}_repeated.png"
    given = [one for one in (*roles.values(), *others) if isinstance(one, Path)]
    results = [path, path.with_suffix(".json")]
    inversions.check_kept(path, [*_beside(chosen.record), *given], results)
    files.prepare(path.parent)
    found = asked.compute()
    if found.stopped == "interrupted":
        raise KeyboardInterrupt
    first = record.get("outcome")
    if (
        found.stopped == "diverged"
        and isinstance(first, dict)
        and first.get("stopped") != "diverged"
    ):
        raise InputError(f"the repetition of {chosen.record} has diverged, which it had not")
    found.save(path)
    sys.stdout.write(f"{path}\n")
    return 0


def _source(name: str) -> Any:
    """Return a picture: its file, or the array in a .npy file."""
    from fmi.cli import inversions

    if Path(name).suffix.lower() == ".npy":
        return _array(Path(name))
    found = inversions.sources([name])
    if len(found) > 1:
        raise InputError(f"--picture {name}: {len(found)} files match; name one of them")
    return found[0]


def _array(path: Path) -> Any:
    import numpy as np

    from fmi import pictures
    from fmi.sources import table

    if not table.is_file(path):  # a pipe might never end
        raise InputError(f"{path} is not a file")
    try:
        # Mapped, so that a header that claims more than there is in the file costs no memory.
        values: Any = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError, SyntaxError) as error:
        line = " ".join(str(error).split())
        raise InputError(f"{path} cannot be read as an array: {line}") from None
    if values.size > 3 * pictures.PIXELS:
        raise InputError(f"{path} is too large for a picture")
    return np.array(values)


def _beside(record: Path) -> List[Path]:
    """Return a record and the names of what may be beside it: its JSON, its picture."""
    from fmi import pictures

    return [record, *map(record.with_suffix, (".json", *pictures.SAVED))]
