"""``fmi layers``: the layers of a network, their channels, strides and receptive fields."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any, Dict, List

from fmi.errors import InputError

__all__ = ["add"]


def add(commands: Any) -> None:
    """Add the command."""
    layers = commands.add_parser("layers", help="list the layers of a network")
    layers.add_argument(
        "network",
        nargs="?",
        default="auto",
        help="such as vgg19, embedded, resnet18_v1, net-symbol.json, or a weights file",
    )
    layers.add_argument("--weights", default="auto", help="file with the parameters of the network")
    layers.add_argument(
        "--size", type=int, default=224, metavar="N", help="size of the picture, N x N pixels (224)"
    )
    layers.add_argument("--json", action="store_true", help="print JSON")
    layers.set_defaults(run=_layers)


def _layers(chosen: argparse.Namespace) -> int:
    from fmi.networks import catalogue

    if chosen.size < 1:
        raise InputError(f"--size {chosen.size} is too small; it must be at least 1")
    network = catalogue.outline(chosen.network, chosen.weights)
    rows = network.table(chosen.size, chosen.size)
    if chosen.json:
        text = json.dumps({"network": network.describe(), "layers": rows}, indent=1)
    else:
        text = _text(rows, chosen.size)
    sys.stdout.write(f"{text}\n")
    return 0


def _text(rows: List[Dict[str, Any]], side: int) -> str:
    width = max(len("layer"), *(len(row["name"]) for row in rows))
    lines = [
        f"{'layer':{width}}  kind           channels  stride  receptive field  "
        f"size at {side} x {side}  values"
    ]
    for row in rows:
        size = "too small" if row["size"] is None else "{} x {}".format(*row["size"][::-1])
        sign = "any" if row["negative"] else "from 0"
        lines.append(
            f"{row['name']:{width}}  {row['kind']:13}  {row['channels']:8d}  {row['stride']:6d}"
            f"  {row['receptive_field']:15d}  {size:>{len(f'size at {side} x {side}')}}  {sign}"
        )
    return "\n".join(lines)
