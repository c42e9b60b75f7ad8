"""Surrogates keep what they say, and nothing else."""

import numpy as np
import pytest
from conftest import smooth_picture
from hypothesis import given, settings
from hypothesis import strategies as st
from test_textures import grating, noise

from fmi.errors import InputError
from fmi.evidence.surrogates import phase_randomised, random_phases, shuffled, whole_patches


def patches(picture, patch):
    """The patches of a picture as bytes, from left to right and from top to bottom."""
    rows, columns = picture.shape[0] // patch, picture.shape[1] // patch
    return [
        picture[i * patch : (i + 1) * patch, j * patch : (j + 1) * patch].tobytes()
        for i in range(rows)
        for j in range(columns)
    ]


# --- shuffled patches ---


@given(st.integers(1, 20), st.integers(20, 50), st.integers(20, 50), st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_patches_are_permuted(patch, height, width, seed):
    picture = noise(1, height, width)
    if (height // patch) * (width // patch) < 2:
        return
    found = shuffled(picture, patch, seed)
    assert found.dtype == np.uint8
    assert found.shape == (height // patch * patch, width // patch * patch, 3)
    assert sorted(patches(found, patch)) == sorted(patches(picture, patch))
    np.testing.assert_array_equal(found, shuffled(picture, patch, seed))


def test_the_order_is_that_of_the_seed():
    picture = noise(0, 24, 40)
    order = np.random.RandomState(5).permutation(15)
    before, after = patches(picture, 8), patches(shuffled(picture, 8, 5), 8)
    assert after == [before[index] for index in order]
    assert not np.array_equal(shuffled(picture, 8, 5), shuffled(picture, 8, 6))


def test_every_place_is_equally_likely():
    picture = np.zeros((8, 8, 3), np.uint8)
    picture[0, 0] = 255
    lit = [np.argwhere(shuffled(picture, 4, seed)[..., 0])[0] // 4 for seed in range(400)]
    counts = np.bincount([2 * i + j for i, j in lit], minlength=4)
    assert counts.min() > 70  # of 100


def test_the_rim_is_cropped_at_the_right_and_at_the_bottom():
    picture = noise(0, 23, 37)
    np.testing.assert_array_equal(whole_patches(picture, 10), picture[:20, :30])
    np.testing.assert_array_equal(whole_patches(picture, 1), picture)


@pytest.mark.parametrize("patch", [0, -3, 26, 40, 1000])
def test_patches_that_do_not_fit(patch):
    with pytest.raises(InputError, match=f"(?s)patch={patch} .*50 x 40"):
        shuffled(noise(0, 40, 50), patch, 0)
    with pytest.raises(InputError, match=f"patch={patch}"):
        whole_patches(noise(0, 40, 50), patch)


# --- random phases ---


@given(st.integers(3, 40), st.integers(3, 40), st.integers(0, 2**32 - 1))
@settings(max_examples=30, deadline=None)
def test_power_and_cross_spectra_stay(height, width, seed):
    field = np.random.RandomState(1).normal(size=(height, width, 3))
    field[..., 1] += field[..., 0]  # so that the channels go together
    found = random_phases(field, seed)
    before, after = (np.fft.fft2(one, axes=(0, 1)) for one in (field, found))
    for i in range(3):
        for j in range(3):
            np.testing.assert_allclose(
                after[..., i] * after[..., j].conj(),
                before[..., i] * before[..., j].conj(),
                atol=1e-9 * height * width,
            )
    np.testing.assert_allclose(found.mean((0, 1)), field.mean((0, 1)))
    np.testing.assert_array_equal(found, random_phases(field, seed))


def test_phases_are_random_and_uniform():
    field = np.random.RandomState(0).normal(size=(32, 32, 1))
    before = np.fft.fft2(field[..., 0])
    turns = []
    for seed in range(20):
        after = np.fft.fft2(random_phases(field, seed)[..., 0])
        turns.append((after / before)[1:16, 1:16].ravel())
    turns = np.concatenate(turns)
    assert abs(turns.mean()) < 0.05 and abs((turns**2).mean()) < 0.05
    np.testing.assert_allclose(np.abs(turns), 1)


def test_a_picture_with_random_phases():
    picture = (smooth_picture(60, 81) / 2 + 64).astype(np.uint8)  # far from black and white
    found = phase_randomised(picture, 0)
    assert found.dtype == np.uint8 and found.shape == picture.shape
    np.testing.assert_allclose(found.mean((0, 1)), picture.mean((0, 1)), atol=0.2)
    np.testing.assert_allclose(
        np.cov(found.reshape(-1, 3).T), np.cov(picture.reshape(-1, 3).T), rtol=0.05
    )
    assert abs(np.corrcoef(found.ravel(), picture.ravel())[0, 1]) < 0.7
    exact = random_phases(picture, 0)
    np.testing.assert_array_equal(found, np.clip(np.rint(exact), 0, 255))
    assert not np.array_equal(found, phase_randomised(picture, 1))


def test_a_grating_stays_a_grating_and_one_colour_stays_as_it_is():
    wave = grating(0, 12)
    found = phase_randomised(wave, 3).astype(float)
    power = np.abs(np.fft.fft2(found[..., 0] - found[..., 0].mean())) ** 2
    assert power[0, [8, -8]].sum() / power.sum() > 0.99
    plain = np.full((20, 30, 3), (3, 200, 90), np.uint8)
    np.testing.assert_array_equal(phase_randomised(plain, 0), plain)


def test_values_are_clipped():
    picture = np.zeros((32, 32, 3), np.uint8)
    picture[::2, ::2] = 255
    picture[:4] = 255
    exact = random_phases(picture, 0)
    assert exact.min() < -1 and exact.max() > 256
    found = phase_randomised(picture, 0)
    assert found[exact[..., :] < 0].max() == 0 and found[exact > 255].min() == 255


def test_bad_pictures(tmp_path):
    for bad in (np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8)):
        with pytest.raises(InputError, match="uint8"):
            shuffled(bad, 2, 0)
        with pytest.raises(InputError, match="uint8"):
            phase_randomised(bad, 0)
    with pytest.raises(InputError, match=r"gone\.png"):
        phase_randomised(tmp_path / "gone.png", 0)
