"""Pictures: sizes, the way to and from the network, saving."""

import io
from pathlib import Path

import numpy as np
import pytest
from conftest import CAFFE_MEAN
from PIL import Image

from fmi import files, pictures
from fmi.errors import InputError


def test_fitted_truncates_and_enlarges_as_the_2016_code():
    assert pictures.fitted(np.zeros((734, 979, 3)), 512) == (383, 512)  # the Golden Gate Bridge
    assert pictures.fitted(np.zeros((313, 196, 3)), 512) == (512, 320)  # The Starry Night, cropped
    with pytest.raises(InputError, match="1000 x 1 pixels .*long_edge=100"):
        pictures.fitted(np.zeros((1, 1000, 3)), 100)


def bilinear_zero_outside(pixels, height, width):
    """Bilinear resampling at pixel centres, zeros outside, written from its definition."""
    out = np.zeros((height, width, 3))
    padded = np.pad(pixels.astype(float), ((1, 1), (1, 1), (0, 0)))
    for y in range(height):
        for x in range(width):
            v = (y + 0.5) * pixels.shape[0] / height - 0.5
            u = (x + 0.5) * pixels.shape[1] / width - 0.5
            top, left = int(np.floor(v)), int(np.floor(u))
            b, a = v - top, u - left
            block = padded[top + 1 : top + 3, left + 1 : left + 3]
            rows = block[0] * (1 - b) + block[1] * b
            out[y, x] = rows[0] * (1 - a) + rows[1] * a
    return out


@pytest.mark.parametrize("size", [(20, 27), (50, 61)])
def test_to_network_against_the_definition(picture, size):
    found = pictures.to_network(picture, size, 256, CAFFE_MEAN, "constant", False)
    wanted = bilinear_zero_outside(picture, *size) / 255 * 256 - CAFFE_MEAN
    assert found.shape == (1, 3, *size)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found[0].transpose(1, 2, 0), wanted, atol=1e-3)


def test_there_and_back(picture):
    there = pictures.from_rgb(picture, CAFFE_MEAN)
    np.testing.assert_allclose(pictures.to_rgb(there[0], CAFFE_MEAN), picture, atol=1e-4)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "values",
    [
        np.float64(1e30),  # its square is more than float32 holds
        np.float64(-1e30),
        np.float64(1e300),  # infinite in float32
        np.float32(1.0001e6),
        np.int64(-(2**63)),
        np.uint64(2**63),
        np.float16(np.inf),
        np.float64(np.nan),
        np.longdouble("1e400"),
    ],
)
def test_an_init_far_outside_of_the_scale_is_refused(values):
    init = np.zeros((4, 6, 3), np.asarray(values).dtype)
    init[3, 5, 2] = values
    for array in (init, init[..., 2]):
        with pytest.raises(InputError, match="init .*1000000") as caught:
            pictures.first_picture(array, (4, 6))
        assert str(array.shape) in str(caught.value)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        (np.array([[1e6, -1e6, 0.25]]), [1e6, -1e6, 0.25]),
        (np.array([[0, -5, 255]], np.int16), [0, -5, 255]),
        (np.array([[0, 2, 60000]], np.float16), [0, 2, 60000]),
    ],
)
def test_an_init_may_lie_outside_of_the_scale(values, wanted):
    found = pictures.first_picture(values, (1, 3))
    assert found.dtype == np.float32 and found.shape == (1, 3, 3)
    for channel in range(3):
        np.testing.assert_array_equal(found[0, :, channel], wanted)


def test_eight_bits_clips_and_truncates():
    values = np.array([[[-3.0, 7.9, 300.0]]], dtype=np.float32)
    assert pictures.eight_bits(values).tolist() == [[[0, 7, 255]]]


def test_denoising_smooths_each_channel(picture):
    flat = np.full((20, 20, 3), (200, 10, 90), dtype=np.uint8)
    noisy = np.clip(flat + np.random.RandomState(0).normal(0, 20, flat.shape), 0, 255)
    smooth = pictures.denoised(noisy.astype(np.uint8), 0.2)
    assert smooth.dtype == np.uint8
    assert smooth.std(axis=(0, 1)).max() < 0.3 * noisy.std(axis=(0, 1)).max()
    assert np.abs(smooth.mean(axis=(0, 1)) - noisy.mean(axis=(0, 1))).max() < 3
    assert pictures.denoised(picture, 0) is picture


def test_read_takes_path_image_and_array(picture, tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(picture).save(path)
    for source in (str(path), path, Image.open(path), picture):
        assert np.array_equal(pictures.read(source).pixels, picture)
    assert pictures.read(path).name == "a"
    assert pictures.read(picture).sha256 == pictures.read(Image.open(path)).sha256


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (np.zeros((4, 4, 3)), "uint8 of shape (H, W, 3)"),
        (np.zeros((4, 4, 3)), "not (4, 4, 3) float64"),
        (np.zeros((4, 4, 2), np.uint8), "not (4, 4, 2) uint8"),
        (np.zeros((0, 4, 3), np.uint8), "not (0, 4, 3) uint8"),
        (7, "a path, a PIL image or an array, not int"),
        ("nowhere.jpg", "picture nowhere.jpg cannot be read: No such file or directory"),
    ],
)
def test_what_is_no_picture_is_refused(source, message):
    with pytest.raises(InputError) as error:
        pictures.read(source)
    assert message in str(error.value)


def test_a_file_that_is_no_picture_is_refused(tmp_path):
    path = tmp_path / "notes.png"
    path.write_text("not a picture")
    with pytest.raises(InputError, match="notes.png cannot be read as a picture"):
        pictures.read(path)
    whole = io.BytesIO()
    Image.fromarray(np.zeros((50, 50, 3), np.uint8)).save(whole, format="PNG")
    path.write_bytes(whole.getvalue()[:60])
    with pytest.raises(InputError, match="notes.png cannot be read as a picture"):
        pictures.read(path)


def test_find_by_name_in_folders(picture_folder, tmp_path):
    found = pictures.find("seated_nude", [tmp_path, picture_folder])
    assert found == picture_folder / "seated-nude.png"
    assert pictures.find(str(found), []) == found
    with pytest.raises(InputError, match="picture 'mona_lisa' was not found in"):
        pictures.find("mona_lisa", [picture_folder])
    with pytest.raises(InputError, match="picture mona.jpg cannot be read: No such file"):
        pictures.find("mona.jpg", [picture_folder])


def test_a_file_here_is_found_by_its_name_whatever_its_suffix(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("notes.md").write_text("not a picture")
    assert pictures.find("notes.md", []) == Path("notes.md")
    with pytest.raises(InputError, match="picture 'notes.txt' was not found"):
        pictures.find("notes.txt", [])


def test_the_exact_name_comes_before_an_equivalent_one(tmp_path):
    mine, fetched = tmp_path / "mine", tmp_path / "fetched"
    for folder, names in (
        (mine, "my-cat My_Cat my_cat Cat cat Golden-Gate"),
        (fetched, "golden_gate"),
    ):
        folder.mkdir()
        for name in names.split():
            (folder / f"{name}.png").touch()
    for name in ("my-cat", "My_Cat", "my_cat", "Cat", "cat"):
        assert pictures.find(name, [mine, fetched]) == mine / f"{name}.png"
    assert pictures.find("golden_gate", [mine, fetched]) == mine / "Golden-Gate.png"
    assert pictures.find("golden_gate", [fetched, mine]) == fetched / "golden_gate.png"
    found = [file.name for file in pictures.named("my_cat", [fetched, mine])]
    assert found == ["my_cat.png", "My_Cat.png", "my-cat.png"]


def test_nothing_half_written_stays(tmp_path):
    def fails(beside):
        beside.write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(InputError, match="x.png cannot be written: No space left on device"):
        files.write_whole(tmp_path / "x.png", fails)
    assert list(tmp_path.iterdir()) == []
