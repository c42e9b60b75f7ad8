"""Calls: the common part of the functions of :mod:`fmi.invert`, from keywords to results."""

from __future__ import annotations

import functools
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import (
    Any,
    Callable,
    Container,
    Dict,
    List,
    Mapping,
    Optional,
    Sequence,
    Tuple,
    TypeVar,
    Union,
    cast,
)

import numpy as np

from fmi import codes, descent, files, pictures
from fmi import settings as presets
from fmi.device.mxnet import (
    Context,
    NDArray,
    compute_type,
    context,
    device_name,
    free_memory,
    mx,
    out_of_main_memory,
    out_of_memory,
    release_memory,
)
from fmi.errors import InputError, unknown
from fmi.inversion import Inversion, versions
from fmi.losses import Loss
from fmi.networks import catalogue
from fmi.networks.base import Input, Network, split_filters
from fmi.networks.weights import Weights
from fmi.pictures import Source
from fmi.settings import Settings, Transfer

__all__ = [
    "Call",
    "Filters",
    "Init",
    "Layers",
    "Options",
    "in_one_line",
    "number_format",
    "places_of",
    "replaced_layers",
]

log = logging.getLogger(__name__)

Layers = Union[str, Sequence[str]]
Filters = Union[int, Sequence[int]]
Init = Union[None, Source, np.ndarray]
BATCH_SHARE = 0.5  # share of the free memory that a batch may use if `batch` is 0
TRANSFERS = ("purposeful", "gatys")  # functions with their own section of the settings


@dataclass(frozen=True)
class Options:
    """Keywords common to all functions.

    Attributes
    ----------
    network
        A Gluon block, an exported pair, a name from Gluon's model zoo, or a loaded network
        (:func:`fmi.networks.catalogue.load` lists all possibilities). If ``None``, the VGG network
        of `weights` is used.
    weights
        ``"auto"``, ``"vgg19"``, ``"vgg16-hed"``, ``"embedded"``, or a path.
    input
        The preprocessing of a network outside of the VGG family: ``"caffe"``, ``"imagenet"``, or
        an :class:`fmi.networks.base.Input`. If ``None``, ``"imagenet"`` is assumed.
    settings
        ``"code"`` (the authors' code of 2016), ``"paper"``, ``"fast"``, or a Settings. If
        ``None``, ``"code"`` is used for the VGG networks of 2014, and ``"fast"``, which is
        scale-free, for other networks.
    seed
        Seed of the initial picture and of random draws.
    init
        Initial picture: ``None`` or ``"noise"`` for noise around the mean colour, ``"content"``, a
        picture, or (H, W, 3) float32 RGB on the 0-255 scale. Other sizes are resized.
    ctx
        ``"cpu"``, ``"gpu"`` or ``"gpu(1)"``. If ``None``, the environment variable ``FMI_CTX`` is
        used; if it is not set, the first GPU that works, else the CPU.
    precision
        ``"float32"``, ``"bfloat16"``, ``"float16"``, or ``"auto"``
        (see :func:`fmi.device.mxnet.compute_type`).
    progress
        Whether to show a progress bar. If ``None``, it is shown in terminals and notebooks.
    callback
        Function called after each step with the :class:`fmi.descent.State`. A batch that does not
        fit into the memory of the device is restarted in smaller batches.
    """

    network: Any = None
    weights: Union[str, Path, Weights] = "auto"
    input: Union[None, str, Input] = None
    settings: Union[None, str, Settings] = None
    seed: int = 0
    init: Init = None
    ctx: Union[None, str, Context] = None
    precision: str = "float32"
    progress: Optional[bool] = None
    callback: Optional[descent.Callback] = None


F = TypeVar("F", bound=Callable[..., Any])


def in_one_line(function: F) -> F:
    """Convert the out-of-memory errors of MXNet to an :class:`InputError` with one line."""

    @functools.wraps(function)
    def wrapped(*arguments: Any, **options: Any) -> Any:
        try:
            return function(*arguments, **options)
        except mx.MXNetError as error:
            if out_of_main_memory(error):
                text = "out of main memory: start a new process with a smaller long_edge or batch"
            elif out_of_memory(error):
                text = (
                    "out of memory even with one picture at a time: reduce long_edge, free the"
                    " device (nvidia-smi lists its processes), or use the CPU with ctx='cpu'"
                )
            else:
                raise
            raise InputError(text) from error

    return cast(F, wrapped)


def places_of(
    layer: Optional[Layers], layers: Optional[Layers] = None, filters: Optional[Filters] = None
) -> Tuple[List[str], List[int]]:
    """Return the names of the layers, and the filters given with them or separately.

    Parameters
    ----------
    layer, layers
        One or several layers, such as ``"relu3_2"``, or ``"relu3_2:17"`` with a filter. Only one
        of the two arguments may be given.
    filters
        One or several filters, numbered from 0.

    Raises
    ------
    InputError
        If no layer is given, or if layers or filters are given twice.
    """
    both = [given for given in (layer, layers) if given is not None]
    if len(both) == 2:
        raise InputError("layer and layers= are both given; use only one of them")
    texts = [both[0]] if both and isinstance(both[0], str) else [n for x in both for n in x]
    if not texts:
        raise InputError("no layer is given; name at least one, such as 'relu3_2'")
    parts = [split_filters(text) if isinstance(text, str) else (text, ()) for text in texts]
    named = {chosen for _, chosen in parts if chosen}
    if len(named) + (filters is not None) > 1:
        raise InputError("filters are given twice; give them once, for all layers")
    if filters is None:
        return [name for name, _ in parts], list(named.pop()) if named else []
    chosen = [filters] if isinstance(filters, (int, np.integer)) else list(filters)
    return [name for name, _ in parts], [int(index) for index in chosen]


class Call:
    """One call: its settings, network, device and pictures, and the record of all of them.

    Parameters
    ----------
    function
        Name of the function of :mod:`fmi.invert`.
    layers
        Names of layers. For style transfer, the layers are defined by the settings.
    options
        Fields of :class:`Options`, :class:`fmi.settings.Settings` and, for style transfer,
        :class:`fmi.settings.Transfer`.

    Raises
    ------
    InputError
        If a keyword is unknown, a value is not valid, the network cannot be used, or the network
        lacks a layer.
    """

    def __init__(self, function: str, layers: Sequence[str], options: Mapping[str, Any]) -> None:
        section = function if function in TRANSFERS else None
        common = presets.field_names(Options)
        self._check_keywords(options, common, section)
        self.options = Options(**{k: v for k, v in options.items() if k in common})
        seed = self.options.seed
        if not isinstance(seed, (int, np.integer)) or not 0 <= seed < 2**32:
            raise InputError(f"seed={seed!r} must be an integer from 0 to 2**32 - 1")
        overrides = {k: v for k, v in options.items() if k not in common and v is not None}
        given = self.options.settings
        # weights="auto" must find a network that has the layers named in the settings.
        early = presets.override(presets.preset(given or presets.DEFAULT), overrides, section)
        wanted = getattr(early, section).layers if section else layers
        self.network = self._load(wanted)
        self.settings = presets.override(
            presets.preset(given or self.network.settings), overrides, section
        )
        self._check_settings(overrides)
        if given is None and self.settings.preset != presets.DEFAULT:
            log.info("%s: settings %r", self.network.name, self.settings.preset)
        if section:
            self.settings = replaced_layers(self.settings, section, self.network, overrides)
            self.scheme: Transfer = getattr(self.settings, section)
            layers = self.scheme.layers
        layers = [self.network.layer(name).name for name in layers]
        self.ctx = context(self.options.ctx)
        self.precision = number_format(self.options.precision, self.network, self.ctx)
        self.truncated = self.network.truncated(
            layers, self.settings.pool, self.ctx, self.precision
        )
        self.size = (0, 0)
        self._content: Optional[np.ndarray] = None
        self.record: Dict[str, Any] = {
            "function": function,
            "layers": list(layers),
            "settings": presets.as_dict(self.settings, section),
            "seed": int(seed),
            "precision": self.precision,
            "device": str(self.ctx),
            "device_name": device_name(self.ctx),
            "network": self.network.describe(),
            "pictures": {},
            "versions": versions(),
        }

    @staticmethod
    def _check_keywords(
        options: Mapping[str, Any], common: Sequence[str], section: Optional[str]
    ) -> None:
        known = [*common, *presets.overridable()]
        if section:
            known += [n for n in presets.overridable(Transfer) if n not in known]
        for name in options:
            if name not in known:
                raise unknown("keyword", name, known)

    def _load(self, layers: Sequence[str]) -> Network:
        o = self.options
        return catalogue.load(o.network, o.weights, o.input, layers)

    def _check_settings(self, overrides: Mapping[str, Any]) -> None:
        if "pool" in overrides and not self.network.pools:
            raise InputError(
                f"pool={overrides['pool']!r} applies only to the VGG family; {self.network.name}"
                " has its own pooling; omit pool"
            )

    def codes(self, image: NDArray) -> Dict[str, NDArray]:
        """Return the codes of all layers of this call for (B, 3, H, W) pictures."""
        return self.truncated(image)

    def content(self, source: Source) -> NDArray:
        """Return the content picture as (1, 3, H, W) on the device; results have its size."""
        picture = pictures.read(source)
        self.size = pictures.fitted(picture.pixels, self.settings.long_edge)
        self._content = self._prepare("content", picture, self.size, self.settings.content_scale)
        return self.to_device(self._content)

    def style(self, source: Source) -> NDArray:
        """Return the style picture as (1, 3, H, W) on the device."""
        picture = pictures.read(source)
        own = self.settings.style_size == "own"
        size = pictures.fitted(picture.pixels, self.settings.long_edge) if own else self.size
        return self.to_device(self._prepare("style", picture, size, self.settings.style_scale))

    def _prepare(
        self, role: str, picture: pictures.Picture, size: Tuple[int, int], scale: float
    ) -> np.ndarray:
        self.network.check_size(self.truncated.layers, *size, picture.name)
        self.record["pictures"][role] = picture.describe()
        s = self.settings
        return pictures.to_network(
            picture.pixels, size, scale, self.network.mean, s.resize_mode, s.anti_aliasing
        )

    def to_device(self, array: np.ndarray, dtype: str = "float32") -> NDArray:
        """Return an array on the device of this call."""
        return mx.nd.array(array, ctx=self.ctx, dtype=dtype)

    def again(self, found: Inversion) -> Dict[str, NDArray]:
        """Return the codes of the picture of an inversion."""
        return self.codes(self.to_device(pictures.from_rgb(found.array, self.network.mean)))

    def check_filters(self, filters: Sequence[int]) -> None:
        """Check that all layers have the given filters."""
        for name in self.truncated.layers:
            self.network.check_filters(filters, name)

    def note_silent(self, layer: str, values: NDArray) -> None:
        """Log and record the feature maps to which Eq. 3 cannot assign energy."""
        quiet = codes.silent(values)
        if quiet:
            log.warning("%s: %d feature maps have sum 0 and stay 0: %s", layer, len(quiet), quiet)
        if self.network.layer(layer).negative:
            log.warning("%s can be negative, but Eq. 3 assumes values that are not negative", layer)
        self.record.setdefault("silent_feature_maps", {})[layer] = quiet

    def invert(self, loss: Loss, labels: Sequence[Mapping[str, Any]]) -> List[Inversion]:
        """Minimise the loss in batches that fit into memory; return an Inversion for each label."""
        found: List[Inversion] = []
        at_once = self.settings.batch or self._batch()
        while len(found) < len(labels):
            group = range(len(found), min(len(found) + at_once, len(labels)))
            descents = self._descend(loss, labels, group)
            if descents is None:
                at_once = len(group) // 2
                text = "%s is out of memory with a batch of %d pictures; continuing with %d"
                log.warning(text, self.ctx, len(group), at_once)
                continue
            found += [self._inversion(d, labels[i]) for i, d in zip(group, descents)]
            if found[-1].stopped == "interrupted":
                break
        return found

    def _descend(
        self, loss: Loss, labels: Sequence[Mapping[str, Any]], group: Sequence[int]
    ) -> Optional[List[descent.Descent]]:
        """Minimise a batch; return ``None`` if it does not fit into memory but can be split."""
        loss = loss if len(group) == len(labels) else loss.take(group)
        try:
            return descent.minimise(
                self.truncated,
                loss,
                self.to_device(self._first()),
                self.settings,
                self.network.mean,
                self.options.callback,
                self.options.progress,
                self._label(labels, group),
            )
        except mx.MXNetError as error:
            if len(group) == 1 or not out_of_memory(error):
                raise
        finally:
            self.truncated.free()
        release_memory(self.ctx)  # not earlier, because the error keeps the batch alive
        return None

    def _batch(self) -> int:
        need = self.network.picture_bytes(self.truncated.layers, *self.size)
        return max(1, int(BATCH_SHARE * free_memory(self.ctx)) // need)

    def _label(self, labels: Sequence[Mapping[str, Any]], group: Sequence[int]) -> str:
        names = {"filter", "draw"}
        each = [str(v) for i in group for k, v in labels[i].items() if k in names]
        layers = self.truncated.layers
        where = "" if len(layers) > 2 else " ".join(layers)
        return " ".join(part for part in (self.record["function"], where, ",".join(each)) if part)

    def _first(self) -> np.ndarray:
        """Return the initial picture (1, 3, H, W) with the mean subtracted."""
        init = self.options.init
        if init is None or (isinstance(init, str) and init == "noise"):
            return descent.start((1, 3, *self.size), self.settings.start, self.options.seed)
        if isinstance(init, str) and init == "content":
            assert self._content is not None
            self.record["init"] = "content"
            return self._content
        values = pictures.first_picture(init, self.size)
        self.record["init"] = files.array_digest(values)
        return pictures.from_rgb(values, self.network.mean)

    def _inversion(self, found: descent.Descent, label: Mapping[str, Any]) -> Inversion:
        return Inversion(
            array=pictures.to_rgb(found.image, self.network.mean),
            loss=found.loss,
            change=found.change,
            stopped=found.stopped,
            record={**self.record, **label},
            seconds=found.seconds,
        )


def number_format(precision: str, network: Network, ctx: Context) -> str:
    """Return the number format to compute in; for "auto", it depends on network and device.

    Raises
    ------
    InputError
        If the device does not support the number format.
    """
    if precision == "auto" and "bfloat16" not in network.precisions:
        log.info("precision auto: float32, the only precision of %s", network.name)
        return "float32"
    return compute_type(precision, ctx)


def replaced_layers(
    settings: Settings, section: str, network: Network, given: Container[str]
) -> Settings:
    """Replace the layers of a preset that the network does not have.

    The style layers become the first activation of each size of the feature maps, and the content
    layer becomes the last activation of the second size. In VGG-19, these are relu1_1 ... relu5_1
    and relu2_2.

    Parameters
    ----------
    settings
        Its layers may be the preset's or the user's.
    section
        ``"purposeful"`` or ``"gatys"``.
    network
        Network that is asked for the layers.
    given
        Names of the settings chosen by the user, which are never replaced.
    """
    scheme: Transfer = getattr(settings, section)
    changes: Dict[str, Any] = {}
    if "content_layer" not in given and not network.knows(scheme.content_layer):
        last = network.landmarks()
        changes["content_layer"] = last[min(1, len(last) - 1)]
    if "style_layers" not in given and not all(map(network.knows, scheme.style_layers)):
        changes["style_layers"] = tuple(network.landmarks(first=True)[:5])
    for name, value in changes.items():
        log.info("%s: %s=%s", network.name, name, value)
    return presets.override(settings, changes, section)
