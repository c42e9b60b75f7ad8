"""Compare preset "fast" with preset "code".

    python -m experiments.presets PICTURES=golden_gate LAYERS=relu1_2,relu2_2,relu3_2

Inverts each filter of Fig. 3 (first picture, chain off) with both presets, one after the other, and
prints the final loss and the time of "fast" as shares of those of "code". The words are those of
``make fig3``. Writes presets.json and a sheet of all pictures into results/presets/.
"""

from __future__ import annotations

import logging
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence

import numpy as np
from tqdm.auto import tqdm

from experiments.outcome import finished
from experiments.usage import helped
from fmi import files, invert, sheets
from fmi.errors import FmiError
from fmi.pictures import Picture
from fmi.runs.experiment import Experiment, Fig3, read
from fmi.runs.figures import Run

FIG3 = Path(__file__).parent / "fig3.yaml"
Pair = Dict[str, invert.Inversion]
Table = List[Dict[str, Any]]


@dataclass(frozen=True)
class Comparison:
    """What is compared: each inversion is made twice, with other keywords.

    Attributes
    ----------
    name
        Name of the script and of its files.
    options
        Names of the standard and of what is compared with it, with their keywords.
    summary
        Function that returns the last line for a table of :func:`shares`.
    about
        The docstring of the script.
    """

    name: str
    options: Mapping[str, Mapping[str, Any]]
    summary: Callable[[Table], str]
    about: Optional[str]


def pair(run: Run, comparison: Comparison, picture: Picture, layer: str, index: int) -> Pair:
    """One filter's two inversions, computed now so that the times can be compared."""
    options = {**run.options, "store": None, "seed": run.experiment.seed}
    found = {}
    for name, own in comparison.options.items():
        (found[name],) = finished(invert.feature_map(picture, layer, index, **{**options, **own}))
    return found


def shares(found: Pair) -> Dict[str, Any]:
    """Loss and seconds of the second inversion over those of the first, the standard.

    The key "reached" is the first step of the second that is not above the last loss of the
    standard, or 0; "until" is the share of the time until then, or ``None``.
    """
    (name, standard), (_, other) = found.items()
    first = reached(other.loss, standard.loss[-1])
    seconds = other.seconds / standard.seconds
    return {
        "loss": other.loss[-1] / standard.loss[-1],
        "seconds": seconds,
        "until": seconds * first / other.steps if first else None,
        f"seconds_{name}": standard.seconds,
        f"steps_{name}": standard.steps,
        "reached": first,
    }


def reached(losses: Sequence[float], goal: float) -> int:
    """Return the first step before which the loss is not above a goal, or 0."""
    below = np.flatnonzero(np.asarray(losses) <= goal)
    return int(below[0]) + 1 if below.size else 0


def in_less_time(table: Table) -> str:
    """Return how many inversions reach the standard's loss, and in which share of its time."""
    until = [entry["until"] for entry in table if entry["until"]]
    found = f"the same loss: {len(until)} of {len(table)}"
    if until:
        found += f", in {np.median(until):.2f} of the time (median; at most {max(until):.2f})"
    return f"{found}; the whole descent: {np.median([e['seconds'] for e in table]):.2f}"


PRESETS = Comparison(
    "presets", {name: {"settings": name} for name in ("code", "fast")}, in_less_time, __doc__
)


def compare(experiment: Experiment, comparison: Comparison = PRESETS) -> Path:
    """Invert all, print a line for each, write the table and the sheet, and return the sheet."""
    assert isinstance(experiment, Fig3)
    run = Run(experiment)
    picture = run.named(experiment.pictures)[0].picture
    layers, filters = [name for name, _ in run.layers(experiment.layers)], experiment.filters
    places = [(layer, index) for layer in layers for index in filters]
    pairs: Dict[str, Pair] = {}
    table: Table = []
    with tqdm(places, comparison.name, unit="filter", disable=None) as bar:
        for layer, index in bar:
            found = pair(run, comparison, picture, layer, index)
            pairs[f"{layer} {index}"] = found
            table.append({"layer": layer, "filter": index, **shares(found)})
            tqdm.write(
                "{layer} filter {filter}: loss {loss:.4f}, time {seconds:.2f}".format(**table[-1])
            )
    tqdm.write(comparison.summary(table))
    stem = run.results / comparison.name
    files.save_json(stem.with_suffix(".json"), table)
    rows = [(layer, name) for layer in layers for name in comparison.options]
    panels = [
        [np.asarray(pairs[f"{layer} {index}"][name].image) for index in filters]
        for layer, name in rows
    ]
    titles = [f"{layer} {name}" for layer, name in rows]
    block = sheets.Block(panels, titles, [str(index) for index in filters])
    return sheets.save(sheets.sheet([block]), stem)[0]


def measure(words: Sequence[str]) -> Table:
    """Return :func:`shares` for some panels of Fig. 3, in the words of ``make fig3``."""
    experiment = read(FIG3, words)
    assert isinstance(experiment, Fig3)
    run = Run(experiment)
    picture = run.named(experiment.pictures)[0].picture
    places = [(name, f) for name, _ in run.layers(experiment.layers) for f in experiment.filters]
    return [shares(pair(run, PRESETS, picture, layer, index)) for layer, index in places]


def main(arguments: Sequence[str], comparison: Comparison = PRESETS) -> int:
    """Exit status 2 for a mistake in the input, 130 after Ctrl-C, when nothing is written."""
    if helped(arguments, comparison.about):
        return 0
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    try:
        run = read(FIG3, [f"RESULTS=results/{comparison.name}", *arguments])
        sys.stdout.write(f"{compare(run, comparison)}\n")
    except FmiError as error:
        sys.stderr.write(f"{comparison.name}: {error}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write(f"{comparison.name}: interrupted; nothing has been written\n")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
