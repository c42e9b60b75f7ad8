"""Keywords of the public functions for type checkers and editors; from fmi/signatures.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Optional, Tuple, TypedDict, Union

from fmi import descent
from fmi.call import Init
from fmi.device.mxnet import Context
from fmi.networks.base import Input
from fmi.networks.weights import Weights
from fmi.settings import Settings

__all__ = ["Keywords", "SeededKeywords", "TransferKeywords"]


class Keywords(TypedDict, total=False):
    """Keywords of all functions."""

    network: Any
    weights: Union[str, Path, Weights]
    input: Union[None, str, Input]
    settings: Union[None, str, Settings]
    init: Init
    ctx: Union[None, str, Context]
    precision: str
    progress: Optional[bool]
    callback: Optional[descent.Callback]
    pool: str
    long_edge: int
    resize_mode: str
    anti_aliasing: bool
    content_scale: float
    style_scale: float
    style_size: str
    shares: str
    code_weight: float
    steps: int
    stop: float
    learning_rate: float
    momentum: float
    last_momentum: float
    gradient: str
    clip: float
    schedule: str
    decay: float
    decay_every: int
    weight_decay: float
    start: float
    denoise: float
    batch: int


class SeededKeywords(Keywords, total=False):
    """The same, and the seed."""

    seed: int


class TransferKeywords(SeededKeywords, total=False):
    """Those of style transfer."""

    content_layer: str
    style_layers: Tuple[str, ...]
    alpha: float
    beta: float
