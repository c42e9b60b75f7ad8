"""Keywords of the public functions for type checkers and editors; from fmi/signatures.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Optional, Tuple, TypedDict, Union

from fmi import descent
from fmi.call import Init
from fmi.device.mxnet import Context
from fmi.device.precision import Precision
from fmi.inversion import Keeper
from fmi.networks.base import Input
from fmi.networks.weights import Weights
from fmi.pictures import Source
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
    precision: Union[str, Precision]
    memory: float
    progress: Optional[bool]
    callback: Optional[descent.Callback]
    mask: Optional[Source]
    preserve_color: bool
    store: Optional[Keeper]
    snapshot: Union[None, str, Path]
    pool: Optional[Literal["avg", "max"]]
    pool_rounding: Optional[Literal["up", "down"]]
    long_edge: Optional[int]
    resize_mode: Optional[Literal["constant", "edge", "symmetric", "reflect", "wrap"]]
    anti_aliasing: Optional[bool]
    content_scale: Optional[float]
    style_scale: Optional[float]
    style_size: Optional[Literal["content", "own"]]
    shares: Optional[Literal["normal", "simplex"]]
    code_weight: Optional[float]
    steps: Optional[Optional[int]]
    stop: Optional[float]
    learning_rate: Optional[float]
    momentum: Optional[float]
    last_momentum: Optional[float]
    descent: Optional[Optional[Literal["momentum", "lbfgs"]]]
    gradient: Optional[Literal["clip", "scale", "whiten"]]
    clip: Optional[float]
    schedule: Optional[Literal["steps", "cosine"]]
    warm_up: Optional[float]
    decay: Optional[float]
    decay_every: Optional[int]
    weight_decay: Optional[float]
    total_variation: Optional[float]
    jitter: Optional[int]
    start: Optional[float]
    denoise: Optional[float]
    batch: Optional[int]


class SeededKeywords(Keywords, total=False):
    """The same, and the seed."""

    seed: int


class TransferKeywords(SeededKeywords, total=False):
    """Those of style transfer."""

    content_layer: Optional[str]
    style_layers: Optional[Tuple[str, ...]]
    alpha: Optional[float]
    beta: Optional[float]
