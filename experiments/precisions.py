"""Compare bfloat16 with float32: the final losses, the times and the pictures.

    python -m experiments.precisions PICTURES=golden_gate LAYERS=relu1_2,relu2_2,relu3_2

Inverts each filter of Fig. 3 (first picture, chain off) in both number formats, one after the
other, and prints the final loss and the time of bfloat16 as shares of those of float32. The words
are those of ``make fig3``. Writes precisions.json and a sheet of all pictures into
results/precisions/.
"""

from __future__ import annotations

import sys

import numpy as np

from experiments.presets import Comparison, Table, main


def farthest(table: Table) -> str:
    """Return by how much the final losses differ at most."""
    off = max(abs(entry["loss"] - 1) for entry in table)
    middle = np.median([entry["seconds"] for entry in table])
    return f"final losses differ by at most {off:.3%}; median time {middle:.2f}"


PRECISIONS = Comparison(
    "precisions",
    {name: {"precision": name} for name in ("float32", "bfloat16")},
    farthest,
    __doc__,
)

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], PRECISIONS))
