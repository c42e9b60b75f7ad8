"""Measure the claims of the paper, with controls: ``make claims``.

    python -m experiments.claims [WEIGHTS=vgg16-hed] [CLAIMS=1,2] [N=16] [K=4] ...

Writes the tables claims.txt, .md, .csv and .json and a plot of each claim as PNG and SVG into
results/claims/<network>/ (``RESULTS=``), and prints the table. Inversions are taken from the
store, so that a run that was interrupted goes on where it ended. ``python -m experiments.claims
page OUT.md CLAIMS.json ...`` writes a page about several networks from such files, without
computing anything; ``summary CLAIMS.json ...`` prints the table of the README.
"""

from __future__ import annotations

import logging
import sys
import time
from pathlib import Path
from typing import Dict, List, Sequence

from tqdm.auto import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from experiments.claims import (
    arrangement,
    design,
    fading,
    intricacy,
    oneness,
    page,
    paths,
    plots,
    prediction,
    sameness,
    specificity,
    style,
    table,
)
from experiments.claims.question import Question
from experiments.claims.study import Study
from experiments.claims.table import Claim, Drawn, Facts, Report, Source
from experiments.usage import helped
from fmi.device.environment import cpu_name
from fmi.errors import FmiError, unknown
from fmi.inversion import versions

__all__ = ["QUESTIONS", "main", "measure"]

log = logging.getLogger(__name__)

MODULES = (
    specificity,
    sameness,
    prediction,
    arrangement,
    oneness,
    style,
    intricacy,
    fading,
    paths,
)
QUESTIONS: Dict[str, Question] = {module.QUESTION.number: module.QUESTION for module in MODULES}


def chosen(study: Study) -> List[Question]:
    """Return the claims that are asked for.

    Raises
    ------
    InputError
        If one does not exist.
    """
    numbers = [str(number) for number in study.design.claims or ()] or list(QUESTIONS)
    for number in numbers:
        if number not in QUESTIONS:
            raise unknown("claim", number, QUESTIONS)
    return [QUESTIONS[number] for number in dict.fromkeys(numbers)]


def prepare(study: Study, questions: Sequence[Question]) -> None:
    """Compute all panels that claims need, with a progress bar."""
    kinds = list(dict.fromkeys(kind for question in questions for kind in question.kinds))
    with tqdm(total=study.number(kinds), desc="panels", unit="panel", disable=None) as bar:
        for kind in kinds:
            for layer in study.layers:
                study.panels(kind, layer, bar.update)


def measure(study: Study) -> Report:
    """Measure the claims that are asked for."""
    questions = chosen(study)
    if study.design.photos:  # rather than fail after all inversions
        log.info("%d photographs in %s", len(study.photographs), study.design.photos)
    if study.design.textures:
        style.of_folder(Path(study.design.textures))
    prepare(study, questions)
    found = []
    for question in questions:
        log.info("claim %s: %s", question.number, question.title)
        began = time.perf_counter()
        rows = question.measure(study)
        verdict, finding = question.answer(rows, study.layers)
        found.append(
            Claim(
                number=question.number,
                title=question.title,
                sentence=question.sentence,
                criterion=question.criterion,
                rows=tuple(rows),
                verdict=verdict,
                finding=finding,
                seconds=time.perf_counter() - began,
            )
        )
    return Report(facts(study), tuple(found))


def facts(study: Study) -> Facts:
    """Return what was measured over."""
    described, own = study.network.describe(), study.design
    variables = {
        "settings": study.run.preset,
        **{name: value for name, value in own.overrides.items() if name != "long_edge"},
        "control_starts": min(own.starts, own.control_starts),
        "draws": own.draws,
        "styles": list(own.styles),
        **{name: getattr(own, name) for name in ("photos", "textures") if getattr(own, name)},
    }
    return Facts(
        network=Source(study.network.name, str(described["sha256"])),
        precision=study.run.precision.name,
        long_edge=study.long_edge,
        filters=tuple(Drawn(layer, tuple(study.filters(layer).tolist())) for layer in study.layers),
        pictures=tuple(Source(one.name, one.sha256) for one in study.pictures),
        starts=study.design.starts,
        seed=study.design.seed,
        variables=variables,
        versions=versions(),
        cpu=cpu_name(),
    )


def run(words: Sequence[str]) -> None:
    """Measure, print the table, and write the files."""
    study = Study(design.read(words))
    with logging_redirect_tqdm():
        report = measure(study)
    sys.stdout.write(table.text(report))
    folder = study.folder
    for path in [*table.save(report, folder), *plots.save(report, folder)]:
        sys.stdout.write(f"{path}\n")


def main(words: Sequence[str]) -> int:
    """Exit status 2 for a mistake in the input, 130 after Ctrl-C; finished panels are kept."""
    if helped(words, __doc__):
        return 0
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        if words[:1] == ["page"] and len(words) > 2:
            reports = [table.read(Path(name)) for name in words[2:]]
            for path in page.save(reports, Path(words[1])):
                sys.stdout.write(f"{path}\n")
        elif words[:1] == ["summary"] and len(words) > 1:
            sys.stdout.write(table.summary([table.read(Path(name)) for name in words[1:]]))
        else:
            run(words)
    except FmiError as error:
        sys.stderr.write(f"claims: {error}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write("claims: interrupted; finished panels are kept, the next run goes on\n")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
