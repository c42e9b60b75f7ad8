"""Pictures: read, resize, to and from the network's arrays, denoise, save.

Three forms appear: ``(H, W, 3)`` uint8 RGB as read; ``(1, 3, H, W)`` float32 with a mean colour
subtracted, which the network takes; ``(H, W, 3)`` float32 RGB on the 0-255 scale, which an
inversion returns.
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
import logging
import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Optional, Sequence, Tuple, Union

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo

from fmi import files
from fmi.errors import InputError, unknown

log = logging.getLogger(__name__)

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".gif", ".bmp")
# No others: PIL hands some formats to further programs.
FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "GIF", "BMP", "PPM")
PIXELS = 1 << 26  # more take too much memory; a file of a few bytes can tell any number


SKIMAGE = {  # pictures in scikit-image's wheel, free to use: file and credit
    "astronaut": ("astronaut.png", "NASA, public domain"),
    "coffee": ("coffee.png", "Rachel Michetti, CC0"),
    "chelsea": ("chelsea.png", "Stefan van der Walt, CC0"),
    "rocket": ("rocket.jpg", "SpaceX, public domain"),
    "hubble_deep_field": ("hubble_deep_field.jpg", "NASA and ESA, public domain"),
    "immunohistochemistry": ("ihc.png", "no known copyright restrictions"),
    "retina": ("retina.jpg", "Mikael Haggstrom, CC0"),
}


@dataclass(frozen=True)
class Picture:
    """A picture as read.

    Attributes
    ----------
    pixels
        (H, W, 3) uint8 RGB.
    name
        The file's name without folder and suffix, or ``"array"``.
    sha256
        Digest of the file; of size and pixels where there is no file.
    """

    pixels: np.ndarray
    name: str
    sha256: str

    def describe(self) -> Dict[str, object]:
        """What identifies the picture, for an inversion's settings."""
        height, width = self.pixels.shape[:2]
        return {"name": self.name, "width": width, "height": height, "sha256": self.sha256}


Source = Union[str, Path, Image.Image, np.ndarray, Picture]


def read(source: Source) -> Picture:
    """A picture from a path, a PIL image, or an (H, W, 3) uint8 RGB array.

    Of a file the first frame is taken, upright (EXIF), its colours brought to sRGB (ICC) and
    laid over white where it is transparent; 16 bits become 8.

    Raises
    ------
    InputError
        If the file is missing, is no picture or a damaged one, has more than :data:`PIXELS`, or
        the array has another shape or type.
    """
    if isinstance(source, Picture):
        return source
    if isinstance(source, np.ndarray):
        return _from_pixels(_array_pixels(source), "array")
    if isinstance(source, Image.Image):
        return _from_pixels(_decoded(source, "the image"), "image")
    if not isinstance(source, (str, os.PathLike)):
        raise InputError(
            f"a picture must be a path, a PIL image or an array, not {type(source).__name__}"
        )
    path = Path(source)
    if path.exists() and not path.is_file():
        raise InputError(f"picture {path} is not a file")
    try:
        data = path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        raise InputError(
            f"picture {path} cannot be read: {getattr(error, 'strerror', error)}"
        ) from None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PIL's on large and odd files; what matters is raised
        try:
            Image.init()  # Image.open loads no plugin for the formats that it is given
            formats = [name for name in FORMATS if name in Image.OPEN]  # PIL may be without WebP
            image = Image.open(io.BytesIO(data), formats=formats)
        except UnidentifiedImageError:
            raise InputError(
                f"{path} cannot be read as a picture; supported formats: {', '.join(FORMATS)}"
            ) from None
        except Exception as error:  # PIL raises nearly anything on a damaged file
            raise InputError(_damaged(path, error)) from None
        with image:
            pixels = _decoded(image, path)
    return Picture(pixels, path.stem, hashlib.sha256(data).hexdigest())


def _array_pixels(array: np.ndarray) -> np.ndarray:
    """An array's pixels as (H, W, 3), grey and transparent ones as those of files are taken."""
    shape = array.shape
    if array.dtype != np.uint8 or not array.size or len(shape) not in (2, 3):
        shape = ()
    elif len(shape) == 3 and shape[2] == 3:
        return array
    elif len(shape) == 3 and shape[2] == 1:
        return _array_pixels(array[:, :, 0])
    if len(shape) == 2 or (len(shape) == 3 and shape[2] == 4):
        return _decoded(Image.fromarray(array), "the array")
    raise InputError(
        "a picture array must be uint8 of shape (H, W, 3) RGB, (H, W) grey or (H, W, 4) RGBA,"
        f" not {array.shape} {array.dtype}"
    )


def _from_pixels(pixels: np.ndarray, name: str) -> Picture:
    return Picture(pixels, name, files.array_digest(pixels))


def _damaged(name: object, error: Exception) -> str:
    lines = str(error).strip().splitlines() or [""]
    return f"{name} cannot be read as a picture: {type(error).__name__}: {lines[0][:200]}"


def _decoded(image: Image.Image, name: object) -> np.ndarray:
    """The first frame as (H, W, 3) uint8 sRGB; whatever goes wrong is an InputError."""
    width, height = image.size
    if width * height > PIXELS:
        raise InputError(
            f"{name} has {width} x {height} pixels, more than {PIXELS / 1e6:.0f} million; reduce"
            " its size"
        )
    if width * height == 0:
        raise InputError(f"{name} has no pixels")
    try:
        return np.asarray(_rgb(image))
    except InputError as error:
        raise InputError(f"{name} {error}") from None
    except Exception as error:  # PIL raises nearly anything on a damaged file
        raise InputError(_damaged(name, error)) from None


def _rgb(image: Image.Image) -> Image.Image:
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
        over = Image.new("RGB", layer.size, "white")
        over.paste(colours, mask=alpha)
        return over
    if upright.mode == "P":
        upright = upright.convert("RGB")
    return _srgb(upright, profile).convert("RGB")


def _eight_bit_grey(image: Image.Image) -> Image.Image:
    """PIL's own conversion clips what is above 255; here 65535 becomes white."""
    values = np.asarray(image)
    if image.mode == "F" or values.min() < 0 or values.max() > 65535:
        raise InputError("has grey values in an unknown range; save it with 8 or 16 bits")
    return Image.fromarray((values / 257.0 + 0.5).astype(np.uint8))


def _srgb(image: Image.Image, profile: Optional[bytes]) -> Image.Image:
    """Colours as the ICC profile means them; as they are if it says sRGB or cannot be used."""
    if not profile:
        return image
    from PIL import ImageCms

    try:
        given = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if "sRGB" in ImageCms.getProfileDescription(given):
            return image
        done = ImageCms.profileToProfile(
            image, given, ImageCms.createProfile("sRGB"), outputMode="RGB"
        )
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError) as error:
        log.warning("the ICC profile of a picture cannot be used and is ignored (%s)", error)
        return image
    return image if done is None else done


def find(name: str, folders: Sequence[Union[str, Path]]) -> Path:
    """The file of a picture: a path as it is, or a name looked up in folders.

    Parameters
    ----------
    name
        A path; or a file's name without its suffix, ``-`` and ``_`` counting as the same; or
        ``skimage:coffee`` for a picture of :data:`SKIMAGE`.
    folders
        Where to look, in this order.

    Raises
    ------
    InputError
        If there is no such file.
    """
    if name.startswith("skimage:"):
        return _skimage(name[len("skimage:") :])
    if Path(name).suffix.lower() in SUFFIXES or os.sep in name:
        if Path(name).is_file():
            return Path(name)
        raise InputError(f"picture {name} does not exist")
    for folder in folders:
        for file in sorted(Path(folder).glob("*")) if Path(folder).is_dir() else []:
            if file.suffix.lower() in SUFFIXES and _key(file.stem) == _key(name):
                return file
    places = ", ".join(str(folder) for folder in folders) or "no folder"
    raise InputError(
        f"picture {name!r} was not found in {places}; set the folder with PICTURES=dir or"
        " FMI_PICTURES, or give the path of the picture"
    )


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
    """Height and width with the longer side at `long_edge`, truncated as in the 2016 code."""
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
    """Resize and bring to what the network takes (2016 code: Preprocess*Image in utils.py).

    Parameters
    ----------
    pixels
        (H, W, 3) uint8 RGB.
    size
        Height and width wanted.
    scale
        What white becomes: 256 for the 2016 code's content pictures, else 255.
    mean
        RGB colour on the 0-255 scale to subtract.
    mode, anti_aliasing
        As in ``skimage.transform.resize``; the interpolation is bilinear.

    Returns
    -------
    numpy.ndarray
        (1, 3, height, width) float32.
    """
    from skimage.transform import resize  # slow to import

    unit = resize(pixels, size, order=1, mode=mode, cval=0, anti_aliasing=anti_aliasing)
    return from_rgb(unit * scale, mean)


def first_picture(init: Any, size: Tuple[int, int]) -> np.ndarray:
    """The picture that a descent begins with, from what a person hands over.

    Parameters
    ----------
    init
        A picture as :func:`read` takes it; or numbers (H, W, 3) RGB or (H, W) grey on the 0-255
        scale, which may lie outside of it.
    size
        Height and width of the result; another size is resized, with a note in the log.

    Returns
    -------
    numpy.ndarray
        (height, width, 3) float32 RGB on the 0-255 scale.

    Raises
    ------
    InputError
        If it is no picture, or holds values that are not finite.
    """
    if isinstance(init, np.ndarray) and init.dtype != np.uint8:
        numbers = init.dtype.kind in "fiu" and init.size
        right = init.ndim == 2 or (init.ndim == 3 and init.shape[2] == 3)
        if not (numbers and right) or not np.isfinite(init).all():
            raise InputError(
                "an init array must contain finite numbers and have shape (H, W, 3) or (H, W), not"
                f" {init.shape} {init.dtype}"
            )
        values = init.astype(np.float32)
        values = np.repeat(values[..., None], 3, axis=2) if values.ndim == 2 else values
    else:
        values = read(init).pixels.astype(np.float32)
    if values.shape[:2] == tuple(size):
        return values
    from skimage.transform import resize  # slow to import

    log.info("resizing init from %d x %d to %d x %d pixels", *values.shape[1::-1], *size[::-1])
    resized = resize(values, size, order=1, mode="edge", anti_aliasing=True, preserve_range=True)
    return np.asarray(resized, dtype=np.float32)


def from_rgb(array: np.ndarray, mean: Sequence[float]) -> np.ndarray:
    """(H, W, 3) RGB on the 0-255 scale to the network's (1, 3, H, W), mean subtracted."""
    centred = np.asarray(array, dtype=np.float64) - np.asarray(mean)
    return np.ascontiguousarray(centred.transpose(2, 0, 1)[None], dtype=np.float32)


def to_rgb(array: np.ndarray, mean: Sequence[float]) -> np.ndarray:
    """One picture (3, H, W) of the network's to (H, W, 3) float32 RGB on the 0-255 scale."""
    return np.asarray(array.transpose(1, 2, 0) + np.asarray(mean), dtype=np.float32)


def eight_bits(array: np.ndarray) -> np.ndarray:
    """Clip to 0-255 and truncate, not round, as the 2016 code's PostprocessImage does."""
    return np.clip(array, 0, 255).astype(np.uint8)


def denoised(pixels: np.ndarray, weight: float) -> np.ndarray:
    """Total variation denoising (Chambolle) channel by channel, as the 2016 code's SaveImage.

    Parameters
    ----------
    pixels
        (H, W, 3) uint8.
    weight
        Strength on the 0-1 scale; 0 leaves the picture as it is.
    """
    if weight == 0:
        return pixels
    from skimage.restoration import denoise_tv_chambolle  # slow to import

    smooth = denoise_tv_chambolle(pixels, weight=weight, channel_axis=-1)
    return np.clip(np.rint(smooth * 255), 0, 255).astype(np.uint8)


def save_png(
    path: Union[str, Path], pixels: np.ndarray, text: Optional[Dict[str, str]] = None
) -> None:
    """Write a PNG whole or not at all, with text chunks.

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
