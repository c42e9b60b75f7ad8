"""The command line: ``fmi draw experiments/fig3.yaml LAYERS=relu1_2 STEPS=60``."""

from __future__ import annotations

import argparse
import json
import logging
import sys
from pathlib import Path
from typing import Any, List, Mapping, Optional

from tqdm.contrib.logging import logging_redirect_tqdm

import fmi
from fmi.errors import FmiError
from fmi.sources import fetch, table


def main(arguments: Optional[List[str]] = None) -> int:
    """Run a command; the exit status is 0, 2 for a mistake in the input, 130 after Ctrl-C."""
    parser = argparse.ArgumentParser(prog="fmi", description=fmi.__doc__)
    parser.add_argument("--version", action="version", version=f"fmi {fmi.__version__}")
    parser.add_argument("--verbose", action="store_true", help="log every detail")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    draw = commands.add_parser("draw", help="draw a figure of the paper from an experiment's YAML")
    draw.add_argument("experiment", type=Path, help="such as experiments/fig3.yaml")
    draw.add_argument(
        "overrides", nargs="*", metavar="KEY=VALUE", help="such as LAYERS=relu1_2,relu2_2 STEPS=60"
    )
    draw.set_defaults(run=lambda chosen: _draw(chosen.experiment, chosen.overrides))
    _add_weights(commands)
    _add_pictures(commands)
    doctor = commands.add_parser("doctor", help="what is here, what is missing, what to do")
    doctor.add_argument("--json", action="store_true", help="for reports")
    doctor.set_defaults(run=_doctor)
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
        sys.stderr.write("fmi: interrupted; finished panels are kept, run it again to go on\n")
        return 130


def _draw(path: Path, overrides: List[str]) -> int:
    from fmi import runs  # imports MXNet, whose absence is reported above

    for written in runs.draw(runs.experiment(path, overrides)):
        sys.stdout.write(f"{written}\n")
    return 0


def _add_weights(commands: Any) -> None:
    weights = commands.add_parser("weights", help="what weights there are; fetch, show, convert")
    words = weights.add_subparsers(dest="word", required=True, metavar="WORD")
    word = words.add_parser("list", help="what is known, what is here, digests, licences")
    word.set_defaults(run=_weights_list)
    word = words.add_parser("fetch", help="download and check")
    word.add_argument("names", nargs="+", metavar="NAME", help="such as vgg19")
    _add_fetch(word)
    word.set_defaults(run=lambda chosen: _fetch(table.models(), chosen))
    word = words.add_parser("verify", help="read every file that is here and check its digest")
    word.set_defaults(run=_weights_verify)
    word = words.add_parser("show", help="layout, layers, statistics and input of a file")
    word.add_argument("file", type=Path)
    word.set_defaults(run=_weights_show)
    word = words.add_parser("convert", help="write a file's weights as .npz, RGB on 0-255")
    word.add_argument("file", type=Path)
    word.add_argument("out", type=Path)
    word.set_defaults(run=_weights_convert)


def _add_pictures(commands: Any) -> None:
    pictures = commands.add_parser("pictures", help="the paper's pictures: list, fetch")
    words = pictures.add_subparsers(dest="word", required=True, metavar="WORD")
    word = words.add_parser("list", help="author, licence, copyright, and what is here")
    word.set_defaults(run=_pictures_list)
    word = words.add_parser("fetch", help="download and check")
    word.add_argument("names", nargs="*", metavar="NAME", help="such as golden_gate; all of them")
    _add_fetch(word)
    word.set_defaults(run=lambda chosen: _fetch(table.pictures(), chosen))


def _add_fetch(word: argparse.ArgumentParser) -> None:
    word.add_argument("--folder", type=Path, help="where to; by default models/ or pictures/")
    word.add_argument("--offline", action="store_true", help="do not touch the network")


def _fetch(entries: Mapping[str, table.Source], chosen: argparse.Namespace) -> int:
    for source in [table.get(entries, name) for name in chosen.names or entries]:
        path = fetch.fetch(source, chosen.folder, forbidden=chosen.offline)
        sys.stdout.write(f"{path}\n")
    return 0


def _weights_list(_: argparse.Namespace) -> int:
    from fmi import weights

    sys.stdout.write(f"{weights.survey()}\n")
    return 0


def _weights_verify(_: argparse.Namespace) -> int:
    from fmi import weights

    results = weights.verify()
    for path, state, _usable in results:
        sys.stdout.write(f"{path}: {state}\n")
    if not results:
        sys.stdout.write("no weights are here: fmi weights fetch vgg19\n")
    return 0 if all(usable for _, _, usable in results) else 2


def _weights_show(chosen: argparse.Namespace) -> int:
    from fmi import weights

    sys.stdout.write(f"{weights.report(weights.read(chosen.file))}\n")
    return 0


def _weights_convert(chosen: argparse.Namespace) -> int:
    from fmi import weights

    written = weights.convert(chosen.file, chosen.out)
    sys.stdout.write(f"{written.path}: sha256 {written.sha256}\n")
    return 0


def _pictures_list(_: argparse.Namespace) -> int:
    for found in table.survey(table.pictures()):
        source = found.source
        where = f": {found.path}" if found.path else ""
        sys.stdout.write(
            f"{source.name}: {source.title}\n    {source.author}, {source.year};"
            f" licence: {source.licence}; in copyright: {source.copyright}\n"
            f"    {source.urls[0]}\n    {found.state}{where}\n"
        )
    return 0


def _doctor(chosen: argparse.Namespace) -> int:
    from fmi import doctor

    report = doctor.examine()
    sys.stdout.write(f"{json.dumps(report, indent=2) if chosen.json else doctor.text(report)}\n")
    return 0 if report["device"] else 2


if __name__ == "__main__":
    sys.exit(main())
