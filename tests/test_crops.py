"""Photographs, their crops, responses of filters, and the crops that excite a filter most."""

import importlib.util
import logging

import numpy as np
import oracle
import pytest
from conftest import CAFFE_MEAN, random_arrays, smooth_picture
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fmi import pictures
from fmi.errors import InputError
from fmi.evidence.crops import Crops, cut, photographs, responses, top
from fmi.networks import catalogue

LAYERS = ("relu1_2", "relu2_1")


@pytest.fixture(scope="module")
def network(small_weights):
    return catalogue.load(weights=small_weights)


# --- photographs ---


def installed(name):
    return importlib.util.find_spec(name) is not None


@pytest.mark.skipif(not installed("sklearn"), reason="scikit-learn is not installed")
def test_the_default_photographs():
    found = photographs()
    assert len(found) == len({one.sha256 for one in found}) == 10
    assert {"astronaut", "brick", "china", "flower"} <= {one.name for one in found}
    for one in found:
        assert one.pixels.shape[2] == 3 and min(one.pixels.shape[:2]) >= 300
        assert one.pixels.std() > 20  # no picture is empty
    assert 300 <= len(cut(found, 64, 64)) <= 800


@pytest.mark.parametrize("missing", ["sklearn", "skimage"])
def test_a_missing_package_is_named(missing, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == missing else find(name)
    )
    with pytest.raises(InputError, match=r"scikit-(learn|image).*pip install -e '.*\[claims\]'"):
        photographs()


def test_a_folder_of_photographs(tmp_path, caplog):
    for number, name in enumerate(("b.png", "a.jpg", "C.PNG")):
        Image.fromarray(smooth_picture(30, 40, number)).save(tmp_path / name)
    (tmp_path / "broken.png").write_bytes(b"not a picture")
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "folder.png").mkdir()
    with caplog.at_level(logging.WARNING):
        found = photographs(tmp_path)
    assert [one.name for one in found] == ["C", "a", "b"]
    for name in ("broken.png", "notes.txt", "folder.png"):
        assert sum(name in record.getMessage() for record in caplog.records) == 1


def test_folders_without_photographs(tmp_path):
    with pytest.raises(InputError, match=r"no photograph.*\.png"):
        photographs(tmp_path)
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(InputError, match="no photograph"):
        photographs(tmp_path)
    for bad in (tmp_path / "gone", tmp_path / "a.png", "a\0b"):
        with pytest.raises(InputError, match="folder of photographs"):
            photographs(bad)


# --- crops ---


@given(st.integers(5, 60), st.integers(5, 60), st.integers(1, 30), st.integers(1, 20))
@settings(max_examples=40, deadline=None)
def test_crops_are_parts_of_their_photograph(height, width, size, stride):
    photograph = smooth_picture(height, width)
    if min(height, width) < size:
        with pytest.raises(InputError, match="size"):
            cut([photograph], size, stride)
        return
    found = cut([photograph], size, stride)
    down, across = ((side - size) // stride + 1 for side in (height, width))
    assert len(found) == down * across
    for index in range(len(found)):
        row, column = int(found.row[index]), int(found.column[index])
        np.testing.assert_array_equal(
            found.pixels[index], photograph[row : row + size, column : column + size]
        )
    # The rim is as wide on both sides, or a pixel more.
    assert 0 <= height - (found.row.max() + size) - found.row.min() <= 1
    assert (found.side == size).all() and (found.picture == 0).all()


def test_crops_at_two_scales_show_their_place():
    """The photograph has a white rectangle; the crops that see it say so by their place."""
    photograph = np.zeros((121, 160, 3), np.uint8)
    photograph[40:110, 60:140] = 255
    found = cut([np.zeros((80, 80, 3), np.uint8), photograph], 20, 5, (1.0, 0.5))
    bright = found.pixels.mean((1, 2, 3)) > 254
    assert set(found.picture) == {0, 1}
    np.testing.assert_allclose(found.side, np.where(found.side < 30, 20, 40), rtol=0.02)
    rows, columns = found.row + found.side, found.column + found.side

    def inside(rim):
        return (
            (found.picture == 1)
            & (found.row >= 40 + rim)
            & (rows <= 110 - rim)
            & (found.column >= 60 + rim)
            & (columns <= 140 - rim)
        )

    for scale in (found.side < 30, found.side > 30):
        assert (bright & scale).any() and (bright & scale <= inside(-1)).all()
        assert (bright | ~inside(5) | ~scale).all()


@pytest.mark.parametrize("scale", [0.3, 0.37, 0.7, 1.1, 2.3])
def test_scaled_crops_that_touch_are_no_neighbours(scale):
    found = cut([smooth_picture(150, 170)], 11, 11, (scale,))
    assert len(top(np.ones(len(found)), found)) == len(found)


def test_photographs_that_are_too_small_are_named(caplog):
    large, small = pictures.read(smooth_picture(50, 50)), smooth_picture(20, 90)
    with caplog.at_level(logging.WARNING):
        found = cut([small, large], 30, 10)
    assert set(found.picture) == {1}
    assert "90 x 20" in caplog.text
    with pytest.raises(InputError, match="30 pixels"):
        cut([small], 30, 10)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"size": 0}, "size=0"),
        ({"stride": 0}, "stride=0"),
        ({"scales": ()}, "scales"),
        ({"scales": (0.0,)}, "scales"),
        ({"scales": (float("nan"),)}, "scales"),
        ({"scales": (-1.0, 1.0)}, "scales"),
        ({"photographs": []}, "no photograph"),
    ],
)
def test_bad_crops(arguments, match):
    good = {"photographs": [smooth_picture(40, 40)], "size": 8, "stride": 8}
    with pytest.raises(InputError, match=match):
        cut(**{**good, **arguments})


# --- responses ---


def test_responses_against_numpy(network, arrays):
    found = cut([smooth_picture(60, 50)], 23, 13)  # odd: half a position is left out
    net = oracle.Network(arrays, LAYERS[-1], "down")
    measured = responses(network, found.pixels, LAYERS)
    for index, crop in enumerate(found.pixels):
        codes = net.codes((crop.astype(float) - CAFFE_MEAN).transpose(2, 0, 1))
        for layer in LAYERS:
            np.testing.assert_allclose(
                measured[layer][index], codes[layer].mean((1, 2)), rtol=1e-3, atol=1e-3
            )
    assert list(measured) == list(LAYERS)
    assert all(measured[layer].dtype == np.float32 for layer in LAYERS)


def test_interior_responses_do_not_depend_on_what_is_around(network, arrays):
    """A part of a picture has the same interior codes as the whole one has there."""
    picture = smooth_picture(64, 64)
    net = oracle.Network(arrays, LAYERS[-1], "down")
    codes = net.codes((picture.astype(float) - CAFFE_MEAN).transpose(2, 0, 1))
    begin, size = 20, 24  # a multiple of the strides
    part = picture[begin : begin + size, begin : begin + size]
    measured = responses(network, [part], LAYERS, interior=True)
    for layer, stride, reach in (("relu1_2", 1, (2, 2)), ("relu2_1", 2, (4, 5))):
        positions = [
            p
            for p in range(codes[layer].shape[1])
            if p * stride - reach[0] >= begin and p * stride + reach[1] < begin + size
        ]
        inner = codes[layer][:, positions[0] : positions[-1] + 1][
            :, :, positions[0] : positions[-1] + 1
        ]
        np.testing.assert_allclose(measured[layer][0], inner.mean((1, 2)), rtol=1e-3, atol=1e-3)
    plain = responses(network, [part], LAYERS)
    assert np.abs(plain["relu2_1"] - measured["relu2_1"]).max() > 0.01


def test_the_smallest_picture_with_an_interior(network):
    for layer, small in (("relu1_2", 4), ("relu2_1", 9), ("relu3_2", 12)):
        with pytest.raises(InputError, match="at least") as caught:
            responses(network, [smooth_picture(small, small)], [layer], interior=True)
        least = int(str(caught.value).split("at least ")[1].split()[0])
        assert network.layer(layer).receptive_field <= least
        assert len(responses(network, [smooth_picture(least, least)], [layer], interior=True))
        with pytest.raises(InputError, match="padding"):
            responses(network, [smooth_picture(least - 1, least)], [layer], interior=True)


def test_filters_that_are_copies_respond_alike(tmp_path):
    arrays = random_arrays(seed=5)
    arrays["conv2_1_weight"][3] = arrays["conv2_1_weight"][1]
    arrays["conv2_1_bias"][3] = arrays["conv2_1_bias"][1]
    arrays["conv2_1_weight"][0], arrays["conv2_1_bias"][0] = 0, -1  # and one that is silent
    np.savez(tmp_path / "copies.npz", **arrays)
    network = catalogue.load(weights=tmp_path / "copies.npz")
    found = cut([smooth_picture(60, 70), smooth_picture(50, 50, 3)], 20, 5)
    measured = responses(network, found.pixels, ["relu2_1"])["relu2_1"]
    np.testing.assert_allclose(measured[:, 1], measured[:, 3], rtol=1e-6)
    np.testing.assert_array_equal(top(measured[:, 1], found), top(measured[:, 3], found))
    assert len(top(measured[:, 1], found)) > 2
    assert (measured[:, 0] == 0).all() and len(top(measured[:, 0], found)) == 0


def test_responses_of_bad_input(network):
    with pytest.raises(InputError, match="no picture"):
        responses(network, [], LAYERS)
    with pytest.raises(InputError, match="no layer"):
        responses(network, [smooth_picture(20, 20)], [])
    with pytest.raises(InputError, match="relu7_7"):
        responses(network, [smooth_picture(20, 20)], ["relu7_7"])
    with pytest.raises(InputError, match="picture 0"):
        responses(network, [smooth_picture(4, 4)], ["relu5_1"])
    with pytest.raises(InputError, match="precision"):
        responses(network, [smooth_picture(20, 20)], LAYERS, precision="int8")


# --- top crops ---


def places(*rows, side=10.0):
    """Crops without pixels at (picture, row, column)."""
    picture, row, column = np.array(rows, float).T
    return Crops(
        np.zeros((len(rows), 1, 1, 3), np.uint8),
        picture.astype(int),
        row,
        column,
        np.full(len(rows), side),
    )


def test_one_crop_from_each_neighbourhood():
    found = places((0, 0, 0), (0, 5, 5), (0, 0, 10), (1, 0, 0), (0, 9.9, 30), (0, 0, 31))
    scores = np.array([1.0, 5, 2, 4, 3, 3.5])
    # 1 overlaps 0 and 2, and 5 overlaps 4; 3 is another photograph.
    np.testing.assert_array_equal(top(scores, found), [1, 3, 5])
    np.testing.assert_array_equal(top(scores, found, 2), [1, 3])
    np.testing.assert_array_equal(top(scores, found, 0), [])
    np.testing.assert_array_equal(top(scores, found, least_distance=0), [1, 3, 5, 4, 2, 0])
    np.testing.assert_array_equal(top(scores, found, least_distance=2), [1, 3, 5])


def test_so_many_crops_of_one_photograph():
    found = places((0, 0, 0), (0, 0, 20), (0, 0, 40), (1, 0, 0), (0, 0, 60))
    scores = np.array([5.0, 4, 3, 2, 1])
    np.testing.assert_array_equal(top(scores, found, per_picture=2), [0, 1, 3])
    np.testing.assert_array_equal(top(scores, found, 2, per_picture=1), [0, 3])
    np.testing.assert_array_equal(top(scores, found, per_picture=9), [0, 1, 2, 3, 4])


def test_crops_that_touch_are_no_neighbours():
    found = places((0, 0, 0), (0, 10, 0), (0, 10, 10), (0, 0, 10))
    assert len(top(np.ones(4), found)) == 4
    np.testing.assert_array_equal(top(np.array([1, 1, 2, 2]), found), [2, 3, 0, 1])


def test_crops_of_two_scales_are_neighbours_where_they_overlap():
    both = places((0, 0, 0), (0, 0, 0), (0, 0, 20))
    both.side[1] = 20
    np.testing.assert_array_equal(top(np.array([1.0, 2, 1]), both), [1, 2])


def test_silent_filters_have_no_top_crops():
    found = places((0, 0, 0), (1, 0, 0), (2, 0, 0))
    assert len(top(np.zeros(3), found)) == 0
    assert len(top(np.array([-1.0, 0, -3]), found)) == 0
    np.testing.assert_array_equal(top(np.array([-1.0, 0, 3]), found), [2])
    assert top(np.zeros(3), found).dtype.kind == "i"


@given(st.integers(0, 10_000), st.integers(1, 12), st.sampled_from([0.5, 1.0, 1.7]))
@settings(max_examples=40, deadline=None)
def test_top_crops_are_far_apart_and_nothing_better_is_left(seed, number, least):
    random = np.random.RandomState(seed)
    found = places(*np.column_stack([random.randint(0, 3, 40), random.randint(0, 60, (40, 2))]))
    scores = random.randint(-3, 6, 40).astype(float)
    chosen = top(scores, found, number, least)
    assert len(chosen) <= number and (scores[chosen] > 0).all()
    assert (np.diff(scores[chosen]) <= 0).all()

    def near(i, j):
        apart = max(abs(found.row[i] - found.row[j]), abs(found.column[i] - found.column[j]))
        return found.picture[i] == found.picture[j] and apart < least * 10

    assert not any(near(i, j) for i in chosen for j in chosen if i != j)
    if len(chosen) < number:  # each other one is not positive, or near a better one
        for i in set(range(40)) - set(chosen):
            assert scores[i] <= 0 or any(near(i, j) and scores[j] >= scores[i] for j in chosen)


def test_top_of_bad_responses():
    found = places((0, 0, 0), (1, 0, 0))
    for bad in (np.ones(3), np.ones((2, 2)), np.array([1, np.nan]), np.array([np.inf, 0])):
        with pytest.raises(InputError, match="2 crops"):
            top(bad, found)
