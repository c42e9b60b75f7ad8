"""Panels: find the stored ones, and compute the missing ones.

A panel consists of a PNG, the PNG before denoising, and a JSON file with everything that is needed
to repeat it. The JSON file contains a key that depends on everything that affects the picture; a
panel that is stored with the same key is not computed again.
"""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Mapping, Optional, Sequence, Tuple

from tqdm.auto import tqdm

from fmi import invert, pictures
from fmi import settings as presets
from fmi.call import TRANSFERS
from fmi.inversion import versions
from fmi.runs.experiment import Experiment

__all__ = ["Found", "Job", "Panel", "check", "compute", "key", "stored_key"]

log = logging.getLogger(__name__)

Found = Sequence[invert.Inversion]


@dataclass(frozen=True)
class Panel:
    """One picture of a figure.

    Attributes
    ----------
    stem
        Path of its files in the results folder, without suffix.
    place
        Arguments that distinguish it from other panels of its job, such as ``{"filter": 3}``.
    """

    stem: str
    place: Mapping[str, Any]


@dataclass(frozen=True)
class Job:
    """Panels that one call of a function of :mod:`fmi.invert` computes."""

    function: str
    sources: Mapping[str, Path]  # picture / content / style -> file
    layers: Tuple[str, ...]  # all layers that the network must have
    panels: Tuple[Panel, ...]
    call: Callable[[Sequence[Panel]], Found]
    together: bool = False  # if one panel is missing, compute all of them

    @property
    def section(self) -> Optional[str]:
        """The section of the settings for style transfer that it needs, if any."""
        return self.function if self.function in TRANSFERS else None


def key(run: Experiment, job: Job, panel: Panel) -> str:
    """Return a digest of everything that the panel depends on."""
    content = {
        "function": job.function,
        "layers": job.layers,
        "place": dict(panel.place),
        "settings": presets.as_dict(run.settings(job.section), job.section),
        "seed": run["seed"],
        "precision": run["precision"],
        "device": str(run["ctx"]),
        "network": run.network.describe() if run.network else None,
        "pictures": {role: pictures.read(path).sha256 for role, path in job.sources.items()},
        "versions": versions(),
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def stored_key(results: Path, panel: Panel) -> Optional[str]:
    """Return the key of a stored panel, or ``None`` if one of its files is missing."""
    stem = results / panel.stem
    try:
        record = json.loads(stem.with_suffix(".json").read_text(encoding="utf-8"))
        complete = stem.with_suffix(".png").is_file() and _undenoised(stem).is_file()
        return str(record["key"]) if complete else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _undenoised(stem: Path) -> Path:
    return stem.with_name(f"{stem.name}_undenoised.png")


def check(run: Experiment, job: Job) -> None:
    """Check a job before anything is computed.

    Raises
    ------
    InputError
        If a picture is too small for its layers, or a layer lacks a filter.
    """
    assert run.network is not None
    settings = run.settings(job.section)
    for path in job.sources.values():
        picture = pictures.read(path)
        size = pictures.fitted(picture.pixels, settings.long_edge)
        run.network.check_size(job.layers, *size, picture.name)
    if job.function == "feature_map":
        run.network.check_filters([p.place["filter"] for p in job.panels], job.layers[0])


def compute(run: Experiment, jobs: Sequence[Job]) -> None:
    """Compute and save the missing panels.

    Raises
    ------
    KeyboardInterrupt
        After Ctrl-C, when all finished panels have been saved.
    """
    for job in jobs:
        check(run, job)
    plan = []
    for job in jobs:
        keys = {panel.stem: key(run, job, panel) for panel in job.panels}
        missing = [p for p in job.panels if stored_key(run.results, p) != keys[p.stem]]
        plan.append((job, keys, list(job.panels) if missing and job.together else missing))
    panels = sum(len(job.panels) for job in jobs)
    missing_panels = sum(len(missing) for _, _, missing in plan)
    log.info("%s: %d of %d panels to compute", run.figure, missing_panels, panels)
    with tqdm(total=missing_panels, desc=run.figure, unit="panel", disable=None) as bar:
        for job, keys, missing in plan:
            if not missing:
                continue
            found = job.call(missing)
            for panel, inversion in zip(missing, found):
                if inversion.stopped == "interrupted":
                    raise KeyboardInterrupt
                path = run.results / f"{panel.stem}.png"
                inversion.save(path, undenoised=True, key=keys[panel.stem])
                log.info(
                    "%s: %d steps, %.0f s, stopped by %s",
                    path,
                    inversion.steps,
                    inversion.seconds,
                    inversion.stopped,
                )
                bar.update()
