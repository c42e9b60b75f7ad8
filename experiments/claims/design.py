"""The design: which filters, pictures, starts and controls the claims are measured over."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import List, Optional, Sequence, cast

import numpy as np
from typing_extensions import Annotated, Literal

from fmi import checks
from fmi.networks.base import split_filters
from fmi.runs import experiment
from fmi.runs.experiment import Experiment

__all__ = ["FILE", "Design", "drawn", "read"]

FILE = Path(__file__).parents[1] / "claims.yaml"
Count = Annotated[checks.Count, checks.FromText]


class Design(Experiment):
    """What the claims are measured over.

    Attributes
    ----------
    layers
        Names of layers, from the first to the last.
    n
        Number of filters of each layer, drawn with the seed.
    k
        Number of content pictures, the first of `pictures`.
    starts
        Number of initial pictures of noise.
    control_starts
        Number of initial pictures for the controls.
    draws
        Number of draws of Eq. 3 for each layer and picture.
    styles
        Names or paths of style pictures, for Fig. 5.
    claims
        Numbers of the claims to measure; ``None`` means all.
    photos
        Folder of photographs for natural crops; ``None`` means those of scikit-image and
        scikit-learn.
    textures
        Folder of labelled textures, with a folder for each class.
    """

    figure: Literal["claims"]
    layers: checks.Names
    n: Count
    k: Count
    starts: Count
    control_starts: Count
    draws: Count
    styles: checks.Names
    claims: Optional[checks.Numbers] = None
    photos: Optional[checks.Text] = None
    textures: Optional[checks.Text] = None

    @property
    def layer_names(self) -> List[str]:
        """The layers without filters."""
        return [split_filters(text)[0] for text in self.layers]


def read(overrides: Sequence[str] = (), path: Path = FILE) -> Design:
    """Read the design, with ``KEY=VALUE`` overrides.

    Raises
    ------
    InputError
        As for :func:`fmi.runs.experiment.read`.
    """
    return cast(Design, experiment.read(path, overrides, {"claims": Design}))


def drawn(layer: str, channels: int, number: int, seed: int) -> np.ndarray:
    """Draw filters of a layer without repetition, (min(number, channels),) in ascending order."""
    random = np.random.RandomState([seed, zlib.crc32(layer.encode())])
    return np.sort(random.permutation(channels)[:number])
