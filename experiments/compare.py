"""Compare our panels with the figures that the authors published.

    python -m experiments.compare fig3 results/fig3/golden_gate feature_map_golden_gate.png
    python -m experiments.compare fig4 results/fig4/golden_gate fig4.png --content golden_gate
    python -m experiments.compare fig5 results/fig5 fig5.png

For Fig. 3 and 5: the distance (fmi.evidence) of each panel to its published one, which published
panel is the nearest, and in Fig. 5 the structural similarity to its own, with which it shares the
content. The draws of Fig. 4 cannot be the published ones: for each layer, how much of the content
picture is kept, in our panels and in theirs. Beside it stands what the descent reached.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict, astuple, dataclass
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

import numpy as np

from experiments.published import SHEETS, Panels, ours
from fmi import evidence, files, pictures
from fmi.errors import FmiError, InputError
from fmi.evidence import Kept, kept
from fmi.networks import catalogue
from fmi.networks.base import Network
from fmi.sources import table

JUDGED = ("relu1_1", "relu2_1")  # layers whose Gram matrices are compared


@dataclass(frozen=True)
class Reached:
    """What a descent reached, from the record beside a panel; ``None`` where that says nothing.

    Attributes
    ----------
    loss
        Loss before the last step.
    of_first
        The same as a share of the first loss.
    explained, energy_share
        As in :class:`fmi.inversion.Inversion`.
    """

    loss: Optional[float] = None
    of_first: Optional[float] = None
    explained: Optional[float] = None
    energy_share: Optional[float] = None

    @classmethod
    def of(cls, outcome: Mapping[str, Any], loss: Sequence[float]) -> Reached:
        """Return what the outcome in a record, and its losses, say."""
        return cls(
            outcome["final_loss"],
            outcome["final_loss"] / loss[0],
            outcome["explained"],
            outcome["energy_share"],
        )

    def __str__(self) -> str:
        share = "" if self.energy_share is None else f", {self.energy_share:.0%} of the energy"
        if self.loss is None or self.of_first is None or self.explained is None:
            return ""
        return (
            f"; loss {self.loss:.2g} ({self.of_first:.1%}), explained {self.explained:.2f}{share}"
        )


@dataclass(frozen=True)
class Row:
    """A panel beside the published ones.

    Attributes
    ----------
    panel
        Its name.
    distance
        Distance to its published one.
    nearest
        Name of the published panel that is the nearest.
    ssim
        Structural similarity to its published one.
    reached
        What the descent reached.
    """

    panel: str
    distance: float
    nearest: str
    ssim: float
    reached: Reached

    @property
    def own(self) -> bool:
        """Whether the nearest published panel is its own."""
        return self.nearest == self.panel

    def __str__(self) -> str:
        nearest = "" if self.own else f" NEARER {self.nearest}"
        return f"{self.panel}: {self.distance:.3f}{nearest}, SSIM {self.ssim:.2f}{self.reached}"


@dataclass(frozen=True)
class Content:
    """What a panel of Fig. 4 keeps of the content picture.

    Attributes
    ----------
    panel
        Its name.
    ours, published
        What our panel keeps, and the published one of that name.
    reached
        What the descent reached.
    """

    panel: str
    ours: Kept
    published: Kept
    reached: Reached = Reached()

    def __str__(self) -> str:
        one, other = self.ours, self.published
        return (
            f"{self.panel}: SSIM {one.ssim:.2f} (published {other.ssim:.2f}),"
            f" edges {one.edges:.2f} ({other.edges:.2f}),"
            f" colour {one.colour:.0f} ({other.colour:.0f}){self.reached}"
        )


def compare(
    mine: Panels, theirs: Panels, network: Network, reached: Optional[Dict[str, Reached]] = None
) -> List[Row]:
    """Return a row for each of our panels."""
    names = list(theirs)
    found = evidence.distances(list(mine.values()), list(theirs.values()), network, JUDGED)
    return [
        Row(
            name,
            float(row[names.index(name)]),
            names[int(row.argmin())],
            kept(panel, theirs[name]).ssim,
            (reached or {}).get(name, Reached()),
        )
        for (name, panel), row in zip(mine.items(), found)
    ]


def content_kept(
    mine: Panels, theirs: Panels, content: np.ndarray, reached: Dict[str, Reached]
) -> List[Content]:
    """Return what each of our panels of Fig. 4, and its published one, keep of the content."""
    return [
        Content(name, kept(panel, content), kept(theirs[name], content), reached[name])
        for name, panel in mine.items()
    ]


def records(folder: Path, names: Sequence[str]) -> Dict[str, Any]:
    """Return what the JSON files beside some panels hold; nothing if they cannot be read."""
    found: Dict[str, Any] = {}
    for name in names:
        try:
            found[name] = json.loads((folder / f"{name}.json").read_bytes())
        except (OSError, ValueError):
            found[name] = {}
    return found


def outcomes(found: Mapping[str, Any]) -> Dict[str, Reached]:
    """Return what the descents of some panels reached, from their records."""
    reached = {}
    for name, record in found.items():
        try:
            reached[name] = Reached.of(record["outcome"], record["loss"])
        except KeyError:  # of an older version, or not there
            reached[name] = Reached()
    return reached


def check_alike(folder: Path, found: Mapping[str, Any]) -> None:
    """Refuse panels in one folder that were drawn with different settings, networks or seeds.

    Raises
    ------
    InputError
        If two panels of the same function differ.
    """
    first: Dict[str, Tuple[str, Dict[str, Any]]] = {}
    for name, record in found.items():
        try:
            own = {
                **{key: record.get(key) for key in ("seed", "precision", "chain")},
                **record["settings"],
                "network": record["network"]["sha256"],
            }
            function = record["function"]
        except KeyError:
            continue
        other, before = first.setdefault(function, (name, own))
        unlike = sorted(key for key in {**own, **before} if own.get(key) != before.get(key))
        if unlike:
            raise InputError(
                f"{name} and {other} in {folder} were drawn with different {', '.join(unlike)}:"
                " draw the figure once more, into a folder of its own (RESULTS=)"
            )


def summary(rows: Sequence[Row], rivals: int) -> str:
    """Return how many panels are nearest to their own, and the median distance."""
    own = sum(row.own for row in rows)
    middle = np.median([row.distance for row in rows])
    return f"nearest to its own of {rivals}: {own} of {len(rows)}; median {middle:.3f}"


def by_layer(rows: Sequence[Content]) -> List[Content]:
    """Return the means over the draws of each layer."""
    layers: Dict[str, List[Content]] = {}
    for row in rows:
        layers.setdefault(row.panel.split("_draw")[0], []).append(row)
    return [
        Content(layer, mean([row.ours for row in some]), mean([row.published for row in some]))
        for layer, some in layers.items()
    ]


def mean(several: Sequence[Kept]) -> Kept:
    """Return the mean of each number."""
    return Kept(*np.mean([astuple(one) for one in several], axis=0).tolist())


def main() -> int:
    """Print the table; the exit status is 2 for a mistake in the input."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("figure", choices=list(SHEETS))
    parser.add_argument("folder", type=Path, help="our panels, such as results/fig3/golden_gate")
    parser.add_argument("published", type=Path, help="the published figure")
    parser.add_argument("--weights", default="vgg19", help="the network that measures (vgg19)")
    parser.add_argument("--content", default="golden_gate", help="the content picture of Fig. 4")
    parser.add_argument("--json", type=Path, help="a file to write the table to")
    chosen = parser.parse_args()
    try:
        sheet = SHEETS[chosen.figure]
        theirs, mine = sheet.read(chosen.published), ours(chosen.folder, sheet)
        found = records(chosen.folder, list(mine))
        check_alike(chosen.folder, found)
        reached = outcomes(found)
        rows: Sequence[Any]
        if chosen.figure == "fig4":
            content = pictures.read(pictures.find(chosen.content, table.folders("pictures")))
            rows = content_kept(mine, theirs, content.pixels, reached)
            end = "\n".join(map(str, by_layer(rows)))
        else:
            network = catalogue.load(weights=chosen.weights, layers=JUDGED)
            rows = compare(mine, theirs, network, reached)
            end = summary(rows, len(theirs))
        if chosen.json:
            files.save_json(chosen.json, [asdict(row) for row in rows])
    except FmiError as error:
        sys.stderr.write(f"compare: {error}\n")
        return 2
    sys.stdout.write("".join(f"{row}\n" for row in rows) + f"{end}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
