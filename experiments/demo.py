"""Draw Figures 3, 4 and 5 in small into results/demo/, without any download: ``make demo``."""

from __future__ import annotations

import sys
from pathlib import Path

from fmi import cli

HERE = Path(__file__).parent
EMBEDDED = ("WEIGHTS=embedded", "PICTURES=skimage:coffee", "LONG_EDGE=256")
STYLES = "STYLES=skimage:hubble_deep_field,skimage:immunohistochemistry,skimage:retina"
FIGURES = {
    "fig3": (*EMBEDDED, "CHAIN=0"),
    "fig4": EMBEDDED,
    "fig5": (*EMBEDDED, STYLES, "DENOISE=0.05"),  # the preset's is made for 512 pixels
}


def main() -> int:
    """Draw them one after the other; the exit status is that of the first that fails."""
    for figure, overrides in FIGURES.items():
        results = f"RESULTS=results/demo/{figure}"
        status = cli.main(["draw", str(HERE / f"{figure}.yaml"), *overrides, results])
        if status:
            return status
    return 0


if __name__ == "__main__":
    sys.exit(main())
