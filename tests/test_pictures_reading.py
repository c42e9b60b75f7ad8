"""Pictures of every mode and format come out as the sRGB pixels that a person would see."""

import io
import os
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

from fmi import pictures
from fmi.errors import InputError


@pytest.fixture(scope="module")
def rgb():
    """Blocks of 8 x 8 pixels, so that lossy formats keep them."""
    random = np.random.RandomState(2)
    return random.randint(0, 256, (3, 4, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)


def saved(path, image, **options):
    image.save(path, **options)
    return pictures.read(path).pixels


@pytest.mark.parametrize(
    ("suffix", "error", "options"),
    [
        ("png", 0, {}),
        ("bmp", 0, {}),
        ("tif", 0, {"compression": "tiff_lzw"}),
        ("webp", 0, {"lossless": True}),
        ("ppm", 0, {}),
        ("jpg", 12, {"quality": 98, "subsampling": 0}),
        ("gif", 0, {}),
    ],
)
def test_formats(suffix, error, options, rgb, tmp_path):
    found = saved(tmp_path / f"a.{suffix}", Image.fromarray(rgb), **options)
    assert found.dtype == np.uint8 and found.shape == rgb.shape
    assert np.abs(found.astype(int) - rgb).max() <= error


def test_content_not_suffix_tells_the_format(rgb, tmp_path):
    path = tmp_path / "a.jpg"
    Image.fromarray(rgb).save(path, format="PNG")
    np.testing.assert_array_equal(pictures.read(path).pixels, rgb)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(orientation, rgb, tmp_path):
    turns = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a, -1),
        7: lambda a: np.rot90(a, 2).transpose(1, 0, 2),
        8: lambda a: np.rot90(a, 1),
    }
    exif = Image.Exif()
    exif[274] = orientation
    found = saved(tmp_path / "a.png", Image.fromarray(rgb), exif=exif)
    np.testing.assert_array_equal(found, turns[orientation](rgb))


def test_transparency_is_laid_over_white(tmp_path):
    for alpha, expected in ((255, (10, 20, 30)), (0, (255, 255, 255)), (51, (206, 208, 210))):
        image = Image.new("RGBA", (4, 4), (10, 20, 30, alpha))
        found = saved(tmp_path / "a.png", image)
        assert np.abs(found.astype(int) - expected).max() <= 1
    grey = saved(tmp_path / "a.png", Image.new("LA", (4, 4), (100, 0)))
    assert (grey == 255).all()


def test_palette_with_transparent_colour(tmp_path):
    image = Image.new("P", (4, 4), 1)
    image.putpalette([10, 20, 30, 200, 100, 50])
    assert (saved(tmp_path / "a.png", image) == (200, 100, 50)).all()
    assert (saved(tmp_path / "b.png", image, transparency=1) == 255).all()
    assert (saved(tmp_path / "c.gif", image, transparency=1) == 255).all()


def test_grey_and_two_colours(tmp_path):
    assert (saved(tmp_path / "a.png", Image.new("L", (4, 4), 77)) == 77).all()
    assert (saved(tmp_path / "a.png", Image.new("1", (4, 4), 1)) == 255).all()


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bits_of_grey(suffix, tmp_path):
    values = np.array([[0, 256, 257, 32896, 65535]], dtype=np.uint16)
    found = saved(tmp_path / f"a.{suffix}", Image.fromarray(values))
    np.testing.assert_array_equal(found[0, :, 0], [0, 1, 1, 128, 255])


def sixteen_bits(path, colour, values, transparent=b""):
    """Write one row of a PNG by hand: PIL writes no 16-bit colours, nor their transparent value."""

    def chunk(kind, content):
        crc = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", crc)

    width = len(values) // {0: 1, 2: 3}[colour]
    row = struct.pack(f">{len(values)}H", *values)
    parts = [
        chunk(b"IHDR", struct.pack(">2I5B", width, 1, 16, colour, 0, 0, 0)),
        chunk(b"tRNS", transparent) if transparent else b"",
        chunk(b"IDAT", zlib.compress(b"\0" + row)),
        chunk(b"IEND", b""),
    ]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    return pictures.read(path).pixels


def test_sixteen_bits_of_colour(tmp_path):
    found = sixteen_bits(tmp_path / "a.png", 2, (0, 32896, 65535, 65535, 257, 0))
    np.testing.assert_array_equal(found[0], [[0, 128, 255], [255, 1, 0]])


@pytest.mark.parametrize(
    ("transparent", "wanted"), [(0, [255, 0, 117, 117]), (30000, [0, 0, 255, 117])]
)
def test_a_transparent_value_of_sixteen_bits(transparent, wanted, tmp_path):
    """Values that become the same one of 8 bits differ in whether they are transparent."""
    values = (0, 1, 30000, 30001)
    found = sixteen_bits(tmp_path / "a.png", 0, values, struct.pack(">H", transparent))
    np.testing.assert_array_equal(found, np.repeat(np.array(wanted)[None, :, None], 3, axis=2))


def test_floating_point_is_refused(tmp_path):
    path = tmp_path / "a.tif"
    Image.fromarray(np.ones((4, 4), np.float32)).save(path)
    with pytest.raises(InputError, match="grey values"):
        pictures.read(path)


def test_cmyk(tmp_path):
    found = saved(tmp_path / "a.jpg", Image.new("CMYK", (16, 16), (0, 255, 255, 0)), quality=98)
    assert np.abs(found.astype(int) - (255, 0, 0)).max() <= 3


@pytest.mark.parametrize("save_all", [True])
@pytest.mark.parametrize("suffix", ["gif", "webp", "png", "tif"])
def test_first_frame(suffix, save_all, tmp_path):
    first, second = (Image.new("RGB", (8, 8), c) for c in ((255, 0, 0), (0, 0, 255)))
    options = {"lossless": True} if suffix == "webp" else {}
    path = tmp_path / f"a.{suffix}"
    found = saved(path, first, save_all=save_all, append_images=[second], **options)
    assert (found == (255, 0, 0)).all()


def linear_profile(name="line built-in"):
    """sRGB's primaries with a linear curve: LCMS's XYZ-based profile from PIL has other ones."""
    before, after = ("".join(f"\0{c}" for c in text).encode() for text in ("sRGB built-in", name))
    assert len(before) == len(after)
    srgb = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    count = struct.unpack(">I", srgb[128:132])[0]
    for index in range(count):
        tag, at, size = struct.unpack(">4s2I", srgb[132 + 12 * index : 144 + 12 * index])
        if tag in (b"rTRC", b"gTRC", b"bTRC"):
            curve = struct.pack(">4s2I", b"curv", 0, 0)
            srgb[at : at + 12] = curve
        elif tag == b"desc":
            assert before in srgb[at : at + size]
            srgb[at : at + size] = srgb[at : at + size].replace(before, after)
    return bytes(srgb)


def test_icc_profile_is_applied(tmp_path):
    """50 % of linear light is 188 in sRGB."""
    profile = linear_profile()
    found = saved(tmp_path / "a.png", Image.new("RGB", (4, 4), (128, 0, 255)), icc_profile=profile)
    assert np.abs(found.astype(int) - (188, 0, 255)).max() <= 1
    clear = Image.new("RGBA", (4, 4), (128, 128, 128, 255))
    found = saved(tmp_path / "a.png", clear, icc_profile=profile)
    assert np.abs(found.astype(int) - 188).max() <= 1


@pytest.mark.parametrize("name", ["Linear sRGB  ", "sRGB-elle-g10"])
def test_a_linear_profile_named_after_srgb_is_applied(name, tmp_path):
    """55 / 255 of linear light is 128 in sRGB."""
    profile = linear_profile(name)
    assert ImageCms.getProfileDescription(io.BytesIO(profile)).strip() == name.strip()
    found = saved(tmp_path / "a.png", Image.new("RGB", (4, 4), (55, 55, 55)), icc_profile=profile)
    assert np.abs(found.astype(int) - 128).max() <= 1


def test_srgb_profile_changes_nothing(rgb, tmp_path, caplog):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    found = saved(tmp_path / "a.png", Image.fromarray(rgb), icc_profile=profile)
    np.testing.assert_array_equal(found, rgb)
    grey = rgb[..., 0]
    found = saved(tmp_path / "a.png", Image.fromarray(grey), icc_profile=profile)
    np.testing.assert_array_equal(found, np.stack([grey] * 3, axis=2))
    assert not caplog.text


def test_damaged_profile_is_left_out(rgb, tmp_path, caplog):
    found = saved(tmp_path / "a.png", Image.fromarray(rgb), icc_profile=b"nonsense" * 30)
    np.testing.assert_array_equal(found, rgb)
    assert "ICC profile" in caplog.text


def test_decompression_bomb(tmp_path):
    """A file of 43 kB that asks for 600 MB."""
    path = tmp_path / "bomb.png"
    Image.new("1", (14000, 14000)).save(path)
    with pytest.raises(InputError, match=r"bomb\.png .*(pixels|Bomb)"):
        pictures.read(path)
    middle = tmp_path / "middle.png"
    Image.new("1", (9000, 8000)).save(middle)
    with pytest.raises(InputError, match="9000 x 8000 pixels, more than 67 million"):
        pictures.read(middle)


def test_reading_keeps_warning_filters(rgb, tmp_path):
    before = list(warnings.filters)
    saved(tmp_path / "a.png", Image.fromarray(rgb))
    assert warnings.filters == before


def cut(path):
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 2 // 3])


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "gif", "bmp", "tif"])
def test_cut_files(suffix, rgb, tmp_path):
    path = tmp_path / f"cut.{suffix}"
    Image.fromarray(np.random.RandomState(0).randint(0, 256, (50, 50, 3), dtype=np.uint8)).save(
        path
    )
    cut(path)
    with pytest.raises(InputError, match=f"cut.{suffix} cannot be read") as caught:
        pictures.read(path)
    assert "\n" not in str(caught.value)


def test_no_picture(tmp_path):
    path = tmp_path / "a.jpg"
    for content in (b"", b"<html>", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"):
        path.write_bytes(content)
        with pytest.raises(InputError, match="cannot be read as a picture; .*PNG, JPEG"):
            pictures.read(path)
    with pytest.raises(InputError, match="is not a file"):
        pictures.read(tmp_path)
    with pytest.raises(InputError, match="cannot be read: No such file"):
        pictures.read(tmp_path / "missing.png")


def test_damaged_image_object(tmp_path):
    stream = io.BytesIO()
    noise = np.random.RandomState(0).randint(0, 256, (50, 50, 3), dtype=np.uint8)
    Image.fromarray(noise).save(stream, format="PNG")
    image = Image.open(io.BytesIO(stream.getvalue()[:4000]))
    with pytest.raises(InputError, match="the image cannot be read as a picture"):
        pictures.read(image)


NAMES = {
    "null byte": "a\0b.png",
    "lone surrogate": "a\ud800b.png",
    "not UTF-8": os.fsdecode(b"a\xff\xfe.png"),
    "line break": "a\nb.png",
    "terminal control": "a\x1b[31mb.png",
    "too long a name": "a" * 300 + ".png",
    "too long a path": "/".join(["a" * 100] * 60) + ".png",
}


def refused(call, *parts):
    """The message of an InputError that is one line of text that any terminal can print."""
    with pytest.raises(InputError) as caught:
        call()
    message = str(caught.value)
    assert message.isprintable() and len(message) < 600
    message.encode()  # no lone surrogates
    for part in parts:
        assert part in message
    return message


@pytest.mark.parametrize("name", NAMES)
def test_names_that_no_file_can_have_or_no_terminal_can_print(name, tmp_path):
    text = NAMES[name]
    for path in (text, f"./{text}", tmp_path / text, str(tmp_path / text)):
        refused(lambda path=path: pictures.read(path), "picture")
    for given in (text, f"./{text}", text[: -len(".png")]):
        refused(lambda given=given: pictures.find(given, [tmp_path]))
    for folder in (text, tmp_path / text):
        refused(lambda folder=folder: pictures.find("coffee", [folder]), "coffee")


@pytest.mark.parametrize("name", ["not UTF-8", "line break", "terminal control"])
def test_a_file_with_a_name_that_cannot_be_printed(name, rgb, tmp_path):
    path = tmp_path / NAMES[name]
    Image.fromarray(rgb).save(path)
    found = pictures.read(path)
    np.testing.assert_array_equal(found.pixels, rgb)
    assert found.name.isprintable() and found.name[0] == "a" and found.name.encode()
    assert pictures.find(path.stem, [tmp_path]) == path
    assert pictures.find(str(path), []) == path
    path.write_bytes(b"no picture")
    refused(lambda: pictures.read(path), "PNG, JPEG")
    cut_png = io.BytesIO()
    Image.fromarray(rgb).save(cut_png, format="PNG")
    path.write_bytes(cut_png.getvalue()[:60])
    refused(lambda: pictures.read(path), "cannot be read")
    Image.new("1", (9000, 8000)).save(path)
    refused(lambda: pictures.read(path), "9000 x 8000")


def test_paths_as_bytes(rgb, tmp_path):
    class Path:
        def __fspath__(self):
            return os.fsencode(tmp_path / "a.png")

    Image.fromarray(rgb).save(tmp_path / "a.png")
    np.testing.assert_array_equal(pictures.read(Path()).pixels, rgb)


@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "link to itself", "file / file"])
def test_what_is_no_file_is_refused_and_not_waited_for(kind, tmp_path):
    path = tmp_path / "a.png"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "folder":
        path.mkdir()
    elif kind == "link to itself":
        path.symlink_to(path)
    else:
        path.write_text("")
        path = path / "a.png"
    reasons = {"link to itself": "Too many levels", "file / file": "Not a directory"}
    reason = reasons.get(kind, "is not a file")
    refused(lambda: pictures.read(path), "a.png", reason)
    refused(lambda: pictures.find(str(path), []), "a.png", reason)
