"""The page docs/claims.md: what all networks say about the paper's claims.

It is made from the JSON files of the reports, so that nothing is computed for it.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import List, Optional, Sequence

from PIL import Image

from experiments.claims import plots
from experiments.claims.table import (
    Claim,
    Report,
    Verdict,
    escaped,
    markdown_facts,
    markdown_table,
    markdown_tables,
    summary,
    union,
)
from fmi import files
from fmi.errors import InputError
from fmi.runs.panels import distinct

__all__ = ["INTRODUCTION", "page", "save"]

INTRODUCTION = """\
# The paper's claims as numbers

The paper shows pictures and draws conclusions in sentences. `make claims` measures each sentence,
beside controls that could refute it, into `results/claims/`; this page is made from what it wrote.
It measures the embedded network; `make claims WEIGHTS=vgg19` chooses another one, `CLAIMS=1,2` some
of the sentences, `N=` the filters of a layer, `K=` the pictures, `STARTS=` and `CONTROL_STARTS=`
the initial pictures, `PHOTOS=` a folder of photographs, and `TEXTURES=` one with a folder for each
class.

## How to read it

A number such as `.43 [.38, .49]` is a value with its 95 % interval, from a bootstrap over filters
and pictures both. `chance` is what would come out without any effect, `n` is the number of filters
(or draws, pictures, classes, crops or pairs, where these are what is counted) behind a value, and
`-` stands for what could not be measured. Each sentence "holds", "holds in part" or "does not
hold"; what would change our mind about it was written down before these runs, after trials with a
few filters of the embedded network. The real VGG-19 measured here has exact blocks 1 to 3; blocks 4
and 5 come from an 8-bit copy ([its figures](paper.md)).

A number alone proves little, since much comes about without what the paper claims. So the line
`filters` stands above its controls:

- `untrained weights`: the same network with random weights (He et al. 2015), scaled so that its
  activations are as large as those of the trained one. What it shows too was not learnt.
- `random directions`: unit vectors in the space of channels in place of filters (Bau et al. 2017).
  What they show too is not a matter of single filters.
- `chained`: each filter's target made from the panel before, as in the published Figure 3, in place
  of Eq. 2.
- `activation maximisation`: the same descent, with the filter's mean activation as the objective in
  place of an inversion.
- `natural picture`: a photograph in place of a panel.

Panels are measured without denoising in claims 1 and 9, where they are given to the network again,
and so are the syntheses of claims 4 and 6; all else is measured as it is shown, slightly denoised.
In the plots the bars are the intervals, and the dashed grey line is chance.
"""
COLOURS = 96  # of a plot: those of its lines, and between them and the white
STRANGE = re.compile(r"[^A-Za-z0-9.-]+")  # characters that are not for the name of a file


def page(reports: Sequence[Report], folder: str) -> str:
    """Return the page as Markdown.

    Parameters
    ----------
    reports
        A report for each network, in the order of the columns.
    folder
        Folder of the plots relative to the page; :func:`save` writes both.

    Raises
    ------
    InputError
        If there is no report.
    """
    if not reports:
        raise InputError("the page of the claims needs a report; make claims writes one")
    stems = _stems(reports)
    facts = [
        f"### {escaped(report.facts.network.name)}\n\n{markdown_facts(report.facts)}"
        for report in reports
    ]
    parts = [INTRODUCTION.strip(), "## Summary", summary(reports).strip()]
    for claims in union(reports):
        first = next(claim for claim in claims if claim)
        parts += [
            f"## {escaped(f'{first.number}. {first.title}')}",
            f"> {escaped(first.sentence)}",
            f"What would change our mind: {escaped(first.criterion)}",
            _verdicts(reports, claims),
        ]
        for report, claim, stem in zip(reports, claims, stems):
            if claim and claim.rows:
                name = escaped(report.facts.network.name)
                parts += [f"### {name}: {claim.verdict.value}"]
                if plots.drawable(claim):
                    told = escaped(plots.alternative(report, claim))
                    parts.append(f"![{told}]({folder}/{stem}_{claim.number}.png)")
                parts.append(markdown_tables(claim, report.layers))
    return "\n\n".join([*parts, "## What was measured over", *facts]) + "\n"


def _verdicts(reports: Sequence[Report], claims: Sequence[Optional[Claim]]) -> str:
    """Return a table with a line for each network: verdict, finding and time."""
    lines = []
    for report, claim in zip(reports, claims):
        name = escaped(report.facts.network.name)
        if claim:
            taken = "" if claim.verdict is Verdict.UNMEASURED else f"{claim.seconds / 60:.1f} min"
            lines.append((name, f"**{claim.verdict.value}**", escaped(claim.finding), taken))
        else:
            lines.append((name, f"**{Verdict.UNMEASURED.value}**", "", ""))
    return markdown_table(("network", "", "measured", "time"), lines, 1)


def _stems(reports: Sequence[Report]) -> List[str]:
    """Return the beginnings of the names of the plots of each report."""
    return distinct([STRANGE.sub("_", r.facts.network.name)[:40] or "network" for r in reports])


def save(reports: Sequence[Report], path: Path) -> List[Path]:
    """Write the page and, into a folder beside it named like it, its plots; return their paths.

    Raises
    ------
    InputError
        If there is no report, or if a file cannot be written.
    """
    content = page(reports, path.stem)
    found = []
    for report, stem in zip(reports, _stems(reports)):
        found += plots.save(report, path.with_suffix(""), stem, ["png"])
    for plot in found:
        _reduce(plot)
    files.write_whole(path, lambda beside: beside.write_text(content, encoding="utf-8"))
    return [path, *found]


def _reduce(path: Path) -> None:
    """Reduce the colours of a plot, which makes its file a quarter as large."""
    with Image.open(path) as image:
        reduced = image.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
    files.write_whole(path, lambda beside: reduced.save(beside, format="PNG", optimize=True))
