"""Presets of all values that affect a picture, with the source of each value.

``CODE`` reproduces the authors' published code of 2016 (github.com/xzqjack/FeatureMapInversion),
which drew the published figures. ``PAPER`` follows the text of arXiv 1608.04170; values that the
text does not specify are those of CODE. ``FAST`` has the objective of CODE and a faster descent.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Dict, Mapping, Optional, Tuple, Union

import yaml

from fmi.errors import InputError, unknown

__all__ = [
    "AT_LEAST_ONE",
    "CHOICES",
    "CODE",
    "DEFAULT",
    "FAST",
    "PAPER",
    "POSITIVE",
    "PRESETS",
    "STYLE_LAYERS",
    "Settings",
    "Transfer",
    "Weighting",
    "as_dict",
    "field_names",
    "overridable",
    "override",
    "preset",
    "read_yaml",
]


@dataclass(frozen=True)
class Weighting:
    """The weight of a squared difference: ``factor / (C**channels * (MN)**positions)``.

    C is the number of feature maps of the layer, MN the number of positions of each.
    """

    factor: float
    channels: int = 0
    positions: int = 0

    def __call__(self, channels: int, positions: int) -> float:
        """Return the weight for a layer of `channels` feature maps with `positions` positions."""
        return self.factor / (channels**self.channels * float(positions) ** self.positions)


@dataclass(frozen=True)
class Transfer:
    """Settings of style transfer: Eq. 5, or the loss of Gatys et al. as its baseline.

    The loss is ``alpha * content(C, MN) * ||F - P||^2`` at `content_layer` plus
    ``beta * style(C, MN) * ||S - T||^2`` summed over `style_layers`, where S and T are the sums
    of the feature maps (Eq. 5) or the Gram matrices (Gatys).
    """

    content_layer: str
    style_layers: Tuple[str, ...]
    alpha: float
    beta: float
    content: Weighting
    style: Weighting
    weight_decay: float

    @property
    def layers(self) -> Tuple[str, ...]:
        """All layers that are needed."""
        return (self.content_layer, *self.style_layers)


@dataclass(frozen=True)
class Settings:
    """All hyper-parameters of an inversion. Lengths are pixels, colours RGB on the 0-255 scale."""

    preset: str
    pool: str  # "avg" or "max"
    long_edge: int  # a picture is resized so that its longer side has this many pixels
    resize_mode: str  # skimage.transform.resize's `mode`
    anti_aliasing: bool
    content_scale: float  # value of white in the content picture
    style_scale: float  # value of white in the style picture
    style_size: str  # "content": warped to the size of the content; "own": aspect ratio kept
    shares: str  # distribution of v in Eq. 3: "normal" or "simplex"
    code_weight: float  # factor of ||F - T||^2
    purposeful: Transfer
    gatys: Transfer
    steps: int  # maximum number
    stop: float  # stop when the relative change of the picture in a step is below; 0: never
    learning_rate: float
    momentum: float
    last_momentum: float  # the momentum changes linearly to this value over all steps
    gradient: str  # "clip": each element is clipped to +-clip; "scale": scaled to one size
    clip: float  # the limit, or the root mean square of the scaled gradient
    schedule: str  # "steps": stepwise decay; "cosine": half a cosine wave that ends at 0
    decay: float  # for "steps", the factor of the learning rate ...
    decay_every: int  # ... and the number of steps between decays
    weight_decay: float  # applied to the difference of the picture from the mean colour
    start: float  # the initial picture is uniform in +-start around the mean colour
    denoise: float  # weight of total variation denoising (Chambolle) when saving; 0: none
    batch: int  # pictures per batch; 0: as many as fit into half of the free memory


STYLE_LAYERS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")  # paper, section 3.3

# The source of every value is the 2016 code (file: function or argument) unless noted otherwise.
CODE = Settings(
    preset="code",
    pool="avg",  # model_vgg19_*.py: pool_type="avg", 2x2/2, size rounded down
    long_edge=512,  # vis_invert.py: --max-long-edge; small pictures are enlarged
    resize_mode="constant",  # utils.py: the defaults of skimage.transform.resize in 2016 ...
    anti_aliasing=False,  # ... bilinear, zero padding, no smoothing
    content_scale=256.0,  # utils.py: PreprocessContentImage
    style_scale=255.0,  # utils.py: PreprocessStyleImage
    style_size="content",  # utils.py: PreprocessStyleImage; also the caption of Fig. 5
    shares="normal",  # utils.py: ModifyCode, normal(3, 1e3) divided by its sum
    code_weight=0.5,  # vis_invert.py: the gradient is F - T
    purposeful=Transfer(
        content_layer="relu2_2",  # model_vgg19_style.py; paper, section 3.3
        style_layers=STYLE_LAYERS,
        alpha=10.0,  # vis_style.py: --content-weight; paper, section 3.1
        beta=1.0,  # vis_style.py: --style-weight; paper, section 3.1
        content=Weighting(1 / 2, positions=1),  # vis_style.py: the gradient is (F - P) / MN
        style=Weighting(1 / 2, channels=1, positions=1),  # utils.py: get_style_grad
        weight_decay=5e-3,  # vis_style.py
    ),
    gatys=Transfer(
        content_layer="relu2_2",
        style_layers=STYLE_LAYERS,
        alpha=10.0,
        beta=1.0,
        content=Weighting(1 / 2),  # vis_style.py: the gradient is F - P, not normalised
        style=Weighting(1 / 4, channels=2, positions=1),  # utils.py: get_style_grad
        weight_decay=5e-3,
    ),
    steps=1000,  # vis_invert.py: --max-num-epochs
    stop=0.005,  # vis_invert.py: --stop-eps
    learning_rate=0.1,  # vis_invert.py: --lr
    momentum=0.9,  # vis_invert.py: mx.optimizer.SGD
    last_momentum=0.9,  # constant momentum
    gradient="clip",
    clip=10.0,
    schedule="steps",
    decay=0.9,  # vis_invert.py: mx.lr_scheduler.FactorScheduler
    decay_every=10,
    weight_decay=5e-4,
    start=0.1,  # vis_invert.py: mx.rnd.uniform
    denoise=0.2,  # vis_invert.py: --remove-noise
    batch=0,  # not in the 2016 code, which computes one picture at a time
)

# Only values that differ in the text of the paper.
PAPER = replace(
    CODE,
    preset="paper",
    resize_mode="reflect",  # not specified; zero padding with smoothing would darken the border
    anti_aliasing=True,  # not specified; avoids aliasing
    content_scale=255.0,  # not specified; as in the training of VGG
    style_size="own",  # Eq. 5: M^s N^s differs from M^c N^c
    shares="simplex",  # section 2.2: v_c >= 0, sum 1
    code_weight=1.0,  # Eq. 1 and 4
    purposeful=replace(
        CODE.purposeful,
        content=Weighting(1.0),  # Eq. 5
        style=Weighting(1.0),  # Eq. 5
    ),
    gatys=replace(
        CODE.gatys,
        content_layer="relu4_2",  # Gatys et al., CVPR 2016, section 3
        alpha=1.0,  # Gatys et al. 2016: alpha/beta = 1e-3, each layer's weight 1/5
        beta=1e3 / len(STYLE_LAYERS),
        style=Weighting(1 / 4, channels=2, positions=2),  # Gatys et al. 2016, Eq. 4
    ),
)

# The objective of CODE in fewer steps. Measured on the panels of Fig. 3 for the Golden Gate Bridge,
# filters 0-4 of relu1_2, relu2_2 and relu3_2 of VGG-19, at 512 pixels in bfloat16, where CODE needs
# 112 to 194 steps (python -m experiments.presets).
FAST = replace(
    CODE,
    preset="fast",
    steps=54,  # measured: 52 miss the loss of CODE on two panels, by .02 and .06 %
    stop=0.0,  # the schedule determines the end
    learning_rate=3.0,  # measured: with 2, the loss is up to .1 % higher at relu2_2
    momentum=0.85,
    last_momentum=0.6,  # measured: constant .75 is up to .1 % higher, .75 to .9 up to .6 %
    gradient="scale",  # measured: signs (the effect of clipping) are .3 to 1.4 % higher
    schedule="cosine",  # measured: slightly faster at relu1_2 than linear decay
)

DEFAULT = "code"  # for networks whose activations are as large as those of Caffe's VGG
PRESETS = {"code": CODE, "paper": PAPER, "fast": FAST}

CHOICES = {
    "pool": ("avg", "max"),
    "style_size": ("content", "own"),
    "shares": ("normal", "simplex"),
    "gradient": ("clip", "scale"),
    "schedule": ("steps", "cosine"),
    "resize_mode": ("constant", "edge", "symmetric", "reflect", "wrap"),
}
AT_LEAST_ONE = ("long_edge", "steps", "decay_every")
POSITIVE = ("learning_rate", "clip", "content_scale", "style_scale", "decay")


def preset(settings: Union[str, Settings]) -> Settings:
    """Return a preset by its name; :class:`Settings` are returned as is.

    Raises
    ------
    InputError
        If the preset does not exist.
    """
    if isinstance(settings, Settings):
        return settings
    if settings not in PRESETS:
        raise unknown("settings", settings, PRESETS)
    return PRESETS[settings]


def override(
    settings: Settings, values: Mapping[str, Any], section: Optional[str] = None
) -> Settings:
    """Replace single values of `settings`, after converting them to the type of their field.

    Parameters
    ----------
    settings
        Settings with the other values.
    values
        Values by field name. Text, as from the command line, is converted.
    section
        ``"purposeful"`` or ``"gatys"``, to accept the fields of this :class:`Transfer` too. Its
        weight decay is used for the descent.

    Raises
    ------
    InputError
        If a field is unknown or a value is not valid.
    """
    transfer = getattr(settings, section) if section else None
    for name, value in values.items():
        if transfer is not None and name in field_names(Transfer):
            transfer = replace(transfer, **{name: _fit(name, value, getattr(transfer, name))})
        elif name in overridable():
            settings = replace(settings, **{name: _fit(name, value, getattr(settings, name))})
        else:
            known = overridable() + (overridable(Transfer) if transfer is not None else ())
            raise unknown("setting", name, known)
    if section and transfer is not None:
        settings = replace(settings, **{section: transfer, "weight_decay": transfer.weight_decay})
    return settings


def field_names(cls: type) -> Tuple[str, ...]:
    """Return the names of the fields of a dataclass, in order."""
    return tuple(field.name for field in dataclasses.fields(cls))


def overridable(cls: type = Settings) -> Tuple[str, ...]:
    """Return the names of the fields with a single value, which can be keywords."""
    nested = ("preset", "purposeful", "gatys", "content", "style")
    return tuple(name for name in field_names(cls) if name not in nested)


def _fit(name: str, value: Any, like: Any) -> Any:
    """Convert `value` to the type of `like`, and check that it is valid for `name`."""
    try:
        if isinstance(like, bool):
            fitted: Any = _boolean(value)
        elif isinstance(like, tuple):
            fitted = tuple(value.split(",") if isinstance(value, str) else value)
        elif isinstance(like, int) and isinstance(value, float) and value != int(value):
            raise ValueError
        else:
            fitted = type(like)(value)
    except (TypeError, ValueError):
        raise InputError(f"{name}={value!r} must be a {_kind(like)}, such as {like!r}") from None
    if name in CHOICES and fitted not in CHOICES[name]:
        raise unknown(name, fitted, CHOICES[name])
    if name in AT_LEAST_ONE and fitted < 1:
        raise InputError(f"{name}={value!r} must be at least 1")
    if isinstance(fitted, (int, float)) and not 0 <= fitted < float("inf"):
        raise InputError(f"{name}={value!r} must be a finite number that is not negative")
    if name in POSITIVE and fitted == 0:
        raise InputError(f"{name}={value!r} must be positive")
    return fitted


def _kind(like: Any) -> str:
    kinds = {bool: "truth value", int: "whole number", float: "number", tuple: "list of layers"}
    return kinds.get(type(like), "word")


def _boolean(value: Any) -> bool:
    words = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}
    if str(value).lower() not in words:
        raise ValueError(value)
    return words[str(value).lower()]


def as_dict(settings: Settings, section: Optional[str] = None) -> Dict[str, Any]:
    """Return the settings as plain data, with style transfer only if it is `section`."""
    values = dataclasses.asdict(settings)
    transfer = {name: values.pop(name) for name in ("purposeful", "gatys")}
    return {**values, **(transfer[section] if section else {})}


def read_yaml(path: Union[str, Path]) -> Dict[str, Any]:
    """Read a mapping from a YAML file.

    Raises
    ------
    InputError
        If the file is missing, is not valid YAML, or does not contain a mapping.
    """
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"{path} cannot be read: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise InputError(f"{path} must contain a mapping of 'key: value' lines")
    return content
