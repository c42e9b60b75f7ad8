"""Calls: the common part of the functions of :mod:`fmi.invert`, from keywords to results."""

from __future__ import annotations

import functools
import logging
import math
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

from fmi import checks, codes, descent, files, pictures
from fmi import settings as presets
from fmi.device.mxnet import (
    Context,
    NDArray,
    context,
    device_name,
    free_memory,
    mx,
    out_of_main_memory,
    out_of_memory,
    release_memory,
)
from fmi.device.precision import Precision, choose
from fmi.errors import InputError, shown, unknown
from fmi.inversion import FINISHED, Inversion, Keep, Keeper, Place, versions
from fmi.losses import Loss
from fmi.networks import catalogue
from fmi.networks.base import Input, Network, Truncated, split_filters
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
    "layers_of",
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
        ``"float32"``, ``"bfloat16"``, ``"float16"``, or ``"auto"``, the fastest for the device
        (see :func:`fmi.device.precision.choose`).
    progress
        Whether to show a progress bar. If ``None``, it is shown in terminals and notebooks.
    callback
        Function called after each step with the :class:`fmi.descent.State`. A batch that does not
        fit into the memory of the device is restarted in smaller batches.
    store
        A :class:`fmi.runs.store.Store`. Results that it holds are not computed again, and new ones
        are added to it.
    """

    network: Any = None
    weights: Union[str, Path, Weights] = "auto"
    input: Union[None, str, Input] = None
    settings: Union[None, str, Settings] = None
    seed: int = 0
    init: Init = None
    ctx: Union[None, str, Context] = None
    precision: Union[str, Precision] = "float32"
    progress: Optional[bool] = None
    callback: Optional[descent.Callback] = None
    store: Optional[Keeper] = None


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
        If no layer is given, if layers or filters are given twice, or if they have other types.
    """
    both = [given for given in (layer, layers) if given is not None]
    if len(both) == 2:
        raise InputError("layer and layers= are both given; use only one of them")
    if not both or (not isinstance(both[0], str) and both[0] in ((), [])):
        raise InputError("no layer is given; name at least one, such as 'relu3_2'")
    texts = (both[0],) if isinstance(both[0], str) else both[0]
    parts = [split_filters(text) for text in checks.checked("layer", texts, checks.Layers)]
    named = {chosen for _, chosen in parts if chosen}
    if len(named) + (filters is not None) > 1:
        raise InputError("filters are given twice; give them once, for all layers")
    if filters is None:
        return [name for name, _ in parts], list(named.pop()) if named else []
    return [name for name, _ in parts], list(checks.checked("filters", filters, checks.Filters))


def layers_of(layer: Optional[Layers], layers: Optional[Layers] = None) -> List[str]:
    """Return the names of the layers, as :func:`places_of` does, for functions without filters.

    Raises
    ------
    InputError
        As for :func:`places_of`, and if a filter is given with a layer.
    """
    names, filters = places_of(layer, layers)
    if filters:
        raise InputError(
            f"{shown(layer if layers is None else layers)} names filters, but whole layers are"
            " needed here; omit the colon and what follows it"
        )
    return names


class Call:
    """One call: its settings, network, device and pictures, checked but not yet computed.

    The network is loaded and the pictures are read when the call is made; everything else is
    computed when it is first needed.

    Parameters
    ----------
    function
        Name of the function of :mod:`fmi.invert`.
    layers
        Names of layers. For style transfer, the layers are defined by the settings.
    options
        Fields of :class:`Options`, :class:`fmi.settings.Settings` and, for style transfer,
        :class:`fmi.settings.Transfer`.
    sources
        The pictures: ``"content"``, whose size the results have, and for some functions
        ``"style"``.

    Attributes
    ----------
    record
        Everything that shapes the results, as plain data, except for their :class:`Place`.

    Raises
    ------
    InputError
        If a keyword is unknown, a value is not valid, the network or a picture cannot be used, the
        network lacks a layer, a picture is too small for a layer, or the device has too little
        memory.
    """

    def __init__(
        self,
        function: str,
        layers: Sequence[str],
        options: Mapping[str, Any],
        sources: Mapping[str, Source],
    ) -> None:
        section = function if function in TRANSFERS else None
        common = presets.field_names(Options)
        self._check_keywords(options, common, section)
        self.options = Options(**{k: v for k, v in options.items() if k in common})
        seed = checks.checked("seed", self.options.seed, checks.Seed)
        overrides = {k: v for k, v in options.items() if k not in common and v is not None}
        given = self.options.settings
        # weights="auto" must find a network that has the layers named in the settings.
        early = presets.preset(presets.DEFAULT if given is None else given)
        early = presets.override(early, overrides, section)
        wanted = getattr(early, section).layers if section else layers
        self.network = self._load(wanted)
        self.settings = presets.override(
            presets.preset(self.network.settings if given is None else given), overrides, section
        )
        self._check_settings(overrides)
        if given is None and self.settings.preset != presets.DEFAULT:
            log.info("%s: settings %r", self.network.name, self.settings.preset)
        if section:
            self.settings = replaced_layers(self.settings, section, self.network, overrides)
            self.scheme: Transfer = getattr(self.settings, section)
            layers = self.scheme.layers
        self.layers = tuple(dict.fromkeys(self.network.layer(name).name for name in layers))
        self.ctx = context(self.options.ctx)
        precision = number_format(self.options.precision, self.network, self.ctx)
        self.precision = precision.name
        self._pictures = {role: pictures.read(source) for role, source in sources.items()}
        self.size = pictures.fitted(self._pictures["content"].pixels, self.settings.long_edge)
        for role, picture in self._pictures.items():
            self.network.check_size(self.layers, *self._size(role), picture.name)
        self._check_memory()
        self.record: Dict[str, Any] = {
            "function": function,
            "layers": list(self.layers),
            "settings": presets.as_dict(self.settings, section),
            "seed": seed,
            "precision": precision.name,
            **({"precision_reason": precision.reason} if precision.reason else {}),
            "device": str(self.ctx),
            "device_name": device_name(self.ctx),
            "network": self.network.describe(),
            "pictures": {role: picture.describe() for role, picture in self._pictures.items()},
            "versions": versions(),
        }
        self._init = self._read_init()

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
        callback, store = options.get("callback"), options.get("store")
        if callback is not None and not callable(callback):
            raise InputError(f"callback={shown(callback)} must be a function of one argument")
        if store is not None and not hasattr(store, "obtain"):
            raise InputError(f"store={shown(store)} must be a fmi.runs.store.Store")
        checks.checked("progress", options.get("progress"), Optional[bool])

    def _load(self, layers: Sequence[str]) -> Network:
        o = self.options
        return catalogue.load(o.network, o.weights, o.input, layers)

    def _check_settings(self, overrides: Mapping[str, Any]) -> None:
        for name in ("pool", "pool_rounding"):
            if name in overrides and not self.network.pools:
                raise InputError(
                    f"{name}={overrides[name]!r} applies only to the VGG family;"
                    f" {self.network.name} has its own pooling; omit {name}"
                )

    def _size(self, role: str, long_edge: Optional[int] = None) -> Tuple[int, int]:
        """Return height and width of a picture after resizing."""
        own = role == "style" and self.settings.style_size == "own"
        pixels = self._pictures["style" if own else "content"].pixels
        return pictures.fitted(pixels, long_edge or self.settings.long_edge)

    # --- memory ---

    def _need(self, long_edge: int) -> int:
        """Estimate the bytes that one picture needs: the network, the target, the difference."""
        size = self._size("content", long_edge)
        targets = sum(
            4 * self.network.layer(name).channels * rows * columns
            for name, (rows, columns) in self.network.sizes(*size).items()
            if name in self.layers
        )
        return self.network.picture_bytes(self.layers, *size) + 2 * targets

    def _check_memory(self) -> None:
        free, edge = free_memory(self.ctx), self.settings.long_edge
        if self._need(edge) <= free:
            return
        fits, high = self._smallest_edge(), edge
        remedy = "not even the smallest picture fits; choose a shallower layer"
        while self._need(fits) <= free:  # bisection, which ends below
            middle = (fits + high) // 2
            if middle == fits:
                remedy = f"the largest long_edge that fits is {fits}"
                break
            fits, high = (middle, high) if self._need(middle) <= free else (fits, middle)
        raise InputError(
            f"a picture of {self.size[1]} x {self.size[0]} pixels needs about"
            f" {self._need(edge) / 1e9:.1f} GB, but {self.ctx} has {free / 1e9:.1f} GB free:"
            f" {remedy}"
        )

    def _smallest_edge(self) -> int:
        """Return the smallest long edge with which no layer is empty."""
        side = max(self.network.smallest_side(name) for name in self.layers)
        height, width = self._pictures["content"].pixels.shape[:2]
        return math.ceil(side * max(height, width) / min(height, width))

    def _batch(self) -> int:
        """Return how many pictures can be inverted at once."""
        share = int(BATCH_SHARE * free_memory(self.ctx))
        return self.settings.batch or max(1, share // self._need(self.settings.long_edge))

    # --- pictures and codes ---

    @functools.cached_property
    def truncated(self) -> Truncated:
        """The network that computes the codes."""
        s = self.settings
        return self.network.truncated(
            self.layers, s.pool, self.ctx, self.precision, s.pool_rounding
        )

    @functools.cached_property
    def content(self) -> Dict[str, NDArray]:
        """The codes of the content picture, (1, C, M, N) for each layer."""
        return self.truncated(self.to_device(self._prepared("content")))

    @functools.cached_property
    def style(self) -> Dict[str, NDArray]:
        """The codes of the style picture, (1, C, M, N) for each layer."""
        return self.truncated(self.to_device(self._prepared("style")))

    def _prepared(self, role: str) -> np.ndarray:
        """Return a picture as input of the network, (1, 3, H, W)."""
        s = self.settings
        scale = s.content_scale if role == "content" else s.style_scale
        return pictures.to_network(
            self._pictures[role].pixels,
            self._size(role),
            scale,
            self.network.mean,
            s.resize_mode,
            s.anti_aliasing,
        )

    def to_device(self, array: np.ndarray, dtype: str = "float32") -> NDArray:
        """Return an array on the device of this call."""
        return mx.nd.array(array, ctx=self.ctx, dtype=dtype)

    def again(self, found: Inversion) -> Dict[str, NDArray]:
        """Return the codes of the picture of an inversion."""
        return self.truncated(self.to_device(pictures.from_rgb(found.array, self.network.mean)))

    def check_filters(self, filters: Sequence[int]) -> None:
        """Check that all layers have the given filters."""
        for name in self.layers:
            self.network.check_filters(filters, name)

    def silent(self) -> Dict[str, List[int]]:
        """Return, and log, the feature maps to which Eq. 3 cannot assign energy."""
        found = {name: codes.silent(values) for name, values in self.content.items()}
        for name, quiet in found.items():
            if quiet:
                text = "%s: %d feature maps have no positive sum and stay 0: %s"
                log.warning(text, name, len(quiet), quiet)
            if self.network.layer(name).negative:
                text = "%s can be negative, but Eq. 3 assumes values that are not negative"
                log.warning(text, name)
        return found

    def _read_init(self) -> Optional[np.ndarray]:
        """Check `init` and add it to the record; return it as (H, W, 3) if it is a picture."""
        init = self.options.init
        if init is None or (isinstance(init, str) and init == "noise"):
            return None
        if isinstance(init, str) and init == "content":
            self.record["init"] = "content"
            return None
        try:
            values = pictures.first_picture(init, self.size)
        except InputError as error:
            text = str(error)
            raise InputError(text if "init" in text else f"init: {text}") from None
        self.record["init"] = files.array_digest(values)
        return values

    def _first(self) -> np.ndarray:
        """Return the initial picture (1, 3, H, W) with the mean subtracted."""
        if self._init is not None:
            return pictures.from_rgb(self._init, self.network.mean)
        if "init" in self.record:
            return self._prepared("content")
        return descent.start((1, 3, *self.size), self.settings.start, self.record["seed"])

    # --- inversion ---

    def describe(self, place: Place) -> Dict[str, Any]:
        """Return the record of one picture, without its outcome."""
        return {**self.record, **place.describe()}

    def invert(
        self,
        places: Sequence[Place],
        loss: Callable[[Sequence[Place]], Loss],
        notes: Callable[[], Mapping[str, Any]] = dict,
    ) -> List[Inversion]:
        """Return an inversion for each place, from the store or by minimising the loss in batches.

        Parameters
        ----------
        places
            The pictures of the call, or some of them.
        loss
            Function that returns the loss of some places. It is called for each batch, so that
            only the targets of one batch are in memory.
        notes
            Function that returns entries to be added to the records of computed inversions.
        """

        def compute(wanted: Sequence[int], keep: Keep) -> List[Inversion]:
            return self._compute(places, wanted, loss, notes(), keep)

        if self.options.store is None:
            return compute(range(len(places)), lambda _index, _inversion: None)
        return self.options.store.obtain([self.describe(place) for place in places], compute)

    def _compute(
        self,
        places: Sequence[Place],
        wanted: Sequence[int],
        loss: Callable[[Sequence[Place]], Loss],
        notes: Mapping[str, Any],
        keep: Keep,
    ) -> List[Inversion]:
        """Minimise the loss of the places with the indices `wanted`."""
        found: List[Inversion] = []
        at_once = self._batch()
        while len(found) < len(wanted):
            group = wanted[len(found) : len(found) + at_once]
            chosen = [places[index] for index in group]

            def keep_row(row: int, one: Inversion, group: Sequence[int] = group) -> None:
                keep(group[row], one)

            done = self._invert_batch(chosen, loss(chosen), notes, keep_row)
            if done is None:
                at_once = len(group) // 2
                text = "%s is out of memory with a batch of %d pictures; continuing with %d"
                log.warning(text, self.ctx, len(group), at_once)
                continue
            found += done
            if any(one.stopped == "interrupted" for one in done):
                break
        return found

    def _invert_batch(
        self, places: Sequence[Place], loss: Loss, notes: Mapping[str, Any], keep: Keep
    ) -> Optional[List[Inversion]]:
        """Invert a batch; return ``None`` if it does not fit into memory but can be split."""
        ready: Dict[int, Inversion] = {}

        def inversion(row: int, done: descent.Descent) -> Inversion:
            record = {**self.describe(places[row]), **notes}
            reached = self._reached(done, loss.take([row]), places[row])
            return self._inversion(done, record, *reached)

        def finished(row: int, done: descent.Descent) -> None:
            ready[row] = inversion(row, done)
            keep(row, ready[row])

        found = self._descend(loss, places, finished)
        if found is None:
            return None
        return [ready.get(row) or inversion(row, done) for row, done in enumerate(found)]

    def _descend(
        self,
        loss: Loss,
        places: Sequence[Place],
        finished: Callable[[int, descent.Descent], None],
    ) -> Optional[List[descent.Descent]]:
        """Minimise a batch; return ``None`` if it does not fit into memory but can be split."""
        try:
            done = descent.minimise(
                self.truncated,
                loss,
                self.to_device(self._first()),
                self.settings,
                self.network.mean,
                self.options.callback,
                self.options.progress,
                self._label(places),
                finished,
            )
        except mx.MXNetError as error:
            if len(places) == 1 or not out_of_memory(error):
                raise
        else:
            if any(one.stopped == "diverged" and not one.loss for one in done):
                raise InputError(
                    "the loss of the initial picture is not a finite number: reduce code_weight,"
                    " alpha, beta, or the values of init"
                )
            return done
        finally:
            self.truncated.free()
        release_memory(self.ctx)  # not earlier, because the error keeps the batch alive
        return None

    def _label(self, places: Sequence[Place]) -> str:
        where = "" if len(self.layers) > 2 else " ".join(self.layers)
        which = ",".join(filter(None, map(str, places)))
        return " ".join(part for part in (self.record["function"], where, which) if part)

    def _reached(
        self, done: descent.Descent, loss: Loss, place: Place
    ) -> Tuple[Optional[float], Optional[float]]:
        """Return the explained part of the target and the energy share of the feature map."""
        if done.stopped not in FINISHED:
            return None, None
        self.truncated.free()  # room for another batch
        code = self.truncated(self.to_device(done.image[None]))
        explained = loss.explained(code).asscalar()
        shares = [
            codes.energy_share(values, [place.filter])
            for values in code.values()
            if place.filter is not None
        ]
        self.truncated.free()
        return _finite(explained), _finite(np.mean(shares)) if shares else None

    def _inversion(
        self,
        found: descent.Descent,
        record: Dict[str, Any],
        explained: Optional[float],
        energy_share: Optional[float],
    ) -> Inversion:
        return Inversion(
            array=pictures.to_rgb(found.image, self.network.mean),
            loss=found.loss,
            change=found.change,
            stopped=found.stopped,
            record=record,
            seconds=found.seconds,
            explained=explained,
            energy_share=energy_share,
        )


def _finite(value: float) -> Optional[float]:
    """Return a number that JSON can represent, or ``None``."""
    return float(value) if math.isfinite(value) else None


def number_format(precision: Union[str, Precision], network: Network, ctx: Context) -> Precision:
    """Return the number format to compute in; for "auto", it depends on network and device.

    Raises
    ------
    InputError
        If the device does not support the number format.
    """
    if precision == "auto" and "bfloat16" not in network.precisions:
        found = Precision("float32", f"the only precision of {network.name}")
        log.info("precision auto: %s (%s)", found.name, found.reason)
        return found
    return choose(precision, ctx)


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
