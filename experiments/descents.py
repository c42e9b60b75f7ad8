"""Compare descents: after how many steps each reaches the last loss of preset "code".

    python -m experiments.descents WEIGHTS=vgg19 LONG_EDGE=256 --out results/descents

Inverts a feature map of each layer (first filter, chain off) and transfers a style (Eq. 5 and
Gatys) with each of :data:`DESCENTS`. The words are those of ``make fig3``. Prints a table, and
writes descents.json and descents.png with the losses of all steps.
"""

from __future__ import annotations

import argparse
import logging
import math
import sys
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from tqdm.auto import tqdm

from experiments.outcome import finished
from experiments.presets import reached
from fmi import files, invert, sheets
from fmi.errors import FmiError
from fmi.inversion import Inversion
from fmi.runs.experiment import Fig3, Fig5, read
from fmi.runs.figures import Run

HERE = Path(__file__).parent
STANDARD = "code"
# Keywords of each descent. In style transfer, "fast" is L-BFGS, whitened.
DESCENTS: Dict[str, Dict[str, Any]] = {
    STANDARD: {"settings": "code"},
    "momentum, scaled": {
        "settings": "fast",
        "descent": "momentum",
        "gradient": "scale",
        "warm_up": 0.0,
        "learning_rate": 3.0,
        "steps": 54,
    },
    "... and a warm-up": {"settings": "fast", "descent": "momentum", "gradient": "scale"},
    "... and whitened": {"settings": "fast", "descent": "momentum"},
    "L-BFGS": {"settings": "fast", "descent": "lbfgs", "gradient": "scale", "steps": 54},
    "L-BFGS, whitened": {"settings": "fast", "descent": "lbfgs", "steps": 54},
}
Curves = Dict[str, List[float]]  # losses of each descent


def shares(curves: Mapping[str, Sequence[float]]) -> Dict[str, float]:
    """Return the steps of each descent until the standard's last loss, over the standard's.

    It is NaN for a descent that does not reach it.
    """
    standard = curves[STANDARD]
    steps = {name: reached(losses, standard[-1]) for name, losses in curves.items()}
    return {name: n / len(standard) if n else float("nan") for name, n in steps.items()}


def told(curves: Mapping[str, Sequence[float]]) -> str:
    """Return the shares as text.

    Where the standard's last loss is not reached, the smallest loss over it is in brackets.
    """
    goal = curves[STANDARD][-1]
    return "; ".join(
        f"{name} {share:.2f}"
        if not math.isnan(share)
        else f"{name} ({min(curves[name]) / goal:.2f})"
        for name, share in shares(curves).items()
        if name != STANDARD
    )


def places(words: Sequence[str]) -> Dict[str, Callable[..., List[Inversion]]]:
    """Return the inversions to be made, by name: functions of the keywords of a descent."""
    fig3 = read(HERE / "fig3.yaml", words)
    fig5 = read(HERE / "fig5.yaml", [word for word in words if not word.startswith("LAYERS=")])
    assert isinstance(fig3, Fig3)
    assert isinstance(fig5, Fig5)
    run = Run(fig3)
    picture = run.named(fig3.pictures)[0].picture
    style = Run(fig5).named(fig5.styles, "styles")[0].picture
    options = {**run.options, "store": None, "seed": fig3.seed}

    def feature_map(layer: str) -> Callable[..., List[Inversion]]:
        return lambda **own: invert.feature_map(
            picture, layer, fig3.filters[0], **{**options, **own}
        )

    def transfer(name: str) -> Callable[..., List[Inversion]]:
        function = getattr(invert, name)
        return lambda **own: [function(picture, style, **{**options, **own})]

    layers = [name for name, _ in run.layers(fig3.layers)]
    return {
        **{f"{layer}:{fig3.filters[0]}": feature_map(layer) for layer in layers},
        **{name: transfer(name) for name in ("purposeful", "gatys")},
    }


def plot(all_curves: Mapping[str, Curves]) -> Figure:
    """Return a plot of the losses over the standard's last one."""
    figure = Figure(figsize=(3.2 * len(all_curves), 3.4), layout="constrained")
    for axes, (place, curves) in zip(
        np.ravel(figure.subplots(1, len(all_curves))), all_curves.items()
    ):
        goal = curves[STANDARD][-1]
        for name, losses in curves.items():
            best = np.minimum.accumulate(losses) / goal
            axes.plot(range(1, len(best) + 1), best, label=name)
        axes.axhline(1, color="black", linewidth=0.5)
        middle = curves[STANDARD][len(curves[STANDARD]) // 8] / goal
        axes.set(title=place, xlabel="step", ylim=(max(0, 1 - (middle - 1) * 0.5), middle))
    axes.legend()
    return figure


def main(arguments: Sequence[str]) -> int:
    """Compare; the exit status is 2 for a mistake in the input, 130 after Ctrl-C."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("words", nargs="*", help="as for make fig3, such as LONG_EDGE=256")
    parser.add_argument("--out", type=Path, default=Path("results/descents"))
    chosen = parser.parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    try:
        found = {}
        for place, function in places(chosen.words).items():
            found[place] = {
                name: finished(function(**own))[0].loss
                for name, own in tqdm(DESCENTS.items(), place, unit="descent", disable=None)
            }
            tqdm.write(f"{place} ({len(found[place][STANDARD])} steps): {told(found[place])}")
        files.save_json(chosen.out / "descents.json", found)
        with sheets.defaults():
            figure = plot(found)
            path = chosen.out / "descents.png"
            files.write_whole(path, lambda beside: figure.savefig(beside, format="png"))
        sys.stdout.write(f"{path}\n")
    except FmiError as error:
        sys.stderr.write(f"descents: {error}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write("descents: interrupted; nothing has been written\n")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
