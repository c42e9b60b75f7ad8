"""Compute a few small panels of each figure again, and compare their numbers: ``make verify``.

    python -m experiments.verify [NETWORK ...] [--precision float32] [--write]

For each network that is here (embedded, vgg16-hed, vgg19), the panels of :data:`PANELS` are
computed and their numbers compared with experiments/expected/NETWORK.json, within the tolerances
that it states. The exit status is 1 if a number differs. ``--write`` replaces the expected numbers.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Sequence

import numpy as np

import fmi.invert
from experiments.compare import JUDGED
from experiments.outcome import finished
from fmi import codes, evidence, files, pictures
from fmi.device.environment import cpu_name
from fmi.errors import FmiError, InputError, unknown
from fmi.inversion import Inversion, versions
from fmi.networks import catalogue
from fmi.networks.base import Network

EXPECTED = Path(__file__).parent / "expected"
CONTENT, STYLE = (pictures.find(f"skimage:{name}", []) for name in ("coffee", "retina"))
SMALL = {"long_edge": 100, "steps": 40, "stop": 0, "ctx": "cpu"}
SHALLOW = ("relu1_1", "relu2_1", "relu3_1")
NETWORKS = {  # whether blocks 4 and 5 are verified: those of the exact VGG-19 were not at hand
    "embedded": True,
    "vgg16-hed": True,
    "vgg19": False,
}

Numbers = Dict[str, Optional[float]]


@dataclass(frozen=True)
class Panels:
    """Panels of a figure that one call computes.

    Attributes
    ----------
    name
        The figure and the function of :mod:`fmi.invert`.
    arguments
        Its arguments after the content picture.
    deep
        Whether a layer is in block 4 or 5.
    """

    name: str
    arguments: Mapping[str, Any]
    deep: bool = False


PANELS = (
    Panels("fig1 activations", {"layer": "relu2_2", "filter": 1}),
    Panels("fig3 feature_map", {"layer": "relu1_2", "filters": [0, 1], "chain": True}),
    Panels("fig3 feature_map", {"layer": "relu3_2", "filters": [2]}),
    Panels("fig3 feature_map", {"layer": "relu5_2", "filters": [0]}, deep=True),
    Panels("fig4 random", {"layer": "relu2_1", "draws": 2}),
    Panels("fig4 random", {"layer": "relu4_1", "draws": 1}, deep=True),
    Panels("fig5 purposeful", {"style": STYLE, "style_layers": SHALLOW}),
    Panels("fig5 gatys", {"style": STYLE, "style_layers": SHALLOW}),
)


def compute(network: Network, deep: bool, precision: str) -> Dict[str, Numbers]:
    """Return the numbers of all panels by name."""
    found: Dict[str, Numbers] = {}
    for panels in PANELS:
        if panels.deep and not deep:
            continue
        _, function = panels.name.split()
        options = {**panels.arguments, **SMALL, "network": network}
        if function == "activations":
            index = options.pop("filter")
            (code,) = fmi.invert.activations(CONTENT, **options).values()
            share = float(codes.energy_share(codes.energies(code), [index])[0])
            found[f"{panels.name} {options['layer']}:{index}"] = {"energy_share": share}
            continue
        made = getattr(fmi.invert, function)(CONTENT, **options, precision=precision)
        for one in finished(made if isinstance(made, list) else [made]):
            found[title(panels, one)] = numbers(one, network)
    return found


def title(panels: Panels, inversion: Inversion) -> str:
    """Return the name of a panel."""
    record = inversion.record
    which = [str(record[key]) for key in ("filter", "draw") if key in record]
    return ":".join([f"{panels.name} {panels.arguments.get('layer', '')}".strip(), *which])


def numbers(inversion: Inversion, network: Network) -> Numbers:
    """Return the numbers of a panel; the distance is that from the content picture."""
    panels = [np.asarray(inversion.image), pictures.read(CONTENT).pixels]
    return {
        "distance": float(evidence.distances(panels[:1], panels[1:], network, JUDGED)[0, 0]),
        "loss": inversion.loss[-1],
        "explained": inversion.explained,
        "energy_share": inversion.energy_share,
    }


def differences(
    found: Mapping[str, Numbers], expected: Mapping[str, Numbers], tolerances: Mapping[str, float]
) -> List[str]:
    """Return a line for each number that is not within its tolerance, or not there.

    The tolerance of a loss is relative, those of the other numbers are absolute.
    """
    lines = [f"{name}: not expected" for name in found if name not in expected]
    for name, wanted in expected.items():
        for key, value in wanted.items():
            other = found.get(name, {}).get(key)
            if value is None and other is None:
                continue
            size = abs(value) if key == "loss" and value is not None else 1.0
            within = (
                value is not None
                and other is not None
                and abs(other - value) <= tolerances[key] * size
            )
            if not within:
                lines.append(f"{name}: {key} is {other}, expected {value}")
    return lines


def load(name: str) -> Optional[Network]:
    """Return a network, or ``None`` if its weights are not here."""
    if name not in NETWORKS:
        raise unknown("network", name, NETWORKS)
    layers = [panels.arguments.get("layer", "relu3_1") for panels in PANELS if not panels.deep]
    try:
        return catalogue.load(weights=name, layers=layers)
    except InputError as error:
        sys.stderr.write(f"{name} is not verified: {error}\n")
        return None


def verify(name: str, network: Network, precision: str) -> List[str]:
    """Compare a network's panels, and print their numbers; return the differences."""
    expected = json.loads((EXPECTED / f"{name}.json").read_text())
    found = compute(network, NETWORKS[name], precision)
    for panel, values in found.items():
        sys.stdout.write(f"{name} {panel}: {shown(values)}\n")
    lines = differences(found, expected["panels"], expected["tolerances"])
    return [f"{name} {line}" for line in lines]


def shown(values: Numbers) -> str:
    """Return numbers as text."""
    return ", ".join(f"{key} {value:.4g}" for key, value in values.items() if value is not None)


def write(name: str, network: Network, precision: str) -> Path:
    """Compute a network's panels, write them as the expected ones, and return the file."""
    path = EXPECTED / f"{name}.json"
    before = json.loads(path.read_text())
    made = {"cpu": cpu_name(), "precision": precision, "versions": versions()}
    panels = {
        panel: {k: None if v is None else float(f"{v:.6g}") for k, v in values.items()}
        for panel, values in compute(network, NETWORKS[name], precision).items()
    }
    files.save_json(path, {**before, "made_with": made, "panels": panels})
    return path


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Verify the networks that are named, or all that are here.

    The exit status is 1 if a number differs, 2 for a mistake in the input, 130 after Ctrl-C.
    """
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("networks", nargs="*", metavar="NETWORK", help=", ".join(NETWORKS))
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--write", action="store_true", help="replace the expected numbers")
    chosen = parser.parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    lines: List[str] = []
    verified = 0
    try:
        for name in chosen.networks or list(NETWORKS):
            network = load(name)
            if network is None:
                if chosen.networks:
                    return 2
                continue
            verified += 1
            if chosen.write:
                sys.stdout.write(f"{write(name, network, chosen.precision)}\n")
            else:
                lines += verify(name, network, chosen.precision)
    except FmiError as error:
        sys.stderr.write(f"verify: {error}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write("verify: interrupted\n")
        return 130
    for line in lines:
        sys.stdout.write(f"DIFFERS: {line}\n")
    if not chosen.write:
        sys.stdout.write(f"{verified} networks verified, {len(lines)} numbers differ\n")
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
