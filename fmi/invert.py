"""Pictures from modified codes: the functions that notebooks use.

>>> import fmi.invert
>>> panels = fmi.invert.feature_map("golden_gate.jpg", "relu3_2", [0, 1, 2])  # doctest: +SKIP
>>> panels[0].save("relu3_2_filter0.png")  # doctest: +SKIP

Every function takes the keywords of :class:`Options`, and every field of
:class:`fmi.settings.Settings` (and of :class:`fmi.settings.Transfer` for style transfer) as a
keyword: ``long_edge=256, steps=100, stop=0, denoise=0, pool="max" ...``. A picture is a path, a
PIL image, or an (H, W, 3) uint8 RGB array. Wherever a layer is taken, several may be given (also as
``layers=``); their codes are then inverted together, as the 2016 code can.
"""

from __future__ import annotations

import functools
import io
import json
import logging
import platform
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
from PIL import Image

import fmi
from fmi import codes, descent, files, losses, pictures, vgg
from fmi import settings as presets
from fmi import weights as weights_
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
from fmi.losses import Loss
from fmi.pictures import Source
from fmi.settings import Settings

log = logging.getLogger(__name__)

Layers = Union[str, Sequence[str]]
BATCH_SHARE = 0.5  # of the free memory, what a batch may take where `batch` is 0


@dataclass(frozen=True)
class Options:
    """Keywords common to all functions.

    Attributes
    ----------
    weights
        ``"auto"``, ``"vgg19"``, ``"embedded"``, a path, or Weights (:func:`fmi.weights.load`).
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


@dataclass
class Inversion:
    """A picture made from a code, and how it came about.

    Attributes
    ----------
    array
        (H, W, 3) float32 RGB on the 0-255 scale, neither clipped nor denoised.
    loss
        One value a step.
    change
        Relative change of the picture in its last step.
    stopped
        ``"change"``, ``"steps"`` or ``"interrupted"``.
    settings
        All that is needed to repeat it, as plain data.
    seconds
        From the start of its batch until it stopped.
    """

    array: np.ndarray
    loss: List[float]
    change: float
    stopped: str
    settings: Dict[str, Any]
    seconds: float

    @property
    def steps(self) -> int:
        """How many steps were made."""
        return len(self.loss)

    @property
    def undenoised(self) -> Image.Image:
        """The picture clipped to 8 bits."""
        return Image.fromarray(pictures.eight_bits(self.array))

    @property
    def image(self) -> Image.Image:
        """The picture clipped to 8 bits and denoised, as the authors' figures show it."""
        pixels = pictures.eight_bits(self.array)
        return Image.fromarray(pictures.denoised(pixels, self.settings["settings"]["denoise"]))

    def describe(self) -> Dict[str, Any]:
        """The settings and how the descent ended, as plain data."""
        final = self.loss[-1] if self.loss else None
        outcome = {"steps": self.steps, "stopped": self.stopped, "change": self.change}
        return {**self.settings, "outcome": {**outcome, "final_loss": final}}

    def save(self, path: Union[str, Path], undenoised: bool = False, **extra: Any) -> None:
        """Write the picture as PNG, its description in a text chunk and in a JSON beside it.

        Parameters
        ----------
        path
            Of the PNG; the JSON has its name with ``.json``.
        undenoised
            Write the picture before denoising too, its name ending in ``_undenoised.png``.
        extra
            More for the JSON.

        Raises
        ------
        InputError
            If `path` does not end in ``.png`` or cannot be written.
        """
        path = Path(path)
        if path.suffix.lower() != ".png":
            raise InputError(f"{path}: an inversion is saved as .png")
        text = json.dumps(self.describe(), sort_keys=True)
        if undenoised:
            raw = path.with_name(f"{path.stem}_undenoised.png")
            pictures.save_png(raw, np.asarray(self.undenoised), {"fmi": text})
        pictures.save_png(path, np.asarray(self.image), {"fmi": text})
        record = {**self.describe(), "loss": self.loss, **extra}
        files.save_json(path.with_suffix(".json"), record)

    def _repr_png_(self) -> bytes:
        """What Jupyter shows."""
        buffer = io.BytesIO()
        self.image.save(buffer, format="PNG")
        return buffer.getvalue()

    def __repr__(self) -> str:
        height, width = self.array.shape[:2]
        return (
            f"Inversion({self.settings['function']}, {width} x {height}, {self.steps} steps,"
            f" stopped by {self.stopped}, {self.seconds:.1f} s)"
        )


F = TypeVar("F", bound=Callable[..., Any])


def _in_one_line(function: F) -> F:
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


@_in_one_line
def code(picture: Source, layer: Optional[Layers] = None, **options: Any) -> Inversion:
    """Classical code inversion: a picture whose code is that of `picture`.

    Parameters
    ----------
    picture
        Path, PIL image, or (H, W, 3) uint8 RGB array.
    layer
        Such as ``"relu3_2"``, or several.
    **options
        See :class:`Options` and :class:`fmi.settings.Settings`.

    Raises
    ------
    fmi.errors.InputError
        For an unknown layer or option, an unreadable picture, or weights that lack the layer.
    """
    lab = _Lab("code", _layers(layer, options), options)
    content = lab.content(picture)
    return lab.invert(lab.code_loss(lab.network(content)), [{}])[0]


@_in_one_line
def feature_map(
    picture: Source,
    layer: Layers,
    filters: Union[int, Sequence[int]],
    chain: bool = False,
    **options: Any,
) -> List[Inversion]:
    """Feature map inversion: what a filter extracts from a picture (Eq. 1-2, Fig. 3).

    Parameters
    ----------
    picture
        Path, PIL image, or (H, W, 3) uint8 RGB array.
    layer
        Such as ``"relu3_2"``.
    filters
        One or several, counted from 0.
    chain
        Make the target of the second and every further filter from the code of the picture just
        found, as the script of 2016 does that drew the published Fig. 3; otherwise every
        target comes from `picture` (Eq. 2) and all are descended in one batch.
    **options
        See :class:`Options` and :class:`fmi.settings.Settings`.

    Returns
    -------
    list of Inversion
        One for each filter; after Ctrl-C those begun.

    Raises
    ------
    fmi.errors.InputError
        As for :func:`code`, and for a filter that the layer has not.
    """
    lab = _Lab("feature_map", _layers(layer, options), options)
    chosen = lab.filters(filters)
    now = lab.network(lab.content(picture))
    labels: List[Dict[str, Any]] = [{"filter": index, "chain": chain} for index in chosen]
    if chain:
        labels = [{**label, "filters_before": chosen[:place]} for place, label in enumerate(labels)]
    found: List[Inversion] = []
    for group in [[place] for place in range(len(chosen))] if chain else [range(len(chosen))]:
        targets = {name: codes.isolate(now[name], [chosen[i] for i in group]) for name in now}
        found += lab.invert(lab.code_loss(targets), [labels[i] for i in group])
        if found[-1].stopped == "interrupted":
            break
        if chain:
            now = lab.network(lab.to_device(pictures.from_rgb(found[-1].array, lab.weights.mean)))
    return found


@_in_one_line
def random(
    picture: Source,
    layer: Optional[Layers] = None,
    draws: int = 1,
    seed: int = 0,
    **options: Any,
) -> List[Inversion]:
    """Randomly modified code inversion: energies reallocated at random (Eq. 3-4, Fig. 4).

    Parameters
    ----------
    picture
        Path, PIL image, or (H, W, 3) uint8 RGB array.
    layer
        Such as ``"relu3_1"``.
    draws
        How many pictures; draw i with a seed is the same whatever their number.
    seed
        Of the draws and of the first picture.
    **options
        See :class:`Options` and :class:`fmi.settings.Settings`.

    Raises
    ------
    fmi.errors.InputError
        As for :func:`code`.
    """
    lab = _Lab("random", _layers(layer, options), {**options, "seed": seed})
    if draws < 1:
        raise InputError(f"draws={draws} should be at least 1")
    now = lab.network(lab.content(picture))
    draw = codes.normal_shares if lab.settings.shares == "normal" else codes.simplex_shares
    targets = {}
    for place, (name, values) in enumerate(now.items()):
        lab.note_silent(name, values)
        shares = [
            draw(np.random.RandomState([seed, index, place]), values.shape[1])
            for index in range(draws)
        ]
        targets[name] = codes.reallocate(values, lab.to_device(np.stack(shares), "float64"))
    return lab.invert(lab.code_loss(targets), [{"draw": index} for index in range(draws)])


@_in_one_line
def purposeful(content: Source, style: Source, **options: Any) -> Inversion:
    """Purposefully modified code inversion, PMCI: the style's energies (Eq. 5, Fig. 5).

    Parameters
    ----------
    content, style
        Paths, PIL images, or (H, W, 3) uint8 RGB arrays.
    **options
        See :class:`Options`, :class:`fmi.settings.Settings` and
        :class:`fmi.settings.Transfer` (``content_layer=``, ``style_layers=``, ``alpha=`` ...).

    Raises
    ------
    fmi.errors.InputError
        As for :func:`code`.
    """
    lab = _Lab("purposeful", [], options)
    return lab.transfer(content, style, codes.energy, losses.energy)


@_in_one_line
def gatys(content: Source, style: Source, **options: Any) -> Inversion:
    """Style transfer by Gram matrices (Gatys et al. 2016), the baseline of Fig. 5.

    Parameters
    ----------
    content, style
        Paths, PIL images, or (H, W, 3) uint8 RGB arrays.
    **options
        As for :func:`purposeful`.

    Raises
    ------
    fmi.errors.InputError
        As for :func:`code`.
    """
    lab = _Lab("gatys", [], options)
    return lab.transfer(content, style, codes.gram, losses.gram)


@_in_one_line
def rank_match(
    content: Source, style: Source, layer: Optional[Layers] = None, **options: Any
) -> Inversion:
    """The 2016 code's extra mode: feature maps exchanged by the rank of their energies.

    Parameters
    ----------
    content, style
        Paths, PIL images, or (H, W, 3) uint8 RGB arrays.
    layer
        Such as ``"relu3_1"``, or several.
    **options
        See :class:`Options` and :class:`fmi.settings.Settings`.

    Raises
    ------
    fmi.errors.InputError
        As for :func:`code`.
    """
    lab = _Lab("rank_match", _layers(layer, options), options)
    now = lab.network(lab.content(content))
    other = lab.network(lab.style(style))
    targets = {name: codes.rank_match(now[name], other[name]) for name in now}
    return lab.invert(lab.code_loss(targets), [{}])[0]


@_in_one_line
def activations(picture: Source, layer: Layers, **options: Any) -> Dict[str, NDArray]:
    """The codes of a picture: what the functions above start from.

    Parameters
    ----------
    picture
        Path, PIL image, or (H, W, 3) uint8 RGB array.
    layer
        Such as ``"relu3_2"``, or several.
    **options
        See :class:`Options` and :class:`fmi.settings.Settings`.

    Returns
    -------
    dict
        Layer to code, (1, C, M, N).
    """
    lab = _Lab("activations", _layers(layer, options), options)
    return lab.network(lab.content(picture))


def row(values: np.ndarray, like: NDArray) -> NDArray:
    """A vector as a (1, C) float64 array on the device of `like`."""
    return mx.nd.array(values[None], ctx=like.context, dtype="float64")


def _layers(layer: Optional[Layers], options: Dict[str, Any]) -> List[str]:
    """The layers given as `layer` or with the keyword ``layers=``, which is taken out."""
    both = [given for given in (layer, options.pop("layers", None)) if given is not None]
    if len(both) == 2:
        raise InputError("layer and layers= are both given; use one of them")
    names = [both[0]] if both and isinstance(both[0], str) else [n for x in both for n in x]
    if not names:
        raise InputError("no layer is given; name at least one, such as 'relu3_2'")
    return [vgg.check_layer(name) for name in names]


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
    least = vgg.smallest_side(layer)
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


class _Lab:
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
        check_size(picture, size, vgg.deepest(self.network.layers))
        self.record["pictures"][role] = picture.describe()
        s = self.settings
        return self.to_device(
            pictures.to_network(
                picture.pixels, size, scale, self.weights.mean, s.resize_mode, s.anti_aliasing
            )
        )

    def to_device(self, array: np.ndarray, dtype: str = "float32") -> NDArray:
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


def versions() -> Dict[str, str]:
    """The versions that a result depends on."""
    return {
        "fmi": fmi.__version__,
        "mxnet": mx.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }
