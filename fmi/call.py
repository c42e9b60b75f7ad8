"""Calls: what the functions of :mod:`fmi.invert` share, from keywords to the finished pictures."""

from __future__ import annotations

import functools
import logging
import numbers
from dataclasses import dataclass
from pathlib import Path
from typing import (
    Any,
    Callable,
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

__all__ = ["Call", "Filters", "Layers", "Options", "in_one_line", "places_of"]

log = logging.getLogger(__name__)

Layers = Union[str, Sequence[str]]
Filters = Union[int, Sequence[int]]
Init = Union[None, Source, np.ndarray]
BATCH_SHARE = 0.5  # of the free memory, what a batch may take where `batch` is 0
TRANSFERS = ("purposeful", "gatys")  # functions that have settings of their own


@dataclass(frozen=True)
class Options:
    """Keywords common to all functions.

    Attributes
    ----------
    network
        A Gluon block, an exported pair, a name of Gluon's model zoo or a loaded network
        (:func:`fmi.networks.catalogue.load` has the whole list); ``None``: the VGG network of
        `weights`.
    weights
        ``"auto"``, ``"vgg19"``, ``"vgg16-hed"``, ``"embedded"``, or a path.
    input
        How a network that is not of the VGG family takes a picture: ``"caffe"``, ``"imagenet"``,
        or an :class:`fmi.networks.base.Input`; ``None``: as ImageNet's networks do.
    settings
        ``"code"`` (as the authors' code of 2016), ``"paper"``, ``"fast"``, or a Settings;
        ``None``: ``"code"`` for the VGG networks of 2014, else ``"fast"``, which is scale-free.
    seed
        Of the first picture and of random draws.
    init
        First picture: ``None`` or ``"noise"`` for noise around the mean colour, ``"content"``, a
        picture, or (H, W, 3) float32 RGB on the 0-255 scale. Other sizes are resized.
    ctx
        ``"cpu"``, ``"gpu"``, ``"gpu(1)"``; ``None``: the environment variable ``FMI_CTX``, else
        the first GPU that works, else the CPU.
    precision
        ``"float32"``, ``"bfloat16"``, ``"float16"``, or ``"auto"``
        (see :func:`fmi.device.mxnet.compute_type`).
    progress
        Whether to show a progress bar; ``None``: in a terminal or a notebook.
    callback
        Called once a step with the :class:`fmi.descent.State`. A batch that does not fit into the
        device's memory begins again, in parts.
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
    """Say in one line that there is not enough memory, not even for one picture."""

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
    """The layers that are given in one of two ways, and the filters named with or beside them.

    Parameters
    ----------
    layer, layers
        One or several, such as ``"relu3_2"``, or with filters ``"relu3_2:17"``; only one of the
        two may be given.
    filters
        One or several, counted from 0.

    Raises
    ------
    InputError
        If there is no layer, or layers or filters are given twice.
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
    chosen = [filters] if isinstance(filters, numbers.Integral) else list(filters)  # type: ignore
    return [name for name, _ in parts], [int(index) for index in chosen]


class Call:
    """One call: its settings, network, device and pictures, and the record of it all.

    Parameters
    ----------
    function
        Name of the function of :mod:`fmi.invert`.
    layers
        Names of layers; those of a style transfer follow from its settings.
    options
        Fields of :class:`Options`, :class:`fmi.settings.Settings` and, for a style transfer,
        :class:`fmi.settings.Transfer`.

    Raises
    ------
    InputError
        For an unknown keyword, a value that does not fit, a network that cannot be used or a layer
        that it does not have.
    """

    def __init__(self, function: str, layers: Sequence[str], options: Mapping[str, Any]) -> None:
        section = function if function in TRANSFERS else None
        common = presets.field_names(Options)
        self._check_keywords(options, common, section)
        self.options = Options(**{k: v for k, v in options.items() if k in common})
        seed = self.options.seed
        if not isinstance(seed, (int, np.integer)) or not 0 <= seed < 2**32:
            raise InputError(f"seed={seed!r} must be an integer from 0 to 2**32 - 1")
        overrides = {k: v for k, v in options.items() if k not in common}
        given = self.options.settings
        # Of what the settings name, weights="auto" must find a network with these layers.
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
            self.settings = replaced_layers(self.settings, section, self.network)
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
        """The codes of all layers of this call for (B, 3, H, W) pictures."""
        return self.truncated(image)

    def content(self, source: Source) -> NDArray:
        """The content picture as (1, 3, H, W) on the device; its size becomes the result's."""
        picture = pictures.read(source)
        self.size = pictures.fitted(picture.pixels, self.settings.long_edge)
        self._content = self._prepare("content", picture, self.size, self.settings.content_scale)
        return self.to_device(self._content)

    def style(self, source: Source) -> NDArray:
        """The style picture as (1, 3, H, W) on the device."""
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
        """An array on the device of this call."""
        return mx.nd.array(array, ctx=self.ctx, dtype=dtype)

    def again(self, found: Inversion) -> Dict[str, NDArray]:
        """The codes of a picture that was found."""
        return self.codes(self.to_device(pictures.from_rgb(found.array, self.network.mean)))

    def check_filters(self, filters: Sequence[int]) -> None:
        """Refuse a filter that one of the layers does not have."""
        for name in self.truncated.layers:
            self.network.check_filters(filters, name)

    def note_silent(self, layer: str, values: NDArray) -> None:
        """Report the feature maps that Eq. 3 cannot give energy to."""
        quiet = codes.silent(values)
        if quiet:
            log.warning("%s: %d feature maps have sum 0 and stay 0: %s", layer, len(quiet), quiet)
        if self.network.layer(layer).negative:
            log.warning("%s can be negative, but Eq. 3 assumes values that are not negative", layer)
        self.record.setdefault("silent_feature_maps", {})[layer] = quiet

    def invert(self, loss: Loss, labels: Sequence[Mapping[str, Any]]) -> List[Inversion]:
        """Descend the loss, in batches that fit into memory; one Inversion for each label."""
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
        """Descend a batch; ``None`` if it does not fit into memory and could be smaller."""
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
        release_memory(self.ctx)  # not earlier: the error holds on to the batch
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
        """The picture to begin with, (1, 3, H, W), the mean subtracted."""
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
    """The number format to compute in, of which "auto" leaves the choice to fmi.

    Raises
    ------
    InputError
        If the device or the network cannot compute in it.
    """
    if precision == "auto" and "bfloat16" not in network.precisions:
        log.info("precision auto: float32, the only precision of %s", network.name)
        return "float32"
    return compute_type(precision, ctx)


def replaced_layers(settings: Settings, section: str, network: Network) -> Settings:
    """The settings with layers of the network where it has none of the preset's names.

    The style layers become the first activations of each size of the feature maps, the content
    layer the last activation of the second size, which is where relu1_1 ... relu5_1 and relu2_2
    stand in VGG-19.
    """
    scheme: Transfer = getattr(settings, section)
    if any(network.knows(name) for name in scheme.layers):
        return settings
    last = network.landmarks()
    changes = {
        "content_layer": last[min(1, len(last) - 1)],
        "style_layers": tuple(network.landmarks(first=True)[:5]),
    }
    log.info("%s: content layer %s, style layers %s", network.name, *changes.values())
    return presets.override(settings, changes, section)
