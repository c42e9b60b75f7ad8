"""Compare preset "fast" with preset "code".

    python -m experiments.presets PICTURES=golden_gate LAYERS=relu1_2,relu2_2,relu3_2

Inverts each filter of Fig. 3 (first picture, chain off) with both presets, one after the other, and
prints the final loss and the time of "fast" as shares of those of "code". The words are those of
``make fig3``. Writes presets.json and a sheet of all pictures into results/presets/.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any, Dict, List, Sequence

import numpy as np
from tqdm.auto import tqdm

from experiments.outcome import finished
from fmi import files, invert, sheets
from fmi.errors import FmiError
from fmi.pictures import Picture
from fmi.runs.experiment import Experiment, Fig3, read
from fmi.runs.figures import Run

NAMES = ("code", "fast")
Pair = Dict[str, invert.Inversion]


def pair(run: Run, picture: Picture, layer: str, index: int) -> Pair:
    """One filter's inversion with each preset, computed now so that the times can be compared."""
    options = {**run.options, "store": None, "seed": run.experiment.seed}
    found = {}
    for name in NAMES:
        (found[name],) = finished(
            invert.feature_map(picture, layer, index, **{**options, "settings": name})
        )
    return found


def shares(found: Pair) -> Dict[str, Any]:
    """Loss and seconds of preset "fast" over those of "code".

    Its key "reached" is the first step of "fast" that is not above the last loss of "code", or 0.
    """
    code, fast = (found[name] for name in NAMES)
    below = np.flatnonzero(np.array(fast.loss) <= code.loss[-1])
    return {
        "loss": fast.loss[-1] / code.loss[-1],
        "seconds": fast.seconds / code.seconds,
        "seconds_code": code.seconds,
        "steps_code": code.steps,
        "reached": int(below[0]) + 1 if below.size else 0,
    }


def compare(experiment: Experiment) -> Path:
    """Invert all, print a line for each, write the table and the sheet, and return the sheet."""
    assert isinstance(experiment, Fig3)
    run = Run(experiment)
    picture = run.named(experiment.pictures)[0].picture
    layers, filters = [name for name, _ in run.layers(experiment.layers)], experiment.filters
    places = [(layer, index) for layer in layers for index in filters]
    pairs: Dict[str, Pair] = {}
    table: List[Dict[str, Any]] = []
    with tqdm(places, "presets", unit="filter", disable=None) as bar:
        for layer, index in bar:
            found = pair(run, picture, layer, index)
            pairs[f"{layer} {index}"] = found
            table.append({"layer": layer, "filter": index, **shares(found)})
            tqdm.write(
                "{layer} filter {filter}: loss {loss:.4f}, time {seconds:.2f}".format(**table[-1])
            )
    good = sum(entry["loss"] <= 1 and entry["seconds"] <= 0.5 for entry in table)
    middle = np.median([entry["seconds"] for entry in table])
    tqdm.write(f"the same loss in half the time: {good} of {len(table)}; median time {middle:.2f}")
    stem = run.results / "presets"
    files.save_json(stem.with_suffix(".json"), table)
    rows = [(layer, name) for layer in layers for name in NAMES]
    panels = [
        [np.asarray(pairs[f"{layer} {index}"][name].image) for index in filters]
        for layer, name in rows
    ]
    titles = [f"{layer} {name}" for layer, name in rows]
    block = sheets.Block(panels, titles, [str(index) for index in filters])
    return sheets.save(sheets.sheet([block]), stem)[0]


def main(arguments: Sequence[str]) -> int:
    """Exit status 2 for a mistake in the input, 130 after Ctrl-C, when nothing is written."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    fig3 = Path(__file__).parent / "fig3.yaml"
    try:
        run = read(fig3, ["RESULTS=results/presets", *arguments])
        sys.stdout.write(f"{compare(run)}\n")
    except FmiError as error:
        sys.stderr.write(f"presets: {error}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write("presets: interrupted; nothing has been written\n")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
