"""Numbers about the look of a picture, on pictures whose numbers are known."""

import bz2

import numpy as np
import pytest
from conftest import smooth_picture
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays as numpy_arrays
from test_textures import grating, noise, shuffled_pixels

from fmi.errors import InputError
from fmi.evidence import appearance
from fmi.evidence.appearance import (
    anisotropy,
    bandwidth,
    centroid,
    colour_entropy,
    colourfulness,
    compressed_size,
    significant_bands,
)

ALL = [getattr(appearance, name) for name in appearance.__all__ if name.islower()]
SPECTRAL = (centroid, bandwidth, anisotropy)


def plain(*colour, height=32, width=40):
    return np.full((height, width, 3), colour, np.uint8)


def halves(one, other):
    picture = plain(*one)
    picture[:, 20:] = other
    return picture


def fine_noise():
    """White noise without rounding effects of a narrow range."""
    return np.repeat(noise(0, 256, 256)[..., :1], 3, 2)


# --- colour ---


def test_colourfulness_against_the_formula():
    picture = smooth_picture(30, 40)
    total = []
    for red, green, blue in picture.reshape(-1, 3).astype(float):
        total.append((red - green, 0.5 * (red + green) - blue))
    rg, yb = np.transpose(total)
    wanted = np.sqrt(rg.var() + yb.var()) + 0.3 * np.sqrt(rg.mean() ** 2 + yb.mean() ** 2)
    assert colourfulness(picture) == pytest.approx(wanted)


def test_colourfulness_of_known_pictures():
    assert colourfulness(grating(0, 8)) == 0
    assert colourfulness(plain(255, 0, 0)) == pytest.approx(0.3 * np.hypot(255, 127.5))
    # Half red, half cyan: the means are 0, and each half is |(255, 127.5)| away.
    assert colourfulness(halves((255, 0, 0), (0, 255, 255))) == pytest.approx(np.hypot(255, 127.5))


def test_entropy_of_known_pictures():
    assert colour_entropy(plain(10, 200, 90)) == 0
    assert colour_entropy(halves((255, 0, 0), (0, 0, 255))) == pytest.approx(1)
    quarters = halves((255, 0, 0), (0, 0, 255))
    quarters[:16, :20], quarters[:16, 20:] = (0, 255, 0), (255, 255, 255)
    assert colour_entropy(quarters) == pytest.approx(2)
    picture = plain(0, 0, 0)
    picture[:, :10] = 255  # a quarter
    assert colour_entropy(picture) == pytest.approx(2 - 0.75 * np.log2(3))
    assert colour_entropy(noise(0)) > 9


def test_bins_of_the_entropy_are_ten_units_of_lightness():
    """A ramp from black to white has L* from 0 to 100: eleven bins, of which two are halves."""
    ramp = np.repeat(np.arange(256, dtype=np.uint8), 3).reshape(1, 256, 3)
    light = np.arange(256) / 255
    linear = np.where(light <= 0.04045, light / 12.92, ((light + 0.055) / 1.055) ** 2.4)
    lightness = np.where(linear > 0.008856, 116 * np.cbrt(linear) - 16, 903.3 * linear)
    shares = np.bincount(np.rint(lightness / 10).astype(int)) / 256
    assert len(shares) == 11
    assert colour_entropy(ramp) == pytest.approx(-(shares * np.log2(shares)).sum(), abs=0.02)


@given(numpy_arrays(np.uint8, (12, 16, 3)), st.integers(0, 99))
@settings(max_examples=25, deadline=None)
def test_colour_does_not_depend_on_the_order_of_pixels(picture, seed):
    mixed = shuffled_pixels(picture, seed)
    assert colourfulness(mixed) == pytest.approx(colourfulness(picture), rel=1e-9, abs=1e-9)
    assert colour_entropy(mixed) == pytest.approx(colour_entropy(picture), abs=1e-9)
    assert 0 <= colour_entropy(picture) <= np.log2(12 * 16) + 1e-9


# --- spectra ---


@pytest.mark.parametrize("angle", [0, 30, 45, 90, 120])
@pytest.mark.parametrize("cycles", [6, 12, 20])
def test_a_grating_has_its_frequency_and_one_orientation(angle, cycles):
    size = 96
    # The nearest wave that fits a whole number of times into both sides.
    down = round(cycles * np.sin(np.radians(angle)))
    across = round(cycles * np.cos(np.radians(angle)))
    frequency = np.hypot(down, across) / size
    angle = np.degrees(np.arctan2(down, across))
    picture = grating(angle, 1 / frequency)
    # L* is not linear in RGB: harmonics are weak, but not 0.
    assert centroid(picture) == pytest.approx(frequency, rel=0.06)
    assert bandwidth(picture) < 0.3
    assert anisotropy(picture) > 0.97
    assert 1 <= significant_bands(picture) <= 6


def test_white_noise_has_all_frequencies_and_no_orientation():
    picture = fine_noise()
    # The mean distance from the centre of a square of side 1.
    mean = (np.sqrt(2) + np.log(1 + np.sqrt(2))) / 6
    assert centroid(picture) == pytest.approx(mean, rel=0.02)
    points = np.random.RandomState(0).uniform(-0.5, 0.5, (2, 400_000))
    assert bandwidth(picture) == pytest.approx(np.log2(np.hypot(*points)).std(), rel=0.03)
    assert anisotropy(picture) < 0.03
    # An octave less is a quarter of the energy: two scales have more than the share.
    assert significant_bands(picture) == 12
    assert significant_bands(picture, 0.005) == 18


def test_two_orthogonal_gratings_have_no_orientation():
    both = (grating(0, 8).astype(int) + grating(90, 8)) // 2
    assert anisotropy(both.astype(np.uint8)) < 0.02
    # With three times the amplitude, nine times the energy: (9 - 1) / (9 + 1).
    three = (3 * grating(0, 8).astype(int) + grating(90, 8)) // 4
    assert anisotropy(three.astype(np.uint8)) == pytest.approx(0.8, abs=0.03)


def test_one_octave_between_two_gratings():
    """Equal energies at f and 2 f: half an octave from the mean each, and 1.5 f on average."""
    both = ((grating(0, 8).astype(int) + grating(0, 16, 1.0)) // 2).astype(np.uint8)
    assert bandwidth(both) == pytest.approx(0.5, abs=0.07)
    assert centroid(both) == pytest.approx(1.5 / 16, rel=0.06)


def test_one_colour_has_no_spectrum():
    for colour in ((0, 0, 0), (255, 255, 255), (17, 130, 201)):
        assert all(np.isnan(one(plain(*colour))) for one in SPECTRAL)
        assert significant_bands(plain(*colour)) == 0


@given(st.integers(0, 9999), st.booleans())
@settings(max_examples=15, deadline=None)
def test_turning_a_picture_by_a_quarter_changes_nothing(seed, mirror):
    picture = smooth_picture(40, 56, seed)
    turned = np.rot90(picture)[:, ::-1] if mirror else np.rot90(picture)
    for one in (*SPECTRAL, colourfulness, colour_entropy):
        assert one(turned) == pytest.approx(one(picture), rel=1e-3, abs=1e-4)
    assert 0 <= anisotropy(picture) <= 1
    assert 0 < centroid(picture) < np.sqrt(0.5)


def test_spectral_numbers_against_a_plain_loop():
    picture = np.repeat(smooth_picture(16, 20, 3)[..., :1], 3, 2)
    power = appearance._power(picture)
    frequency, octave, weights = [], [], []
    tensor = np.zeros((2, 2))
    for i, fy in enumerate(np.fft.fftfreq(16)):
        for j, fx in enumerate(np.fft.fftfreq(20)):
            if i or j:
                frequency.append(np.sqrt(fx**2 + fy**2))
                octave.append(np.log2(frequency[-1]))
                weights.append(power[i, j])
                # At the corner of the spectrum, both diagonals are one frequency.
                for sign in (1, -1) if fx == fy == -0.5 else (1, 1):
                    unit = np.array([fx, sign * fy]) / frequency[-1]
                    tensor += power[i, j] * np.outer(unit, unit) / 2
    assert sum(weights) == pytest.approx(1)
    small, large = np.linalg.eigvalsh(tensor)
    assert anisotropy(picture) == pytest.approx((large - small) / (large + small))
    assert centroid(picture) == pytest.approx(np.average(frequency, weights=weights))
    mean = np.average(octave, weights=weights)
    variance = np.average((np.array(octave) - mean) ** 2, weights=weights)
    assert bandwidth(picture) == pytest.approx(np.sqrt(variance))


def test_the_share_of_a_significant_band():
    picture = smooth_picture(64, 80)
    counts = [significant_bands(picture, share) for share in (0, 0.01, 0.05, 0.2, 1)]
    assert counts == sorted(counts, reverse=True) and counts[0] == 24 and counts[-1] == 0


# --- size ---


def paeth(picture):
    """PNG's filter 4, as its specification writes it."""
    found = np.zeros(picture.shape, np.uint8)
    height, width = picture.shape[:2]
    for channel in range(3):
        values = picture[..., channel].astype(int)
        for i in range(height):
            for j in range(width):
                a = values[i, j - 1] if j else 0
                b = values[i - 1, j] if i else 0
                c = values[i - 1, j - 1] if i and j else 0
                p = a + b - c
                pa, pb, pc = abs(p - a), abs(p - b), abs(p - c)
                best = a if pa <= pb and pa <= pc else b if pb <= pc else c
                found[i, j, channel] = (values[i, j] - best) % 256
    return found


def test_size_against_the_specification_of_png():
    picture = smooth_picture(24, 31)
    data = b"".join(paeth(picture)[..., channel].tobytes() for channel in range(3))
    assert compressed_size(picture) == len(bz2.compress(data, 9)) / (24 * 31)


def test_size_of_known_pictures():
    assert compressed_size(noise(0, 200, 200)) == pytest.approx(3, rel=0.02)
    assert compressed_size(plain(9, 30, 200, height=200, width=200)) < 0.01
    wave = grating(0, 9, height=200, width=200)
    assert compressed_size(wave) < compressed_size(smooth_picture(200, 200)) < 3
    assert compressed_size(fine_noise()) < 2.5 < compressed_size(noise(0, 256, 256))


# --- bad input ---


@pytest.mark.parametrize("one", ALL)
def test_bad_pictures(one, tmp_path):
    for bad in (np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8), np.zeros(3, np.uint8)):
        with pytest.raises(InputError, match="uint8"):
            one(bad)
    with pytest.raises(InputError, match=r"gone\.png"):
        one(tmp_path / "gone.png")


@pytest.mark.parametrize("one", ALL)
def test_the_smallest_pictures(one):
    for height, width in ((1, 1), (1, 2), (3, 1)):
        found = one(noise(0, height, width))
        assert np.isfinite(found) or (np.isnan(found) and one in SPECTRAL)
