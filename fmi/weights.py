"""Weights of VGG-19: found, read, brought to one form, and known by their digest.

The one form: float32, kernels (O, I, 3, 3) for RGB on the 0-255 scale minus a mean colour.
"""

from __future__ import annotations

import functools
import json
import logging
import os
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple, Union

import numpy as np

from fmi import files, pictures, vgg
from fmi.errors import InputError, unknown
from fmi.sources import formats, table
from fmi.sources.table import Layout, Source

log = logging.getLogger(__name__)

BN_EPSILON = 1e-5  # torchvision's and Gluon's
LARGEST = 2 << 30  # bytes of a file; VGG-19 with its dense layers takes 575 MB
GATYS = (0.2, 5.0)  # mean activations of normalised weights are about 1, Caffe's 10 to 1000


@dataclass(frozen=True)
class Weights:
    """A network's weights in the one form.

    Attributes
    ----------
    name
        The file's name without its suffix.
    path, sha256
        The file and its digest.
    mean
        RGB colour, 0-255, to subtract from a picture.
    arrays
        ``conv1_1_weight`` (O, I, 3, 3), ``conv1_1_bias`` (O,) ... float32, read-only.
    format, layout
        A key of :data:`fmi.formats.FORMATS`; how the file's own network takes a picture.
    source
        The entry of ``models/sources.yaml`` that has this digest, or ``None``.
    embedded
        Whether this is the small network that the package brings along, no VGG-19.
    """

    name: str
    path: Path
    sha256: str
    mean: Tuple[float, float, float]
    arrays: Mapping[str, np.ndarray]
    format: str
    layout: Layout
    source: Optional[str] = None
    embedded: bool = False

    @property
    def verified(self) -> bool:
        """Whether the digest is a known one."""
        return self.source is not None

    @property
    def covers(self) -> Tuple[str, ...]:
        """The convolutions that are there, from the first one on without a gap."""
        there = [f"{name}_weight" in self.arrays for name in vgg.CONVOLUTIONS]
        return vgg.CONVOLUTIONS[: there.index(False) if False in there else None]

    def describe(self) -> Dict[str, object]:
        """What identifies the weights, for an inversion's settings."""
        return {
            "name": self.name,
            "sha256": self.sha256,
            "source": self.source,
            "verified": self.verified,
            "embedded": self.embedded,
            "mean": list(self.mean),
        }


def load(weights: Union[str, Path, Weights], layers: Sequence[str]) -> Weights:
    """Weights that cover `layers`.

    Parameters
    ----------
    weights
        One of

        - a path;
        - the name of a source (``fmi weights list``); ``"vgg19"`` stands for the weights of
          Simonyan & Zisserman from any source, or a file of unknown digest whose name begins
          with ``vgg19``;
        - ``"embedded"``: the small network that the package brings along;
        - ``"auto"``: as ``"vgg19"``, else as ``"embedded"`` with a warning;
        - weights that are loaded already.
    layers
        Names of layers.

    Raises
    ------
    InputError
        If there are no such weights, they cannot be read, or they lack a layer; the first
        missing convolution is named.
    """
    needed = vgg.convolutions_before(vgg.deepest(layers))
    if isinstance(weights, Weights):
        return _covering(weights, needed)
    text = str(weights)
    known = table.models()
    if text == "embedded":
        return _covering(_embedded(), needed)
    if text == "vgg19":
        return _vgg19(needed, original=True)
    if text in known:
        return _covering(_named(known[text]), needed)
    if text != "auto":
        if os.sep not in text and "." not in text:
            raise unknown("weights", text, ("auto", "embedded", *known, "or a path"))
        return _covering(_with_warnings(read(weights)), needed)
    try:
        return _vgg19(needed, original=False)
    except InputError as error:
        if not embedded_path().is_file():
            raise
        found = _covering(_embedded(), needed)
        _warn(f"using the small embedded network, not VGG-19: {error}")
        return found


def embedded_path() -> Path:
    """The file of the embedded network."""
    return table.table_folder() / "embedded.npz"


def _embedded() -> Weights:
    path = embedded_path()
    if not path.is_file():
        raise InputError(f"the embedded network {path} is not there; install fmi anew")
    return read(path)


def _named(source: Source) -> Weights:
    path = table.find(source)
    if path is None:
        raise _missing(source.file, source.name)
    found = read(path)
    if found.source != source.name:
        raise InputError(
            f"{path} has not the digest of {source.name} ({source.digest}), its sha256 is"
            f" {found.sha256}; delete it and fetch it again: fmi weights fetch {source.name}"
        )
    return _with_warnings(found)


def _vgg19(needed: Sequence[str], original: bool) -> Weights:
    """The weights of 2014 with a known digest, else a file of an unknown one.

    If `original` is not asked for, else a network trained anew.
    """
    known = {source.file: source for source in table.models().values()}
    problems: List[InputError] = []
    first: List[Tuple[Path, Optional[Source]]] = []
    unverified: List[Tuple[Path, Optional[Source]]] = []
    last: List[Tuple[Path, Optional[Source]]] = []
    for path in table.candidates():
        source = known.get(path.name)
        if source is None:
            unverified.append((path, None))
        elif source.default:
            first.append((path, source))
        elif not original:
            last.append((path, source))
    for path, source in [*first, *unverified, *last]:
        try:
            found = _named_at(path, source) if source else read(path)
            return _with_warnings(_covering(found, needed))
        except InputError as error:
            problems.append(error)
    for problem in problems[1:]:
        log.debug("%s", problem)
    raise problems[0] if problems else _missing("vgg19.params", "vgg19")


def _named_at(path: Path, source: Source) -> Weights:
    found = read(path)
    if found.source != source.name:
        raise InputError(
            f"{path} is damaged: its sha256 is {found.sha256}, that of {source.name} should be"
            f" {source.digest}; delete it and fetch it again"
        )
    return found


def _missing(file: str, name: str) -> InputError:
    places = ", ".join(str(folder) for folder in table.folders("models"))
    return InputError(
        f"no VGG-19 weights ({file}) in {places}; with internet: fmi weights fetch {name};"
        " else give WEIGHTS=path, put the file's folder into FMI_MODELS, or use the embedded"
        " network: WEIGHTS=embedded"
    )


def _covering(weights: Weights, needed: Sequence[str]) -> Weights:
    for name in needed:
        if f"{name}_weight" not in weights.arrays:
            raise InputError(
                f"{weights.path} lacks {name}, the layers asked for need {needed[0]} to"
                f" {needed[-1]}; ask for shallower layers or give other weights"
            )
    return weights


@functools.lru_cache(maxsize=None)
def _warn(message: str) -> None:
    """Once a process: a figure loads the same weights many times."""
    log.warning("%s", message)


def _with_warnings(weights: Weights) -> Weights:
    """Say what a person should know before trusting a result."""
    notes = []
    if not weights.verified and not weights.embedded:
        notes.append(f"its digest is unknown, sha256 {weights.sha256}")
    if not weights.layout.original:
        notes.append("a network trained anew, whose filters are not those of the published Fig. 3")
    if notes:
        _warn(f"{weights.path}: {'; '.join(notes)}")
    return weights


# --- reading ---


def read(path: Union[str, Path]) -> Weights:
    """A weights file in any of the known formats and layouts, told by its content.

    Raises
    ------
    InputError
        If the file is missing, is damaged, or holds no VGG-19.
    """
    path = Path(path)
    try:
        status = path.stat()
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        raise InputError(
            f"weights {path} cannot be read: {getattr(error, 'strerror', error)}"
        ) from None
    if not path.is_file():
        raise InputError(f"weights {path} are not a file")
    if status.st_size > LARGEST:
        raise InputError(f"weights {path} are larger than VGG-19 can be")
    return _read(path, (status.st_mtime_ns, status.st_size, status.st_ino))


@functools.lru_cache(maxsize=2)
def _read(path: Path, _state: Tuple[int, int, int]) -> Weights:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"weights {path} cannot be read: {error.strerror}") from None
    source = table.identify(data, table.models())
    known = table.layouts()[source.layout] if source else None
    try:
        form, arrays = formats.read(data)
        text = arrays.pop(formats.METADATA, None)
        layout, named = named_arrays(arrays, known)
        mean = arrays.get("averageImage", _metadata(text).get("mean"))
        one_form, colour = canonical(named, layout, mean)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    return Weights(
        name=path.stem,
        path=path,
        sha256=files.digests(data)["sha256"],
        mean=colour,
        arrays=one_form,
        format=form,
        layout=layout,
        source=source.name if source else None,
        embedded=embedded_path().is_file() and path.samefile(embedded_path()),
    )


def _metadata(text: Optional[np.ndarray]) -> Dict[str, Any]:
    if text is None:
        return {}
    try:
        found = json.loads(str(text))
    except (ValueError, RecursionError):
        raise InputError("its metadata is damaged") from None
    return found if isinstance(found, dict) else {}


# --- names: how files call their arrays ---

Key = Tuple[str, str]  # convolution, and weight, bias, gamma, beta, mean or variance
Namer = Callable[[str, bool], Optional[Key]]  # from a name, and whether there is a BatchNorm

KINDS = {
    "W": "weight", "b": "bias", "kernel": "weight", "weight": "weight", "bias": "bias",
    "filters": "weight", "biases": "bias", "0": "weight", "1": "bias",
    "gamma": "gamma", "beta": "beta", "running_mean": "mean", "running_var": "variance",
}  # fmt: skip
NORM = {"weight": "gamma", "bias": "beta"}  # torchvision's names for them
NUMBER = re.compile(r"\d{1,2}")


def _field(name: str, _: bool) -> Optional[Key]:
    match = re.fullmatch(r"(?:arg:)?(conv[1-5]_[1-4])_(weight|bias)", name)
    return (match[1], match[2]) if match else None


def _dotted(name: str, _: bool) -> Optional[Key]:
    match = re.fullmatch(r"(conv[1-5]_[1-4])\.(weight|bias)", name)
    return (match[1], match[2]) if match else None


def _keras(name: str, _: bool) -> Optional[Key]:
    if name.startswith("optimizer"):
        return None
    match = re.fullmatch(
        r"(?:.*/)?block([1-5])_conv([1-4])/(?:.*/)?(?:block\d_conv\d_)?(W|b|kernel|bias)"
        r"(?:_\d+)?(?::0)?",
        name,
    ) or re.fullmatch(r"(?:.*/)?block([1-5])_conv([1-4])/vars/([01])", name)
    if match:
        return f"conv{match[1]}_{match[2]}", KINDS[match[3]]
    match = re.fullmatch(r"(?:.*/)?layers/conv2d(?:_(\d{1,2}))?/vars/([01])", name)
    return _at(int(match[1] or 0), KINDS[match[2]]) if match else None


def _matconvnet(name: str, _: bool) -> Optional[Key]:
    match = re.fullmatch(r"layers/(conv[1-5]_[1-4])/(filters|biases)", name)
    return (match[1], KINDS[match[2]]) if match else None


def _features(name: str, norm: bool) -> Optional[Key]:
    """torchvision's, timm's and Gluon's structural names: numbered modules."""
    match = re.fullmatch(
        r"(?:.*\.)?features\.(\d{1,2})"
        r"\.(weight|bias|gamma|beta|running_mean|running_var)",
        name,
    )
    if not match:
        return None
    module, kind = int(match[1]), KINDS[match[2]]
    places = _modules(norm)
    if module in places:
        return vgg.CONVOLUTIONS[places.index(module)], kind
    if norm and module - 1 in places:
        return vgg.CONVOLUTIONS[places.index(module - 1)], NORM.get(kind, kind)
    return f"module {module}", kind


def _prefixed(name: str, _: bool) -> Optional[Key]:
    """Gluon's prefixed names: convolutions are counted."""
    match = re.fullmatch(r"(?:arg:)?(?:\w*_)?conv(\d{1,2})_(weight|bias)", name) or re.fullmatch(
        r"(?:arg:|aux:)?(?:\w*_)?batchnorm(\d{1,2})_(gamma|beta|running_mean|running_var)", name
    )
    return _at(int(match[1]), KINDS[match[2]]) if match else None


def _at(index: int, kind: str) -> Key:
    inside = index < len(vgg.CONVOLUTIONS)
    return (vgg.CONVOLUTIONS[index] if inside else f"convolution {index}"), kind


@functools.lru_cache(maxsize=None)
def _modules(norm: bool) -> Tuple[int, ...]:
    """The places of VGG-19's convolutions among its modules."""
    places, at = [], 0
    for count in vgg.BLOCKS:
        for _ in range(count):
            places.append(at)
            at += 3 if norm else 2  # convolution, (BatchNorm,) relu
        at += 1  # pooling
    return tuple(places)


# Name, layout that it suggests, whether other numbers of filters than VGG-19's are possible.
NAMINGS: Tuple[Tuple[Namer, str, bool], ...] = (
    (_field, "caffe", True),
    (_dotted, "caffe-bgr", False),
    (_keras, "keras", False),
    (_matconvnet, "matconvnet", False),
    (_features, "zoo", False),
    (_prefixed, "zoo", False),
)


def named_arrays(
    arrays: Mapping[str, np.ndarray], layout: Optional[Layout] = None
) -> Tuple[Layout, Dict[Key, np.ndarray]]:
    """Arrays by convolution and kind, and the layout that their names suggest.

    Parameters
    ----------
    arrays
        As :func:`fmi.formats.read` returns them.
    layout
        Of the source, where it is known.

    Raises
    ------
    InputError
        If the names are not those of a VGG-19.
    """
    norm = any(name.endswith("running_mean") for name in arrays)
    for namer, suggested, any_size in NAMINGS:
        named: Dict[Key, np.ndarray] = {}
        for name, array in arrays.items():
            key = namer(name, norm)
            if key is None or (key[0] not in vgg.CONVOLUTIONS and array.ndim != 4):
                continue  # such as the bias of a dense layer
            if key in named:
                raise InputError(f"two of its arrays could be {key[0]}'s {key[1]}")
            named[key] = array
        if not named:
            continue
        strange = next((name for name, _ in named if name not in vgg.CONVOLUTIONS), None)
        if strange:
            raise InputError(f"is no VGG-19: {strange} is a convolution that VGG-19 has not")
        found = layout or table.layouts()[suggested]
        if not any_size:
            _check_filters(named, found)
        return found, named
    raise InputError("holds no VGG-19: none of its arrays is called as VGG-19's conv1_1 is")


def _check_filters(named: Mapping[Key, np.ndarray], layout: Layout) -> None:
    """VGG-16 and others have layers of the same names; the numbers of filters tell."""
    for (name, kind), array in named.items():
        expected = vgg.FILTERS[int(name[4]) - 1]
        found = array.shape[layout.kernel.index("O")] if kind == "weight" else array.shape[0]
        if found != expected:
            raise InputError(f"is no VGG-19: {name} has {found} filters, not {expected}")


# --- the one form ---


def canonical(
    named: Mapping[Key, np.ndarray], layout: Layout, mean: Any = None
) -> Tuple[Dict[str, np.ndarray], Tuple[float, float, float]]:
    """Fold BatchNorm and input scale into the convolutions, order axes and colours.

    Parameters
    ----------
    named
        As :func:`named_arrays` returns them.
    layout
        Of their file.
    mean
        RGB, 0-255; ``None``: the layout's.

    Returns
    -------
    dict
        ``conv1_1_weight`` (O, I, 3, 3), ``conv1_1_bias`` (O,) ... float32, read-only.
    tuple
        The RGB mean colour on the 0-255 scale.

    Raises
    ------
    InputError
        If shapes do not fit, or values are not finite.
    """
    to_255 = 255 / layout.scale
    colour = np.asarray(mean if mean is not None else np.multiply(layout.mean, to_255), dtype=float)
    if colour.shape != (3,) or not ((colour >= 0) & (colour <= 255)).all():
        raise InputError("its mean is no RGB colour on the 0-255 scale")
    result: Dict[str, np.ndarray] = {}
    channels: Optional[int] = 3
    for convolution in vgg.CONVOLUTIONS:
        parts = {kind: array for (name, kind), array in named.items() if name == convolution}
        if not parts:
            channels = None  # nothing after a gap can be used, but it may be there
            continue
        weight, bias = _convolution(convolution, parts, layout, channels)
        if convolution == vgg.CONVOLUTIONS[0]:
            if layout.channels == "BGR":
                weight = weight[:, ::-1]
            # The network takes (x / to_255 - mean) / std; x is what it takes from now on.
            weight = weight / (to_255 * np.asarray(layout.std))[None, :, None, None]
        for kind, array in (("weight", weight), ("bias", bias)):
            with np.errstate(over="ignore"):  # infinity is refused below
                array = np.array(array, dtype=np.float32, order="C")  # lets go of the file's bytes
            if not np.isfinite(array).all():
                raise InputError(f"{convolution}'s {kind} holds values that are not finite")
            array.flags.writeable = False
            result[f"{convolution}_{kind}"] = array
        channels = weight.shape[0]
    if not result:
        raise InputError("holds no VGG-19: there is no convolution in it")
    red, green, blue = (float(value) for value in colour)
    return result, (red, green, blue)


def _convolution(
    name: str, parts: Mapping[str, np.ndarray], layout: Layout, channels: Optional[int]
) -> Tuple[np.ndarray, np.ndarray]:
    """One convolution's (O, I, 3, 3) kernel and (O,) bias, BatchNorm folded in."""
    if "weight" not in parts or "bias" not in parts:
        raise InputError(f"{name} lacks its weight or its bias")
    weight, bias = parts["weight"], parts["bias"]
    if weight.ndim == 4:
        weight = weight.transpose([layout.kernel.index(axis) for axis in "OIHW"])
    expected = (len(bias), channels or weight.shape[1], 3, 3)
    if weight.shape != expected or bias.ndim != 1 or not bias.size:
        raise InputError(
            f"{name} has a weight of shape {parts['weight'].shape} and a bias of shape"
            f" {bias.shape}; with axes {layout.kernel}, O filters and"
            f" {expected[1]} channels, its weight should have 3 x 3 pixels and its bias O values"
        )
    norm = [parts.get(kind) for kind in ("gamma", "beta", "mean", "variance")]
    if all(part is None for part in norm):
        return weight, bias
    if any(part is None or part.shape != bias.shape for part in norm):
        raise InputError(f"{name} lacks a part of its BatchNorm")
    gamma, beta, mean, variance = (np.asarray(part, dtype=np.float64) for part in norm)
    if not (variance >= 0).all():
        raise InputError(f"{name}'s BatchNorm has a negative or undefined variance")
    gain = gamma / np.sqrt(variance + BN_EPSILON)
    return weight * gain[:, None, None, None], (bias - mean) * gain + beta


# --- fmi weights ---


def convert(path: Union[str, Path], out: Union[str, Path]) -> Weights:
    """Write weights in the one form as ``.npz``, and read them back.

    Raises
    ------
    InputError
        If `path` cannot be read, or `out` does not end in ``.npz`` or cannot be written.
    """
    out = Path(out)
    if out.suffix != ".npz":
        raise InputError(f"{out}: weights are written as .npz")
    weights = read(path)
    record = {
        "mean": list(weights.mean),
        "converted_from": {"name": weights.path.name, "sha256": weights.sha256},
        "layout": weights.layout.name,
        "source": weights.source,
    }
    content = {**weights.arrays, formats.METADATA: np.array(json.dumps(record))}

    def write(beside: Path) -> None:
        with zipfile.ZipFile(beside, "w") as archive:
            for name, array in content.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, array, allow_pickle=False)

    files.write_whole(out, write)
    return read(out)


def activations(weights: Weights, picture: np.ndarray) -> Dict[str, float]:
    """The mean of each relu's activations on a picture, with the pooling of the training.

    Parameters
    ----------
    weights
        Any.
    picture
        (H, W, 3) uint8 RGB.
    """
    from fmi.device.mxnet import context, mx

    names = [name.replace("conv", "relu") for name in weights.covers]
    if not names:
        raise InputError(f"{weights.path} lacks conv1_1, without which nothing can be computed")
    ctx = context("cpu")
    network = vgg.network(weights.arrays, names, "max", ctx)
    image = mx.nd.array(pictures.from_rgb(picture, weights.mean), ctx=ctx)
    return {name: float(code.mean().asscalar()) for name, code in network(image).items()}


def normalised(means: Mapping[str, float]) -> bool:
    """Whether mean activations tell the weights of Gatys et al. from the original ones.

    Gatys et al. scaled each filter so that its mean activation is 1 on photographs; the
    original's lie between 10 and 1000 in most layers.
    """
    low, high = GATYS
    return bool(low < np.median(list(means.values())) < high)


def report(weights: Weights) -> str:
    """What ``fmi weights show`` prints: layout, layers, statistics, input, likely origin."""
    from skimage import data

    picture = np.ascontiguousarray(data.astronaut()[:448:2, :448:2])  # a photograph, 224 x 224
    means = activations(weights, picture)
    covered = weights.covers
    if weights.embedded:
        kind = "the embedded network"
    elif not weights.layout.original:
        kind = "trained anew: its filters are not those of the published Fig. 3"
    elif normalised(means):
        kind = "normalised as by Gatys et al.: mean activations are about 1"
    else:
        kind = "not normalised, as the original Caffe weights"
    lines = [
        f"file      {weights.path}",
        f"sha256    {weights.sha256}",
        f"source    {weights.source or 'unknown digest'}",
        f"format    {weights.format}",
        f"layout    {weights.layout.name}",
        f"input     {weights.layout.describe()}",
        f"used as   RGB 0-255 minus ({', '.join(f'{v:.3f}' for v in weights.mean)})",
        f"layers    {covered[0]} to {covered[-1]} ({len(covered)} of {len(vgg.CONVOLUTIONS)})",
        f"kind      {kind}",
        "",
        "layer     filters   weight: mean    std       bias: mean      std  mean activation",
    ]
    for name in covered:
        weight, bias = weights.arrays[f"{name}_weight"], weights.arrays[f"{name}_bias"]
        lines.append(
            f"{name}   {len(bias):7d}   {weight.mean():12.3e}  {weight.std():9.3e}"
            f"  {bias.mean():10.3e}  {bias.std():9.3e}  {means[name.replace('conv', 'relu')]:10.4g}"
        )
    return "\n".join(lines)


def survey() -> str:
    """What ``fmi weights list`` prints: what is known, what is here, digest state, licence."""
    lines = []
    for found in table.survey(table.models()):
        source = found.source
        lines += [
            f"{source.name}: {source.title}",
            f"    {found.state}{f': {found.path}' if found.path else ''}",
            f"    {source.size / 1e6:.3g} MB, {source.digest}",
            f"    {source.author}, {source.year}; {source.licence}",
        ]
    known = {source.file for source in table.models().values()}
    for path in table.candidates():
        if path.name not in known:
            digest = files.file_digest(path, "sha256")
            lines += [f"{path}: unknown digest", f"    sha256:{digest}"]
    path = embedded_path()
    state = f"here: {path}" if path.is_file() else "not here"
    lines += ["embedded: a small network that comes with fmi, no VGG-19", f"    {state}"]
    return "\n".join(lines)


def verify() -> List[Tuple[Path, str, bool]]:
    """Read every file that may be VGG-19: the file, what it is, and whether it may be used."""
    files = [found.path for found in table.survey(table.models()) if found.path]
    known = {source.file: source for source in table.models().values()}
    result = []
    for path in dict.fromkeys([*files, *table.candidates()]):
        source = known.get(path.name)
        try:
            found = _named_at(path, source) if source else read(path)
            state = f"{found.source}, right" if found.source else "unknown digest"
            result.append((path, f"{state}, sha256 {found.sha256}", True))
        except InputError as error:
            result.append((path, str(error), False))
    return result
