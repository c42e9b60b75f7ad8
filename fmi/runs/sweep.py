"""Sweeps: feature map inversion of all filters of layers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import List, Union

from typing_extensions import Literal

from fmi import checks, request
from fmi.networks.base import split_filters
from fmi.runs import store
from fmi.runs.experiment import Experiment
from fmi.runs.figures import Run

__all__ = ["Panel", "Sweep", "panels"]


class Sweep(Experiment):
    """Feature map inversion of some filters of some layers."""

    figure: Literal["sweep"]
    layers: checks.Names
    filters: Union[Literal["all"], checks.Numbers]

    @property
    def layer_names(self) -> List[str]:
        """The layers without filters."""
        return [split_filters(text)[0] for text in self.layers]


@dataclass(frozen=True)
class Panel:
    """A panel of a sweep, and the name of its result in the store."""

    layer: str
    filter: int
    picture: str
    key: str


def panels(run: Run) -> List[Panel]:
    """Return all panels of a sweep in order; nothing is computed."""
    found = []
    experiment = run.experiment
    assert isinstance(experiment, Sweep)
    options = {**run.options, "seed": experiment.seed}
    for one in run.named(experiment.pictures):
        for layer, _ in run.layers(experiment.layers):
            count = run.network.layer(layer).channels
            chosen = range(count) if experiment.filters == "all" else experiment.filters
            filters = [int(index) for index in chosen]
            asked = request.feature_map(one.picture, layer, filters, False, None, options)
            found += [
                Panel(layer, index, one.label, store.key(record))
                for index, record in zip(filters, asked.records)
            ]
    return found
