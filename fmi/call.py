"""Calls: the common part of the functions of :mod:`fmi.invert`, from keywords to results."""

from __future__ import annotations

import copy
import functools
import logging
import math
from dataclasses import dataclass, replace
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

from fmi import checks, codes, descent, files, memory, optimisers, pictures, records, snapshots
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
from fmi.losses import Loss, Sums
from fmi.networks import catalogue
from fmi.networks.base import Input, Network, Truncated, split_filters
from fmi.networks.tiles import Tiled
from fmi.networks.weights import Weights
from fmi.pictures import Source
from fmi.settings import TRANSFERS, UNMASKED, Settings, Transfer

__all__ = [
    "ALL",
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
ALL = "all"  # filters: all of a layer
Filters = Union[int, str, Sequence[int]]
Init = Union[None, Source, np.ndarray]


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
        ``None``, ``"code"`` is used for the VGG networks of 2014 and the embedded network, and
        ``"fast"``, which is scale-free, for all others, such as ``"vgg16-hed"``.
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
    memory
        Memory that the call may use: a share of the free memory of the device, up to 1, or a number
        of bytes, such as ``4e9``. A batch contains as many pictures as fit. If not even one does,
        the network computes it in tiles (:mod:`fmi.networks.tiles`), with the same result.
    progress
        Whether to show a progress bar. If ``None``, it is shown in terminals and notebooks.
    callback
        Function called after each step with the :class:`fmi.descent.State`. A batch that does not
        fit into the memory of the device is restarted in smaller batches.
    mask
        Picture whose white confines where a texture or style goes: where it is black or
        transparent, the code of the content picture is asked for, and style counts nothing. It is
        resized to the content.
    preserve_color
        Whether the result has the colours of the content picture and its own luminance alone
        (Gatys et al. 2016, Preserving color in neural artistic style transfer, section 3.2).
    store
        A :class:`fmi.runs.store.Store`. Results that it holds are not computed again, and new ones
        are added to it.
    snapshot
        File to which the state of the descent is written now and then (:mod:`fmi.snapshots`). If
        the process is killed, the same call continues from it, and gives the same pictures. The
        file is removed when the call returns what it was asked for. If ``None``, a `store` keeps
        snapshots in a folder of its own.
    """

    network: Any = None
    weights: Union[str, Path, Weights] = "auto"
    input: Union[None, str, Input] = None
    settings: Union[None, str, Settings] = None
    seed: int = 0
    init: Init = None
    ctx: Union[None, str, Context] = None
    precision: Union[str, Precision] = "float32"
    memory: float = 0.5
    progress: Optional[bool] = None
    callback: Optional[descent.Callback] = None
    mask: Optional[Source] = None
    preserve_color: bool = False
    store: Optional[Keeper] = None
    snapshot: Union[None, str, Path] = None


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


def _is_all(filters: Optional[Filters]) -> bool:
    return isinstance(filters, str) and filters == ALL


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
        One or several filters, numbered from 0; or :data:`ALL`, for which the returned list is
        empty, as the network is not known here.

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
    if filters is None or _is_all(filters):
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
    interrupted
        Whether Ctrl-C has ended the computation, even if all pictures of a batch had just stopped.

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
        if function in UNMASKED and options.get("mask") is not None:
            raise InputError(
                f"mask= confines where a texture or style goes, and {function} has neither: omit it"
            )
        section = function if function in TRANSFERS else None
        common = presets.field_names(Options)
        self._check_keywords(options, common, section)
        self._transfers = section is not None
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
            replaced = replaced_layers(self.settings, section, self.network, overrides)
            self.settings = _full_names(replaced, section, self.network)
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
        self.memory = memory.allowed(
            checks.checked("memory", self.options.memory, checks.Memory), free_memory(self.ctx)
        )
        self._crop = self._crop_that_fits()
        nodes = self.network.nodes(self.layers)
        self.record: Dict[str, Any] = {
            "function": function,
            "layers": list(self.layers),
            **({"nodes": nodes} if nodes else {}),
            "settings": presets.as_dict(self.settings, section),
            "seed": seed,
            "precision": precision.name,
            **({"precision_reason": precision.reason} if precision.reason else {}),
            "device": str(self.ctx),
            "device_name": device_name(self.ctx),
            "network": self.network.describe(),
            "pictures": {role: picture.describe() for role, picture in self._pictures.items()},
            "versions": dict(versions()),
        }
        self._init = self._read_init()
        self._mask = self._read_mask()
        if checks.checked("preserve_color", self.options.preserve_color, bool):
            self.record["preserve_color"] = True
        if self.settings.jitter and self.settings.descent == "lbfgs":
            raise InputError("jitter= needs descent='momentum', since L-BFGS compares gradients")
        self.snapshot = self._find_snapshot()
        self.interrupted = False

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
        own = role != "content" and self.settings.style_size == "own"
        pixels = self._pictures[role if own else "content"].pixels
        return pictures.fitted(pixels, long_edge or self.settings.long_edge)

    def _find_snapshot(self) -> Optional[snapshots.Snapshot]:
        if self.options.snapshot is not None:
            return snapshots.in_file(self.options.snapshot)
        if self.options.store is not None:
            return snapshots.in_folder(self.options.store.snapshots)
        return None

    # --- memory ---

    @functools.cached_property
    def _needed(self) -> memory.Need:
        both = len(self._pictures)  # rank matching needs the codes of two pictures
        kept = [self.scheme.content_layer] if self._transfers else self.layers * both
        arrays = optimisers.kept(self.settings)
        return memory.Need(self.network, self.precision, self.layers, kept, arrays)

    def _need(self, long_edge: int) -> int:
        """Estimate the bytes that one picture needs as a whole."""
        return self._needed.whole(*self._size("content", long_edge))

    def _crop_that_fits(self) -> Optional[Tuple[int, int]]:
        """Return the largest crops that fit into memory; ``None`` if the whole picture does."""
        edge = self.settings.long_edge
        if self._need(edge) <= self.memory:
            return None
        reason = in_tiles = ""
        try:
            crop = self._largest_crop(edge, self.memory)
        except InputError as error:
            crop, reason = None, f"; {error}"
            if self._need(edge) <= free_memory(self.ctx):
                log.info("the picture is computed as a whole: %s", error)
                return None
        if crop:
            return crop
        if not reason:
            least = math.ceil(self._least_in_tiles(edge) / 1e8) / 10
            in_tiles = f" as a whole and {least:g} GB in tiles"
        raise InputError(
            f"a picture of {self.size[1]} x {self.size[0]} pixels needs about"
            f" {self._need(edge) / 1e9:.2g} GB{in_tiles}, but {self.memory / 1e9:.2g} GB of"
            f" {self.ctx} may be used: {self._remedy()}{reason}"
        )

    def _largest_crop(self, long_edge: int, memory: int) -> Optional[Tuple[int, int]]:
        """Return the largest crops that fit, for as many pictures as `batch` demands."""
        room = memory // max(1, self.settings.batch)
        return self._needed.crop(*self._size("content", long_edge), room)

    def _least_in_tiles(self, long_edge: int) -> int:
        """Return with how many bytes, to a hundredth, a picture can be computed in tiles."""
        low, high = 0, self._need(long_edge) * max(1, self.settings.batch)
        while high - low > high / 100:
            middle = (low + high) // 2
            fits = self._largest_crop(long_edge, middle) is not None
            low, high = (low, middle) if fits else (middle, high)
        return high

    def _remedy(self) -> str:
        """Return what to do if the picture does not fit into memory."""

        def fits(edge: int) -> bool:
            if self._need(edge) <= self.memory:
                return True
            try:
                return self._largest_crop(edge, self.memory) is not None
            except InputError:
                return False

        low, high = self._smallest_edge(), self.settings.long_edge
        if not fits(low):
            return "not even the smallest picture fits; choose a shallower layer"
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if fits(middle) else (low, middle)
        return f"the largest long_edge that fits is {low}"

    def _smallest_edge(self) -> int:
        """Return the smallest long edge with which no layer is empty."""
        side = max(self.network.smallest_side(name) for name in self.layers)
        height, width = self._pictures["content"].pixels.shape[:2]
        return math.ceil(side * max(height, width) / min(height, width))

    def _batch(self) -> int:
        """Return how many pictures can be inverted at once."""
        fitting = self.memory // self._need(self.settings.long_edge)
        return self.settings.batch or max(1, fitting)

    # --- pictures and codes ---

    @functools.cached_property
    def truncated(self) -> Truncated:
        """The network that computes the codes, in tiles if memory does not suffice otherwise."""
        s = self.settings
        whole = self.network.truncated(
            self.layers, s.pool, self.ctx, self.precision, s.pool_rounding
        )
        if self._crop is None:
            return whole
        tiled = Tiled(whole, {n: self.network.reach(n) for n in self.layers}, self._crop)
        plan = tiled.plan(*self.size)
        log.info(
            "%d x %d pixels are computed in %d tiles of %d x %d, as a whole they would need %.2g GB"
            " of %.2g GB",
            *(self.size[1], self.size[0], len(plan.tiles), plan.crop[1], plan.crop[0]),
            *(self._need(self.settings.long_edge) / 1e9, self.memory / 1e9),
        )
        return tiled

    @functools.cached_property
    def content(self) -> Dict[str, NDArray]:
        """The codes of the content picture, (1, C, M, N) for each layer."""
        return self.truncated(self.to_device(self._prepared("content")))

    @functools.cached_property
    def style(self) -> Dict[str, NDArray]:
        """The codes of the style picture, (1, C, M, N) for each layer."""
        return self.truncated(self.to_device(self._prepared("style")))

    def kept(self) -> NDArray:
        """Return the code (1, C, M, N) of the content picture at the content layer."""
        image = self.to_device(self._prepared("content"))
        return self.truncated.code(image, self.scheme.content_layer)

    def style_sums(
        self,
        statistic: Callable[[NDArray], NDArray],
        weights: Sequence[float],
        masks: Mapping[str, Optional[NDArray]],
    ) -> Dict[str, Sums]:
        """Return a statistic for each style layer, the weighted mean over all style pictures.

        With masks (:meth:`mask_at`), it is that of as many positions as they are white at.
        """
        layers, sizes = self.scheme.style_layers, self.truncated.sizes(*self.size)
        wanted = {name: math.prod(sizes[name]) for name in layers}
        means: Dict[str, NDArray] = {}
        for role, weight in zip([r for r in self._pictures if r != "content"], weights):
            found = self.truncated.sums(self.to_device(self._prepared(role)), statistic, layers)
            own = self.truncated.sizes(*self._size(role))
            for name in layers:
                part = found[name] * (weight * wanted[name] / math.prod(own[name]))
                means[name] = part if name not in means else means[name] + part
        return {n: Sums(means[n], wanted[n], _white(masks[n], wanted[n])) for n in layers}

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
        """Return the codes of the picture of an inversion, and forget those of the content."""
        self.__dict__.pop("content", None)
        return self.truncated(self.to_device(pictures.from_rgb(found.array, self.network.mean)))

    def release(self) -> None:
        """Forget the codes and the network on the device; both are computed again if needed."""
        for name in ("content", "style", "truncated"):
            self.__dict__.pop(name, None)

    def filters(self, given: Optional[Filters], chosen: Sequence[int]) -> List[int]:
        """Return the filters that are asked for, after checking that all layers have them.

        Parameters
        ----------
        given
            The argument of the user; :data:`ALL` means all that every layer has.
        chosen
            The filters that :func:`places_of` has found in it, or with the layers.
        """
        if _is_all(given):
            return list(range(min(self.network.layer(name).channels for name in self.layers)))
        for name in self.layers:
            self.network.check_filters(chosen, name)
        return list(chosen)

    def silent(self) -> Dict[str, List[int]]:
        """Return, and log, the feature maps to which Eq. 3 cannot assign energy."""
        found = {name: codes.silent(values) for name, values in self.content.items()}
        for name, quiet in found.items():
            if quiet:
                text = "%s: %d feature maps have no positive sum and stay 0: %s"
                log.warning(text, name, len(quiet), shown(quiet))
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

    def _read_mask(self) -> Optional[np.ndarray]:
        """Check `mask` and add it to the record; return it as (H, W) from 0 to 1."""
        if self.options.mask is None:
            return None
        mask = pictures.read(self.options.mask, background="black")
        brightest = int(mask.pixels.max())
        if 0 < brightest < 128:  # such as an array of 0 and 1
            raise InputError(
                f"the mask is too dark: its largest value is {brightest} of 255; paint white"
                " (255) where the style or texture goes"
            )
        pixels = pictures.first_picture(mask, self.size, "the mask")
        values = pixels.mean(axis=2) / 255
        self.record["mask"] = files.array_digest(values)
        return values

    def mask_at(self, layer: str) -> Optional[NDArray]:
        """Return the mask at the positions of a layer, (1, 1, M, N) from 0 to 1, or ``None``."""
        if self._mask is None:
            return None
        from skimage.transform import resize  # slow to import

        size = self.truncated.sizes(*self.size)[layer]
        values = resize(self._mask, size, order=1, mode="edge", anti_aliasing=True)
        return self.to_device(values[None, None].astype(np.float32))

    def confined(self, targets: Mapping[str, NDArray]) -> Dict[str, NDArray]:
        """Return targets (B, C, M, N) inside the mask, and the content's code outside."""
        if self._mask is None:
            return dict(targets)
        found = {}
        for name, target in targets.items():
            mask, content = self.mask_at(name), self.content[name]
            assert mask is not None
            inside = mx.nd.broadcast_mul(target, mask)
            found[name] = mx.nd.broadcast_add(inside, mx.nd.broadcast_mul(content, 1 - mask))
        return found

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
        return {**copy.deepcopy(self.record), **place.describe()}  # records can be changed

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
        self.interrupted = False
        at_once = self._batch()
        while len(found) < len(wanted):
            group = wanted[len(found) : len(found) + at_once]
            chosen = [places[index] for index in group]
            if self.snapshot is not None:
                chosen = chosen[: self.snapshot.together(self._keys(chosen))]
                group = group[: len(chosen)]

            def keep_row(row: int, one: Inversion, group: Sequence[int] = group) -> None:
                keep(group[row], one)

            done = self._invert_batch(chosen, loss(chosen), notes, keep_row)
            if done is None:
                at_once = len(group) // 2
                text = "%s is out of memory with a batch of %d pictures; continuing with %d"
                log.warning(text, self.ctx, len(group), at_once)
                continue
            found += done
            self.interrupted |= any(one.stopped == "interrupted" for one in done)
            if self.interrupted:
                break
        return found

    def _invert_batch(
        self, places: Sequence[Place], loss: Loss, notes: Mapping[str, Any], keep: Keep
    ) -> Optional[List[Inversion]]:
        """Invert a batch; return ``None`` if it does not fit into memory but can be split."""
        ready: Dict[int, Inversion] = {}

        def inversion(row: int, done: descent.Descent) -> Inversion:
            record = {**self.describe(places[row]), **notes}
            image = self._coloured(done.image[None])
            reached: Tuple[Optional[float], Optional[float]] = (None, None)
            if done.stopped in FINISHED:
                reached = self._reached(image, loss.take([row]), places[row])
            return self._inversion(done, image[0], record, *reached)

        def finished(row: int, done: descent.Descent) -> None:
            try:
                ready[row] = inversion(row, done)
                keep(row, ready[row])
            except KeyboardInterrupt:  # perhaps no picture is left that could say so
                self.interrupted = True
                raise

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
        part = None if self.snapshot is None else self.snapshot.part(self._keys(places))
        try:
            done = descent.minimise(
                self.truncated,
                loss,
                self.to_device(self._first()),
                self.settings,
                self.network.mean,
                self._callback(),
                self.options.progress,
                self._label(places),
                finished,
                part,
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
            if part is not None and not any(one.stopped == "interrupted" for one in done):
                part.end(done)
            return done
        finally:
            self.truncated.free()
        release_memory(self.ctx)  # not earlier, because the error keeps the batch alive
        return None

    def _keys(self, places: Sequence[Place]) -> List[str]:
        return [records.key(self.describe(place)) for place in places]

    def finish(self, places: Sequence[Place]) -> None:
        """Remove the snapshot after all of these places have been inverted."""
        if self.snapshot is not None:
            self.snapshot.finish(self._keys(places))

    def _label(self, places: Sequence[Place]) -> str:
        where = "" if len(self.layers) > 2 else " ".join(self.layers)
        which = ",".join(filter(None, map(str, places)))
        return " ".join(part for part in (self.record["function"], where, which) if part)

    def _coloured(self, images: np.ndarray) -> np.ndarray:
        """Return pictures (B, 3, H, W), with the content's colours if these are to be kept."""
        if not self.options.preserve_color:
            return images
        mean = self.network.mean
        content = pictures.to_rgb(self._prepared("content")[0], mean)
        arrays = [pictures.with_colours(pictures.to_rgb(one, mean), content) for one in images]
        return np.concatenate([pictures.from_rgb(array, mean) for array in arrays])

    def _callback(self) -> Optional[descent.Callback]:
        """Return the callback, which is shown pictures with the colours that they will have."""
        given = self.options.callback
        if given is None or not self.options.preserve_color:
            return given

        def show(state: descent.State) -> None:
            coloured = self.to_device(self._coloured(state.image.asnumpy()))
            given(replace(state, image=coloured))

        return show

    @property
    def _signed(self) -> bool:
        """Whether activations may be negative, so that sums of them are no energies."""
        return any(self.network.layer(name).negative for name in self.layers)

    def _reached(
        self, picture: np.ndarray, loss: Loss, place: Place
    ) -> Tuple[Optional[float], Optional[float]]:
        """Return the explained part of the target and the energy share of the feature map."""
        self.truncated.free()  # room for another batch
        image = self.to_device(picture)
        explained = loss.explained(self.truncated.losses(image, loss)).asscalar()
        shares = []
        if place.filter is not None and not self._signed:
            energies = self.truncated.sums(image, codes.energies, self.layers)
            shares = [codes.energy_share(each, [place.filter]) for each in energies.values()]
        self.truncated.free()
        return _finite(explained), _finite(np.mean(shares)) if shares else None

    def _inversion(
        self,
        found: descent.Descent,
        picture: np.ndarray,
        record: Dict[str, Any],
        explained: Optional[float],
        energy_share: Optional[float],
    ) -> Inversion:
        return Inversion(
            array=pictures.to_rgb(picture, self.network.mean),
            loss=found.loss,
            change=found.change,
            stopped=found.stopped,
            record=record,
            seconds=found.seconds,
            explained=explained,
            energy_share=energy_share,
        )


def _white(mask: Optional[NDArray], positions: int) -> float:
    """Return at how many positions a mask (1, 1, M, N) is white; at all if there is none.

    Raises
    ------
    InputError
        If it is black everywhere.
    """
    if mask is None:
        return positions
    found = float(mask.sum().asscalar())
    if not found > 0:
        raise InputError("the mask is black everywhere; paint white where the style goes")
    return found


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


def _full_names(settings: Settings, section: str, network: Network) -> Settings:
    """Replace the layers of a transfer, which may be ends of names, by their names in the network.

    Raises
    ------
    InputError
        If the network lacks a layer, or if a style layer is named twice.
    """
    scheme: Transfer = getattr(settings, section)
    styles = tuple(network.layer(name).name for name in scheme.style_layers)
    twice = sorted({name for name in styles if styles.count(name) > 1})
    if twice:
        raise InputError(f"style_layers names {', '.join(twice)} more than once")
    names = {"content_layer": network.layer(scheme.content_layer).name, "style_layers": styles}
    return presets.override(settings, names, section)


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
