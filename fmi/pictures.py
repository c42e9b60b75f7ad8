"""Pictures: read, resize, convert to and from the arrays of the network, denoise, save.

Three kinds of arrays are used: ``(H, W, 3)`` uint8 RGB, as read; ``(1, 3, H, W)`` float32 with a
mean colour subtracted, the input of the network; and ``(H, W, 3)`` float32 RGB on the 0-255 scale,
the result of an inversion.
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
import logging
import os
import stat
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Sequence, Tuple, Union

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo

from fmi import files
from fmi.errors import InputError, brief, unknown
from fmi.sources import table

__all__ = [
    "FORMATS",
    "LARGEST",
    "PIXELS",
    "SAVED",
    "SKIMAGE",
    "SUFFIXES",
    "Picture",
    "Saved",
    "Source",
    "denoised",
    "eight_bits",
    "find",
    "first_picture",
    "fitted",
    "from_rgb",
    "named",
    "read",
    "save",
    "save_png",
    "saved_as",
    "to_network",
    "to_rgb",
    "with_colours",
]

log = logging.getLogger(__name__)

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".gif", ".bmp", ".ppm")
# Other formats are excluded because PIL runs external programs for some of them.
FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "GIF", "BMP", "PPM")
PIXELS = 1 << 26  # limits the memory, since the header of a small file can claim any size
LARGEST = 1_000_000  # absolute value in an initial picture: sums of squares must fit into float32


SKIMAGE = {  # free pictures in the wheel of scikit-image: file name and credit
    "astronaut": ("astronaut.png", "NASA, public domain"),
    "coffee": ("coffee.png", "Rachel Michetti, CC0"),
    "chelsea": ("chelsea.png", "Stefan van der Walt, CC0"),
    "rocket": ("rocket.jpg", "SpaceX, public domain"),
    "hubble_deep_field": ("hubble_deep_field.jpg", "NASA and ESA, public domain"),
    "immunohistochemistry": ("ihc.png", "no known copyright restrictions"),
    "retina": ("retina.jpg", "Mikael Haggstrom, CC0"),
}


@dataclass(frozen=True)
class Saved:
    """A format in which pictures are saved.

    Attributes
    ----------
    format
        Its name in PIL.
    options
        What the quality is set with.
    longest
        Largest number of pixels of a side.
    """

    format: str
    options: Dict[str, int]
    longest: int


_JPEG = Saved("JPEG", {"quality": 95, "subsampling": 0}, 65_500)
SAVED = {  # by the suffix of a file
    ".png": Saved("PNG", {}, 2**31 - 1),
    ".jpg": _JPEG,
    ".jpeg": _JPEG,
    ".webp": Saved("WEBP", {"quality": 95}, 16_383),
}


@dataclass(frozen=True)
class Picture:
    """A picture as read.

    Attributes
    ----------
    pixels
        (H, W, 3) uint8 RGB.
    name
        Name of the file without folder and suffix, or ``"array"`` or ``"image"``; it can always be
        printed.
    sha256
        Digest of the file, or of shape and pixels if there is no file.
    """

    pixels: np.ndarray
    name: str
    sha256: str

    def describe(self) -> Dict[str, object]:
        """Return what identifies the picture, for the record of an inversion."""
        height, width = self.pixels.shape[:2]
        return {"name": self.name, "width": width, "height": height, "sha256": self.sha256}


# What every function accepts as a picture. A file is read and decoded each time it is given; to use
# it several times, pass the Picture that `read` returns.
Source = Union[str, Path, Image.Image, np.ndarray, Picture]


def read(source: Source, background: str = "white") -> Picture:
    """Read a picture from a path, a PIL image, or an (H, W, 3) uint8 RGB array.

    Text that is no path of a file may be a name, as for :func:`find`: ``"skimage:coffee"``, or
    ``"golden_gate"`` for a picture in one of the folders of pictures.

    A :class:`Picture` is returned as is, without reading its file again.

    The first frame of a file is used. It is rotated as its EXIF data require, its colours are
    converted to sRGB with its ICC profile, transparent pixels are blended with `background`, the
    name of a colour in PIL, and 16 bits are reduced to 8.

    Raises
    ------
    InputError
        If the file is missing, damaged or not a picture, if there are more than :data:`PIXELS`
        pixels, or if an array has an unsupported shape or type.
    """
    if isinstance(source, Picture):
        return source
    if isinstance(source, np.ndarray):
        return _from_pixels(_array_pixels(source, background), "array")
    if isinstance(source, Image.Image):
        return _from_pixels(_decoded(source, "the image", background), "image")
    if not isinstance(source, (str, os.PathLike)):
        raise InputError(
            f"a picture must be a path, a PIL image or an array, not {type(source).__name__}"
        )
    path = _named_file(source) if isinstance(source, str) else _file(os.fsdecode(source))
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"picture {_shown(path)} cannot be read: {_reason(error)}") from None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PIL warns about unusual files; real problems are raised
        try:
            Image.init()  # Image.open does not load the plugins of explicitly given formats
            formats = [name for name in FORMATS if name in Image.OPEN]  # PIL may lack WebP
            image = Image.open(io.BytesIO(data), formats=formats)
        except UnidentifiedImageError:
            raise InputError(
                f"{_shown(path)} cannot be read as a picture; supported formats:"
                f" {', '.join(FORMATS)}"
            ) from None
        except Exception as error:  # PIL raises nearly anything on a damaged file
            raise InputError(_damaged(_shown(path), error)) from None
        with image:
            pixels = _decoded(image, _shown(path), background)
    return Picture(pixels, _shown(path.stem), hashlib.sha256(data).hexdigest())


def _file(name: Union[str, Path]) -> Path:
    """Return the path of a regular file; others, such as a named pipe, could block forever."""
    path = Path(name)
    try:
        if stat.S_ISREG(path.stat().st_mode):
            return path
    except (OSError, ValueError) as error:
        raise InputError(f"picture {_shown(path)} cannot be read: {_reason(error)}") from None
    raise InputError(f"picture {_shown(path)} is not a file")


def _reason(error: Exception) -> str:
    """Return why a file cannot be read."""
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return "no file can have this name"  # ValueError: a null byte, or not valid Unicode


def _shown(name: object) -> str:
    """Return a name on one line that every terminal can print; a long one is shortened."""
    text = str(name)
    text = text if text.isprintable() else repr(text)[1:-1]
    return text if len(text) <= 200 else f"{text[:100]} ... {text[-80:]}"


def _array_pixels(array: np.ndarray, background: str) -> np.ndarray:
    """Return the pixels of an array as (H, W, 3); grey and RGBA are converted as for files."""
    shape = array.shape
    if array.dtype != np.uint8 or not array.size or len(shape) not in (2, 3):
        shape = ()
    elif len(shape) == 3 and shape[2] == 3:
        return array
    elif len(shape) == 3 and shape[2] == 1:
        return _array_pixels(array[:, :, 0], background)
    if len(shape) == 2 or (len(shape) == 3 and shape[2] == 4):
        return _decoded(Image.fromarray(array), "the array", background)
    raise InputError(
        "a picture array must be uint8 of shape (H, W, 3) RGB, (H, W) grey or (H, W, 4) RGBA,"
        f" not {array.shape} {array.dtype}"
    )


def _from_pixels(pixels: np.ndarray, name: str) -> Picture:
    return Picture(pixels, name, files.array_digest(pixels))


def _damaged(name: object, error: Exception) -> str:
    lines = str(error).strip().splitlines() or [""]
    return f"{name} cannot be read as a picture: {type(error).__name__}: {_shown(lines[0])}"


def _decoded(image: Image.Image, name: object, background: str) -> np.ndarray:
    """Return the first frame as (H, W, 3) uint8 sRGB; any failure raises an InputError."""
    width, height = image.size
    if width * height > PIXELS:
        raise InputError(
            f"{name} has {width} x {height} pixels, more than {PIXELS / 1e6:.0f} million; reduce"
            " its size"
        )
    if width * height == 0:
        raise InputError(f"{name} has no pixels")
    try:
        return np.asarray(_rgb(image, background))
    except InputError as error:
        raise InputError(f"{name} {error}") from None
    except Exception as error:  # PIL raises nearly anything on a damaged file
        raise InputError(_damaged(name, error)) from None


def _rgb(image: Image.Image, background: str) -> Image.Image:
    image.load()
    profile = image.info.get("icc_profile")
    upright = ImageOps.exif_transpose(image) or image
    if upright.mode in ("F", "I") or upright.mode.startswith("I;16"):
        upright = _eight_bit_grey(upright)
    if "A" in upright.getbands() or "transparency" in upright.info:
        layer = upright.convert("RGBA")
        alpha = layer.getchannel("A")
        grey = upright.mode in ("L", "LA", "1")
        colours = _srgb(layer.convert("L" if grey else "RGB"), profile).convert("RGB")
        over = Image.new("RGB", layer.size, background)
        over.paste(colours, mask=alpha)
        return over
    if upright.mode == "P":
        upright = upright.convert("RGB")
    return _srgb(upright, profile).convert("RGB")


def _eight_bit_grey(image: Image.Image) -> Image.Image:
    """Map 65535 to white; the conversion of PIL clips values above 255.

    A transparent value is one of 16 bits, several of which become the same one of 8 bits.
    """
    values = np.asarray(image)
    if image.mode == "F" or values.min() < 0 or values.max() > 65535:
        raise InputError("has grey values in an unknown range; save it with 8 or 16 bits")
    grey = (values / 257.0 + 0.5).astype(np.uint8)
    transparent = image.info.get("transparency")
    if transparent is None:
        return Image.fromarray(grey)
    alpha = np.where(values == transparent, 0, 255).astype(np.uint8)
    return Image.fromarray(np.stack([grey, alpha], axis=2))


def _srgb(image: Image.Image, profile: Optional[bytes]) -> Image.Image:
    """Convert colours to sRGB with the ICC profile, unless it is sRGB or cannot be used."""
    if not profile:
        return image
    from PIL import ImageCms

    try:
        given = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        srgb = ImageCms.createProfile("sRGB")
        probe = _probe(given.profile.xcolor_space)
        if probe is not None:
            found = ImageCms.profileToProfile(probe, given, srgb, outputMode="RGB")
            change = np.asarray(found, int) - np.asarray(probe.convert("RGB"), int)
            if np.abs(change).max() <= 2:  # the name cannot tell: linear profiles have it too
                return image
        done = ImageCms.profileToProfile(image, given, srgb, outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError) as error:
        log.warning("the ICC profile of a picture cannot be used and is ignored (%s)", error)
        return image
    return image if done is None else done


def _probe(space: str) -> Optional[Image.Image]:
    """Return colours from all over a colour space of ICC, ``None`` if sRGB is not in this space."""
    mode = {"RGB ": "RGB", "GRAY": "L"}.get(space)
    if mode is None:
        return None
    levels = np.arange(0, 256, 17, dtype=np.uint8)
    colours = np.stack(np.meshgrid(levels, levels, levels), axis=-1)
    return Image.fromarray(colours.reshape(64, 64, 3)).convert(mode)


def find(name: str, folders: Sequence[Union[str, Path]]) -> Path:
    """Find the file of a picture, given its path or its name.

    Parameters
    ----------
    name
        A path; or the name of a file without its suffix, where ``-`` and ``_`` are equivalent, as
        are capital and small letters; or a name such as ``skimage:coffee`` for a picture of
        :data:`SKIMAGE`.
    folders
        Folders in which to look for a name, in this order; in each of them, a file of exactly this
        name comes first.

    Raises
    ------
    InputError
        If there is no such file.
    """
    if name.startswith("skimage:"):
        return _skimage(name[len("skimage:") :])
    if Path(name).suffix.lower() in SUFFIXES or os.sep in name:
        return _file(name)
    for file in named(name, folders):
        return file
    if table.is_file(Path(name)):  # with another suffix: reading it tells what it is
        return _file(name)
    places = ", ".join(_shown(folder) for folder in folders) or "no folder"
    raise InputError(
        f"picture '{_shown(name)}' was not found in {places}; give its path, or name its folder"
        " in FMI_PICTURES"
    )


def _named_file(name: str) -> Path:
    """Return the file with a path or, if there is none, with a name as for :func:`find`."""
    try:
        there = os.path.lexists(name)
    except ValueError:  # a null character
        there = True
    return _file(name) if there else find(name, table.folders("pictures"))


def named(name: str, folders: Sequence[Union[str, Path]]) -> Iterator[Path]:
    """Yield the files that :func:`find` may return for a name without a suffix, in its order.

    All files of a folder come before those of the next one, and in each folder the files of exactly
    this name before those of an equivalent name: a picture in a folder of the user's own replaces
    a fetched one.
    """
    for folder in folders:
        for file in sorted(_entries(Path(folder)), key=lambda file: file.stem != name):
            if file.suffix.lower() in SUFFIXES and _key(file.stem) == _key(name):
                yield file


def _entries(folder: Path) -> List[Path]:
    """Return the paths in a folder, none if it cannot be read."""
    try:
        return sorted(folder.iterdir())
    except (OSError, ValueError):
        return []


def _skimage(name: str) -> Path:
    if name not in SKIMAGE:
        raise unknown("picture of scikit-image", name, SKIMAGE)
    package = importlib.util.find_spec("skimage")
    if package is None or package.origin is None:
        raise InputError("scikit-image is not installed: pip install scikit-image")
    return Path(package.origin).parent / "data" / SKIMAGE[name][0]


def _key(name: str) -> str:
    return name.lower().replace("-", "_")


def fitted(pixels: np.ndarray, long_edge: int) -> Tuple[int, int]:
    """Return height and width for a longer side of `long_edge`, truncated as in the 2016 code."""
    factor = float(long_edge) / max(pixels.shape[:2])
    height, width = (int(side * factor) for side in pixels.shape[:2])
    if min(height, width) < 1:
        raise InputError(
            f"a picture of {pixels.shape[1]} x {pixels.shape[0]} pixels cannot be resized to"
            f" long_edge={long_edge}: its short side would be 0; increase long_edge"
        )
    return height, width


def to_network(
    pixels: np.ndarray,
    size: Tuple[int, int],
    scale: float,
    mean: Sequence[float],
    mode: str,
    anti_aliasing: bool,
) -> np.ndarray:
    """Resize a picture and convert it to network input (2016 code: Preprocess*Image in utils.py).

    Parameters
    ----------
    pixels
        (H, W, 3) uint8 RGB.
    size
        Height and width of the result.
    scale
        Value of white: 256 for the content pictures of the 2016 code, else 255.
    mean
        RGB colour on the 0-255 scale to subtract.
    mode, anti_aliasing
        Arguments of ``skimage.transform.resize``; the interpolation is bilinear.

    Returns
    -------
    numpy.ndarray
        (1, 3, height, width) float32.
    """
    from skimage.transform import resize  # slow to import

    unit = resize(pixels, size, order=1, mode=mode, cval=0, anti_aliasing=anti_aliasing)
    return from_rgb(unit * scale, mean)


def first_picture(init: Any, size: Tuple[int, int], name: str = "init") -> np.ndarray:
    """Return the initial picture of a descent, given the argument `init`.

    Parameters
    ----------
    init
        A picture as for :func:`read`; or an array of numbers, (H, W, 3) RGB or (H, W) grey, on the
        0-255 scale, whose values may lie outside of this range, up to +-:data:`LARGEST`.
    size
        Height and width of the result. Pictures of another size are resized, which is logged.
    name
        What it is, for the log.

    Returns
    -------
    numpy.ndarray
        (height, width, 3) float32 RGB on the 0-255 scale.

    Raises
    ------
    InputError
        If `init` is not a picture, or contains values that are not finite or too large.
    """
    if isinstance(init, np.ndarray) and init.dtype != np.uint8:
        numbers = init.dtype.kind in "fiu" and init.size
        right = init.ndim == 2 or (init.ndim == 3 and init.shape[2] == 3)
        with np.errstate(over="ignore"):  # infinity is refused below
            values = init.astype(np.float32) if numbers and right else np.full(1, np.nan)
        if not (np.abs(values) <= LARGEST).all():
            raise InputError(
                f"an init array must contain finite numbers from -{LARGEST} to {LARGEST} and have"
                f" shape (H, W, 3) or (H, W), not {init.shape} {init.dtype}"
            )
        values = np.repeat(values[..., None], 3, axis=2) if values.ndim == 2 else values
    else:
        values = read(init).pixels.astype(np.float32)
    if values.shape[:2] == tuple(size):
        return values
    from skimage.transform import resize  # slow to import

    text = "resizing %s from %d x %d to %d x %d pixels"
    log.info(text, name, *values.shape[1::-1], *size[::-1])
    resized = resize(values, size, order=1, mode="edge", anti_aliasing=True, preserve_range=True)
    return np.asarray(resized, dtype=np.float32)


def from_rgb(array: np.ndarray, mean: Sequence[float]) -> np.ndarray:
    """Convert (H, W, 3) RGB on the 0-255 scale to network input (1, 3, H, W)."""
    centred = np.asarray(array, dtype=np.float64) - np.asarray(mean)
    return np.ascontiguousarray(centred.transpose(2, 0, 1)[None], dtype=np.float32)


def to_rgb(array: np.ndarray, mean: Sequence[float]) -> np.ndarray:
    """Convert one picture (3, H, W) of a batch to (H, W, 3) float32 RGB on the 0-255 scale."""
    return np.asarray(array.transpose(1, 2, 0) + np.asarray(mean), dtype=np.float32)


def with_colours(array: np.ndarray, content: np.ndarray) -> np.ndarray:
    """Return the luminance of one picture with the colours of another one.

    Parameters
    ----------
    array, content
        (H, W, 3) RGB on the 0-255 scale.

    Returns
    -------
    numpy.ndarray
        (H, W, 3) float32 with the luminance (Rec. 601) of `array`; the differences between its
        channels are those of `content`.
    """
    difference = (array - content) @ np.array([0.299, 0.587, 0.114])
    return (content + difference[..., None]).astype(np.float32)


def eight_bits(array: np.ndarray) -> np.ndarray:
    """Clip to 0-255 and truncate to integers, as PostprocessImage of the 2016 code does."""
    return np.clip(array, 0, 255).astype(np.uint8)


def denoised(pixels: np.ndarray, weight: float) -> np.ndarray:
    """Apply total variation denoising (Chambolle), as SaveImage of the 2016 code does.

    Parameters
    ----------
    pixels
        (H, W, 3) uint8.
    weight
        Weight for pictures on the 0-1 scale; 0 disables denoising.
    """
    if weight == 0:
        return pixels
    from skimage.restoration import denoise_tv_chambolle  # slow to import

    smooth = denoise_tv_chambolle(pixels, weight=weight, channel_axis=-1)
    return np.clip(np.rint(smooth * 255), 0, 255).astype(np.uint8)


def save_png(
    path: Union[str, Path], pixels: np.ndarray, text: Optional[Dict[str, str]] = None
) -> None:
    """Write a PNG with text chunks; an incomplete file is never left behind.

    Raises
    ------
    InputError
        If the file cannot be written.
    """
    info = PngInfo()
    for key, value in (text or {}).items():
        info.add_itxt(key, value)

    def write(beside: Path) -> None:
        Image.fromarray(pixels).save(beside, format="PNG", pnginfo=info)

    files.write_whole(Path(path), write)


def saved_as(path: Path) -> Saved:
    """Return the format that the suffix of a path names.

    Raises
    ------
    InputError
        If pictures are not saved in it.
    """
    kind = SAVED.get(path.suffix.lower())
    if kind is None:
        raise InputError(
            f"{brief(path)}: pictures are saved as {', '.join(SAVED)}; choose a name that ends in"
            " one of them"
        )
    return kind


def save(path: Union[str, Path], pixels: np.ndarray, text: Optional[Dict[str, str]] = None) -> None:
    """Write a picture in the format that its suffix names, a key of :data:`SAVED`.

    Parameters
    ----------
    path
        Path of the file; an incomplete one is never left behind.
    pixels
        (H, W, 3) uint8 RGB.
    text
        Text chunks, which only a PNG has.

    Raises
    ------
    InputError
        If the format does not exist or is too small for the picture, or if the file cannot be
        written.
    """
    path = Path(path)
    kind = saved_as(path)
    if kind.format == "PNG":
        save_png(path, pixels, text)
        return
    height, width = pixels.shape[:2]
    if max(height, width) > kind.longest:
        raise InputError(
            f"{brief(path)}: {width} x {height} pixels are too many for {kind.format}, whose sides"
            f" have up to {kind.longest}; choose a name that ends in .png"
        )
    image, options = Image.fromarray(pixels), kind.options
    files.write_whole(path, lambda beside: image.save(beside, format=kind.format, **options))
