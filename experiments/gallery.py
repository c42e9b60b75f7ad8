"""Draw the README's pictures into experiments/gallery/ as JPEG.

    python -m experiments.gallery [NAME ...]

Sheets are drawn as any figure is, into results/gallery/, where panels that are there are not
computed again. Those on the real VGG-19 need its weights and the paper's pictures.
"""

from __future__ import annotations

import argparse
import logging
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Tuple

from PIL import Image

from experiments import demo, presets
from fmi import files
from fmi.errors import FmiError, unknown
from fmi.runs import figures
from fmi.runs.experiment import Experiment, read

HERE = Path(__file__).parent
QUALITY = 82
REAL = ("WEIGHTS=vgg19", "PRECISION=bfloat16")
PANELS = "LAYERS=relu1_2,relu3_2,relu5_2"
SMALL = ("LONG_EDGE=112", "SETTINGS=fast")
SHALLOW = (*REAL, "LAYERS=relu1_2,relu2_2,relu3_2")


@dataclass(frozen=True)
class Sheet:
    """A picture of the README: which experiment, with what, how many pixels wide."""

    experiment: str
    overrides: Tuple[str, ...]
    width: int = 900
    draw: Callable[[Experiment], Path] = lambda run: figures.draw(run)[0]


SHEETS = {
    "embedded_fig3": Sheet("fig3", demo.overrides("embedded", "fig3")),
    "embedded_fig4": Sheet("fig4", demo.overrides("embedded", "fig4")),
    "embedded_fig5": Sheet("fig5", demo.overrides("embedded", "fig5"), 700),
    "hed_fig3": Sheet("fig3", demo.overrides(demo.PHOTOGRAPHS, "fig3")),
    "hed_fig4": Sheet("fig4", demo.overrides(demo.PHOTOGRAPHS, "fig4")),
    "hed_fig5": Sheet("fig5", demo.overrides(demo.PHOTOGRAPHS, "fig5"), 700),
    "vgg19_fig3": Sheet("fig3", (*REAL, "PICTURES=golden_gate")),
    "vgg19_fig3_anew": Sheet(
        "fig3",
        (*REAL, "PICTURES=golden_gate", "LAYERS=relu5_2", "FILTERS=3,4", "CODE_WEIGHT=1"),
        700,
    ),
    "vgg19_fig3_eq2": Sheet("fig3", (*SHALLOW, "PICTURES=golden_gate", "CHAIN=0")),
    "vgg19_fig3_neckarfront": Sheet("fig3", (*REAL, "PICTURES=tubingen")),
    "vgg19_relu3_2": Sheet(
        "fig3",
        (*REAL, "PICTURES=skimage:coffee", "LAYERS=relu3_2", "FILTERS=0-59", "CHAIN=0", *SMALL),
    ),
    "vgg19_presets": Sheet(
        "fig3",
        (*REAL, "PICTURES=golden_gate", PANELS, "FILTERS=0,1,2", "LONG_EDGE=256"),
        draw=presets.compare,
    ),
    "vgg19_fig4": Sheet("fig4", REAL),
    "vgg19_fig5": Sheet("fig5", REAL, 900),
}


def draw(name: str) -> Path:
    """Draw one of :data:`SHEETS` and return its JPEG."""
    if name not in SHEETS:
        raise unknown("sheet", name, SHEETS)
    sheet = SHEETS[name]
    results = f"RESULTS=results/gallery/{name}"
    experiment = HERE / f"{sheet.experiment}.yaml"
    png = sheet.draw(read(experiment, (*sheet.overrides, results)))
    target = HERE / "gallery" / f"{name}.jpg"
    with Image.open(png) as image:
        height = round(image.height * sheet.width / image.width)
        small = image.convert("RGB").resize((sheet.width, height), Image.Resampling.LANCZOS)
    files.write_whole(
        target, lambda beside: small.save(beside, "JPEG", quality=QUALITY, optimize=True)
    )
    return target


def main() -> int:
    """Draw the sheets that are named, or all.

    The exit status is 2 if one cannot be drawn, 130 after Ctrl-C.
    """
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(SHEETS))
    names = parser.parse_args().names or list(SHEETS)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    status = 0
    for name in names:
        try:
            sys.stdout.write(f"{draw(name)}\n")
        except FmiError as error:
            sys.stderr.write(f"{name}: {error}\n")
            status = 2
        except KeyboardInterrupt:
            sys.stderr.write(f"{name}: interrupted; finished panels are kept\n")
            return 130
    return status


if __name__ == "__main__":
    sys.exit(main())
