"""Calls: what the functions of :mod:`fmi.invert` share, from keywords to the finished pictures."""

from __future__ import annotations

import functools
import logging
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

from fmi import codes, descent, files, losses, pictures
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
from fmi.errors import InputError
from fmi.inversion import Inversion, versions
from fmi.losses import Loss
from fmi.networks import topology, vgg
from fmi.networks import weights as weights_
from fmi.pictures import Source
from fmi.settings import Settings

log = logging.getLogger(__name__)

BATCH_SHARE = 0.5  # of the free memory, what a batch may take where `batch` is 0


@dataclass(frozen=True)
class Options:
    """Keywords common to all functions.

    Attributes
    ----------
    weights
        ``"auto"``, ``"vgg19"``, ``"embedded"``, a path, or Weights (
        :func:`fmi.networks.weights.load`).
    settings
        ``"code"`` (as the authors' code of 2016), ``"paper"``, ``"fast"``, or a Settings.
    seed
        Of the first picture and of random draws.
    init
        First picture, (H, W, 3) RGB on the 0-255 scale, H and W those after resizing; ``None``:
        random around the mean colour.
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

    weights: Union[str, Path, weights_.Weights] = "auto"
    settings: Union[str, Settings] = "code"
    seed: int = 0
    init: Optional[np.ndarray] = None
    ctx: Union[None, str, Context] = None
    precision: str = "float32"
    progress: Optional[bool] = None
    callback: Optional[descent.Callback] = None


Layers = Union[str, Sequence[str]]


def check_size(picture: pictures.Picture, size: Tuple[int, int], layer: str) -> None:
    """Refuse a picture of which nothing would be left at `layer`.

    Parameters
    ----------
    picture
        Named in the message.
    size
        Height and width after resizing.
    layer
        The deepest layer that is asked for.

    Raises
    ------
    InputError
        With the smallest side that works.
    """
    least = topology.smallest_side(layer)
    if min(size) < least:
        raise InputError(
            f"{picture.name} is {size[1]} x {size[0]} pixels after resizing, too small for"
            f" {layer}, which needs {least} a side; raise long_edge"
        )


def check_filters(filters: Sequence[int], layer: str, count: int) -> None:
    """Refuse filters that a layer of `count` filters has not.

    Raises
    ------
    InputError
        For the first such filter, or if there is none at all.
    """
    if not filters:
        raise InputError("no filter is given; name at least one, counted from 0")
    for index in filters:
        if not 0 <= index < count:
            raise InputError(
                f"{layer} has no filter {index}: it has {count}, counted 0 to {count - 1}"
            )


class Call:
    """What the functions above share: settings, network, device, pictures, the record of it all."""

    def __init__(self, function: str, layers: Sequence[str], options: Mapping[str, Any]) -> None:
        known = presets.field_names(Options)
        self.options = Options(**{k: v for k, v in options.items() if k in known})
        seed = self.options.seed
        if not isinstance(seed, (int, np.integer)) or not 0 <= seed < 2**32:
            raise InputError(f"seed={seed!r} should be a whole number from 0 to 2**32 - 1")
        section = function if function in ("purposeful", "gatys") else None
        overrides = {k: v for k, v in options.items() if k not in known}
        self.settings = presets.override(presets.preset(self.options.settings), overrides, section)
        if section:
            self.scheme = getattr(self.settings, section)
            layers = [self.scheme.content_layer, *self.scheme.style_layers]
        self.weights = weights_.load(self.options.weights, layers)
        self.ctx = context(self.options.ctx)
        self.precision = compute_type(self.options.precision, self.ctx)
        self.network = vgg.network(
            self.weights.arrays, layers, self.settings.pool, self.ctx, self.precision
        )
        self.size = (0, 0)
        self.record: Dict[str, Any] = {
            "function": function,
            "layers": list(layers),
            "settings": presets.as_dict(self.settings, section),
            "seed": int(seed),
            "precision": self.precision,
            "device": str(self.ctx),
            "device_name": device_name(self.ctx),
            "weights": self.weights.describe(),
            "pictures": {},
            "versions": versions(),
        }

    def content(self, source: Source) -> NDArray:
        """The content picture as (1, 3, H, W) on the device; its size becomes the result's."""
        picture = pictures.read(source)
        self.size = pictures.fitted(picture.pixels, self.settings.long_edge)
        return self._prepare("content", picture, self.size, self.settings.content_scale)

    def style(self, source: Source) -> NDArray:
        """The style picture as (1, 3, H, W) on the device."""
        picture = pictures.read(source)
        own = self.settings.style_size == "own"
        size = pictures.fitted(picture.pixels, self.settings.long_edge) if own else self.size
        return self._prepare("style", picture, size, self.settings.style_scale)

    def _prepare(
        self, role: str, picture: pictures.Picture, size: Tuple[int, int], scale: float
    ) -> NDArray:
        check_size(picture, size, topology.deepest(self.network.layers))
        self.record["pictures"][role] = picture.describe()
        s = self.settings
        return self.to_device(
            pictures.to_network(
                picture.pixels, size, scale, self.weights.mean, s.resize_mode, s.anti_aliasing
            )
        )

    def to_device(self, array: np.ndarray, dtype: str = "float32") -> NDArray:
        """An array on the device of this call."""
        return mx.nd.array(array, ctx=self.ctx, dtype=dtype)

    def filters(self, filters: Union[int, Sequence[int]]) -> List[int]:
        """The filters as a list, each one checked against every layer."""
        chosen = [filters] if isinstance(filters, (int, np.integer)) else list(filters)
        for name in self.network.layers:
            check_filters(chosen, name, self.network.filters[name])
        return [int(index) for index in chosen]

    def note_silent(self, layer: str, values: NDArray) -> None:
        """Report the feature maps that Eq. 3 cannot give energy to."""
        quiet = codes.silent(values)
        if quiet:
            log.warning("%s: %d feature maps sum to 0 and stay 0: %s", layer, len(quiet), quiet)
        self.record.setdefault("silent_feature_maps", {})[layer] = quiet

    def code_loss(self, targets: Mapping[str, NDArray]) -> Loss:
        """``code_weight ||F - T||^2`` summed over layers (Eq. 1 and 4)."""
        terms = [losses.code(n, t, self.settings.code_weight) for n, t in targets.items()]
        return Loss(tuple(term for loss in terms for term in loss.terms))

    def transfer(self, content: Source, style: Source, statistic: Any, term: Any) -> Inversion:
        """Eq. 5, `statistic` being the energies or the Gram matrices of feature maps."""
        scheme = self.scheme
        kept = self.network(self.content(content))
        wanted = self.network(self.style(style))
        target = kept[scheme.content_layer]
        loss = losses.code(
            scheme.content_layer, target, scheme.alpha * scheme.content(*_extent(target))
        )
        for name in scheme.style_layers:
            channels, positions = _extent(kept[name])
            # Sums over a style picture of its own size are brought to the content's positions.
            ratio = positions / _extent(wanted[name])[1]
            weight = scheme.beta * scheme.style(channels, positions)
            loss = loss + term(name, statistic(wanted[name]) * ratio, weight)
        return self.invert(loss, [{}])[0]

    def invert(self, loss: Loss, labels: Sequence[Mapping[str, Any]]) -> List[Inversion]:
        """Descend the loss, in batches that fit into memory; one Inversion for each label."""
        found: List[Inversion] = []
        at_once = self.settings.batch or self._batch()
        while len(found) < len(labels):
            group = range(len(found), min(len(found) + at_once, len(labels)))
            descents = self._descend(loss, labels, group)
            if descents is None:
                at_once = len(group) // 2
                text = "%s is out of memory with %d pictures at once; going on with %d at once"
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
                self.network,
                loss,
                self.to_device(self._first()),
                self.settings,
                self.weights.mean,
                self.options.callback,
                self.options.progress,
                self._label(labels, group),
            )
        except mx.MXNetError as error:
            if len(group) == 1 or not out_of_memory(error):
                raise
        finally:
            self.network.free()
        release_memory(self.ctx)  # not earlier: the error holds on to the batch
        return None

    def _batch(self) -> int:
        need = vgg.activation_bytes(self.network.filters, self.network.layers, *self.size)
        return max(1, int(BATCH_SHARE * free_memory(self.ctx)) // need)

    def _label(self, labels: Sequence[Mapping[str, Any]], group: Sequence[int]) -> str:
        names = {"filter", "draw"}
        each = [str(v) for i in group for k, v in labels[i].items() if k in names]
        where = "" if len(self.network.layers) > 2 else " ".join(self.network.layers)
        return " ".join(part for part in (self.record["function"], where, ",".join(each)) if part)

    def _first(self) -> np.ndarray:
        """The picture to begin with, (1, 3, H, W), the mean subtracted."""
        if self.options.init is not None:
            return self._init()
        return descent.start((1, 3, *self.size), self.settings.start, self.options.seed)

    def _init(self) -> np.ndarray:
        init = np.asarray(self.options.init)
        if init.shape != (*self.size, 3):
            raise InputError(
                f"init should be (H, W, 3) = {(*self.size, 3)}, the size after resizing,"
                f" not {init.shape}"
            )
        return pictures.from_rgb(init, self.weights.mean)

    def _inversion(self, found: descent.Descent, label: Mapping[str, Any]) -> Inversion:
        record = {**self.record, **label}
        if self.options.init is not None:
            values = np.ascontiguousarray(self.options.init, dtype=np.float32)
            record["init"] = files.array_digest(values)
        return Inversion(
            array=pictures.to_rgb(found.image, self.weights.mean),
            loss=found.loss,
            change=found.change,
            stopped=found.stopped,
            settings=record,
            seconds=found.seconds,
        )


def _extent(values: NDArray) -> Tuple[int, int]:
    """Feature maps and positions of a code (B, C, M, N)."""
    return int(values.shape[1]), int(values.shape[2] * values.shape[3])


F = TypeVar("F", bound=Callable[..., Any])


def in_one_line(function: F) -> F:
    """Say in one line that there is not memory enough, not even for one picture."""

    @functools.wraps(function)
    def wrapped(*arguments: Any, **options: Any) -> Any:
        try:
            return function(*arguments, **options)
        except mx.MXNetError as error:
            if out_of_main_memory(error):
                text = "the machine is out of memory: lower long_edge or batch, in a new process"
            elif out_of_memory(error):
                text = (
                    "out of memory with one picture at a time: lower long_edge, free the device"
                    " (nvidia-smi tells who uses it), or compute elsewhere with ctx='cpu'"
                )
            else:
                raise
            raise InputError(text) from error

    return cast(F, wrapped)


def layers_of(layer: Optional[Layers], options: Dict[str, Any]) -> List[str]:
    """The layers given as `layer` or with the keyword ``layers=``, which is taken out."""
    both = [given for given in (layer, options.pop("layers", None)) if given is not None]
    if len(both) == 2:
        raise InputError("layer and layers= are both given; use one of them")
    names = [both[0]] if both and isinstance(both[0], str) else [n for x in both for n in x]
    if not names:
        raise InputError("no layer is given; name at least one, such as 'relu3_2'")
    return [topology.check_layer(name) for name in names]
