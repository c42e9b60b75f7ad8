"""Presets of all values that affect a picture, with the source of each value.

``CODE`` reproduces the authors' published code of 2016 (github.com/xzqjack/FeatureMapInversion),
which drew the published figures. ``PAPER`` follows the text of arXiv 1608.04170; values that the
text does not specify are those of CODE, except for resizing and the value of white. ``FAST`` has
the objective of CODE and a faster descent.
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import replace
from typing import Any, Dict, Mapping, Optional, Tuple, Union

from pydantic import Field, ValidationError, field_validator
from pydantic.dataclasses import dataclass
from typing_extensions import Annotated, Literal

from fmi.checks import Names, number, refusal
from fmi.errors import InputError, shown, unknown

__all__ = [
    "CODE",
    "DEFAULT",
    "FAST",
    "PAPER",
    "PRESETS",
    "STYLE_LAYERS",
    "TRANSFERS",
    "UNMASKED",
    "Settings",
    "Transfer",
    "Weighting",
    "about",
    "as_dict",
    "field_names",
    "overridable",
    "override",
    "preset",
]

TRANSFERS = ("purposeful", "gatys")  # functions with their own section of the settings
UNMASKED = ("activations", "code", "maximise")  # functions that refuse a mask

# Larger values overflow float32, or give pictures of noise with any network. They keep mistakes
# such as 1e30 out; within them, a descent that diverges is stopped.
Positive = Annotated[float, Field(gt=0, le=1e12, allow_inf_nan=False)]
Factor = Annotated[float, Field(ge=0, le=1e12, allow_inf_nan=False)]
Colour = Annotated[float, Field(gt=0, le=1e4, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]
Steps = Annotated[int, Field(ge=1, le=1_000_000)]
Optimiser = Literal["momentum", "lbfgs"]


@dataclass(frozen=True)
class Weighting:
    """The weight of a squared difference: ``factor / (C**channels * (MN)**positions)``.

    C is the number of feature maps of the layer, MN the number of positions of each.
    """

    factor: float
    channels: int = 0
    positions: int = 0

    def __call__(self, channels: int, positions: float) -> float:
        """Return the weight for a layer of `channels` feature maps with `positions` positions."""
        return self.factor / (channels**self.channels * float(positions) ** self.positions)


@dataclass(frozen=True)
class Transfer:
    """Settings of style transfer: Eq. 5, or the loss of Gatys et al. as its baseline.

    The loss is ``alpha * content(C, MN) * ||F - P||^2`` at `content_layer` plus
    ``beta * style(C, MN) * ||S - T||^2`` summed over `style_layers`, where S and T are the sums
    of the feature maps (Eq. 5) or the Gram matrices (Gatys).

    Attributes
    ----------
    content_layer
        Layer of the content.
    style_layers
        Layers of the style.
    alpha
        Weight of the content.
    beta
        Weight of the style.
    content, style
        Weights of the squared differences of a layer.
    weight_decay
        Pull towards the mean colour, as a share of the difference from it.
    descent, steps
        As in :class:`Settings`; ``None`` if they are the same as for the other functions.
    """

    content_layer: str
    style_layers: Names
    alpha: Factor
    beta: Factor
    content: Weighting
    style: Weighting
    weight_decay: Share
    descent: Optional[Optimiser] = None
    steps: Optional[Steps] = None

    _numbers = field_validator("alpha", "beta", "weight_decay", "steps", mode="before")(number)

    @property
    def layers(self) -> Tuple[str, ...]:
        """All layers that are needed."""
        return (self.content_layer, *self.style_layers)


@dataclass(frozen=True)
class Settings:
    """All hyper-parameters of an inversion. Lengths are pixels, colours RGB on the 0-255 scale.

    Attributes
    ----------
    preset
        Name of the preset that these values began as.
    pool
        Pooling of the VGG family.
    pool_rounding
        How pooling of the VGG family rounds the half of an odd size.
    long_edge
        Pixels of the longer side after resizing.
    resize_mode
        What lies outside of a picture while it is resized, as the mode of scikit-image's resize.
    anti_aliasing
        Whether pictures are smoothed before they are made smaller.
    content_scale
        Value of white in the content picture.
    style_scale
        Value of white in the style picture.
    style_size
        Size of the style picture: warped to the content's, or with proportions of its own.
    shares
        Distribution of v in Eq. 3.
    code_weight
        Factor of the loss ||F - T||^2 (Eq. 1, 4).
    purposeful
        Settings of Eq. 5.
    gatys
        Settings of Gatys' style transfer.
    steps
        Maximum number of steps.
    stop
        End when the picture changes by a smaller share in a step; 0: never.
    learning_rate
        Learning rate at the beginning, or the largest one after a warm-up.
    momentum
        Momentum in the first step; it changes linearly to that of the last step.
    last_momentum
        Momentum in the last step.
    descent
        Gradient descent with momentum, or L-BFGS, which needs neither learning rate nor clip.
    gradient
        Clip each element, scale all to one size, or whiten and scale (fmi.whitening).
    clip
        Limit of an element of the gradient, or root mean square of a scaled gradient.
    schedule
        How the learning rate falls: in steps, or as half a cosine wave to 0.
    warm_up
        Share of the steps in which the learning rate rises first.
    decay
        Factor of the learning rate at each decay, if it falls in steps.
    decay_every
        Number of steps between two decays.
    weight_decay
        Pull towards the mean colour, as a share of the difference from it.
    total_variation
        Weight of the sum of squared differences of neighbouring pixels in the loss.
    jitter
        Pixels by which the picture moves at most in each step.
    start
        Half width of the initial picture's uniform noise around the mean colour.
    denoise
        Weight of TV denoising when saving; 0: none.
    batch
        Number of pictures at once; 0: as many as fit into memory.
    """

    preset: str
    pool: Literal["avg", "max"]
    pool_rounding: Literal["up", "down"]
    long_edge: Annotated[int, Field(ge=1, le=65_536)]
    resize_mode: Literal["constant", "edge", "symmetric", "reflect", "wrap"]
    anti_aliasing: bool
    content_scale: Colour
    style_scale: Colour
    style_size: Literal["content", "own"]
    shares: Literal["normal", "simplex"]
    code_weight: Positive
    purposeful: Transfer
    gatys: Transfer
    steps: Steps
    stop: Share
    learning_rate: Annotated[float, Field(gt=0, le=1e6, allow_inf_nan=False)]
    momentum: Share
    last_momentum: Share
    descent: Optimiser
    gradient: Literal["clip", "scale", "whiten"]
    clip: Annotated[float, Field(gt=0, le=1e30, allow_inf_nan=False)]
    schedule: Literal["steps", "cosine"]
    warm_up: Share
    decay: Annotated[float, Field(gt=0, le=1)]
    decay_every: Steps
    weight_decay: Share
    total_variation: Factor
    jitter: Annotated[int, Field(ge=0, le=1000)]
    start: Annotated[float, Field(ge=0, le=1e4)]
    denoise: Annotated[float, Field(ge=0, le=100)]
    batch: Annotated[int, Field(ge=0, le=100_000)]

    @field_validator("*", mode="before")
    @classmethod
    def _numbers(cls, value: Any, info: Any) -> Any:
        return value if info.field_name == "anti_aliasing" else number(value)


STYLE_LAYERS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")  # paper, section 3.3

# The source of every value is the 2016 code (file: function or argument) unless noted otherwise.
CODE = Settings(
    preset="code",
    pool="avg",  # model_vgg19_*.py: pool_type="avg", 2x2/2
    pool_rounding="up",  # MXNet until July 2016 (github.com/apache/mxnet/pull/2585)
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
    descent="momentum",
    gradient="clip",
    clip=10.0,
    schedule="steps",
    warm_up=0.0,
    decay=0.9,  # vis_invert.py: mx.lr_scheduler.FactorScheduler
    decay_every=10,
    weight_decay=5e-4,
    total_variation=0.0,  # not in the 2016 code
    jitter=0,  # not in the 2016 code
    start=0.1,  # vis_invert.py: mx.rnd.uniform
    denoise=0.2,  # vis_invert.py: --remove-noise
    batch=0,  # not in the 2016 code, which computes one picture at a time
)

# Only values that differ from CODE: those of the text, and those marked "not specified".
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

# The objective of CODE in fewer steps (docs/descents.md has what was measured).
FAST = replace(
    CODE,
    preset="fast",
    purposeful=replace(CODE.purposeful, descent="lbfgs", steps=48),
    gatys=replace(CODE.gatys, descent="lbfgs", steps=72),
    steps=38,
    stop=0.0,  # the schedule determines the end
    learning_rate=3.5,
    momentum=0.85,
    last_momentum=0.6,
    gradient="whiten",
    schedule="cosine",
    warm_up=0.4,
)

DEFAULT = "code"  # for networks whose activations are as large as those of Caffe's VGG
PRESETS = {"code": CODE, "paper": PAPER, "fast": FAST}


def preset(settings: Union[str, Settings]) -> Settings:
    """Return a preset by its name; :class:`Settings` are returned as is.

    Raises
    ------
    InputError
        If the preset does not exist.
    """
    if isinstance(settings, Settings):
        return settings
    if not isinstance(settings, str):
        raise InputError(
            f"settings={shown(settings)} must be {', '.join(map(repr, PRESETS))} or a Settings"
        )
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
        weight decay, and its optimiser and steps if it has any, replace those of `settings`.

    Raises
    ------
    InputError
        If a field is unknown or a value is not valid.
    """
    transfer = getattr(settings, section) if section else None
    for name, value in values.items():
        if transfer is not None and name in field_names(Transfer):
            transfer = _replaced(transfer, name, value)
        elif name in overridable():
            settings = _replaced(settings, name, value)
        else:
            known = overridable() + (overridable(Transfer) if transfer is not None else ())
            raise unknown("setting", name, known)
    if section and transfer is not None:
        own = {name: getattr(transfer, name) for name in ("weight_decay", "descent", "steps")}
        own = {name: value for name, value in own.items() if value is not None}
        settings = replace(settings, **{section: transfer, **own})
    return settings


def _replaced(settings: Any, name: str, value: Any) -> Any:
    try:
        return replace(settings, **{name: value})
    except ValidationError as error:
        raise refusal(name, value, error, getattr(settings, name)) from None


def about(kind: type) -> Dict[str, str]:
    """Return what each field of :class:`Settings` or :class:`Transfer` is, from its docstring."""
    found = re.findall(r"^    (\w+)\n        (.+)$", kind.__doc__ or "", re.M)
    return {name: text.rstrip(".") for name, text in found}


def field_names(cls: type) -> Tuple[str, ...]:
    """Return the names of the fields of a dataclass, in order."""
    return tuple(field.name for field in dataclasses.fields(cls))


def overridable(cls: type = Settings) -> Tuple[str, ...]:
    """Return the names of the fields with a single value, which can be keywords."""
    nested = ("preset", "purposeful", "gatys", "content", "style")
    return tuple(name for name in field_names(cls) if name not in nested)


def as_dict(settings: Settings, section: Optional[str] = None) -> Dict[str, Any]:
    """Return the settings as plain data, with style transfer only if it is `section`."""
    values = dataclasses.asdict(settings)
    transfer = {name: values.pop(name) for name in ("purposeful", "gatys")}
    own = transfer[section] if section else {}
    found = {**values, **{name: value for name, value in own.items() if value is not None}}
    return {name: list(v) if isinstance(v, tuple) else v for name, v in found.items()}
