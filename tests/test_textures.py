"""Descriptors of textures: known answers, NumPy oracles, invariances and null cases."""

import numpy as np
import oracle
import pytest
from conftest import CAFFE_MEAN, smooth_picture
from hypothesis import given, settings
from hypothesis import strategies as st

from fmi.errors import InputError
from fmi.evidence import maps, spectra
from fmi.evidence.textures import (
    Colours,
    GramMatrices,
    MapMeans,
    MapMoments,
    MapSums,
    OrientedBands,
)
from fmi.networks import catalogue

LAYERS = ("relu1_1", "relu2_1")


@pytest.fixture(scope="module")
def network(small_weights):
    return catalogue.load(weights=small_weights)


@pytest.fixture(params=["grams", "means", "bands", "grey bands"])
def descriptor(request, network):
    return {
        "grams": GramMatrices(network, LAYERS),
        "means": MapMeans(network, LAYERS),
        "bands": OrientedBands(),
        "grey bands": OrientedBands(colour=False),
    }[request.param]


def noise(seed, height=64, width=80):
    return np.random.RandomState(seed).randint(0, 256, (height, width, 3), dtype=np.uint8)


def grating(angle, wavelength, phase=0.0, height=96, width=96, colour=(1, 1, 1)):
    """A sine that varies along a direction, given in degrees from the horizontal downwards."""
    y, x = np.mgrid[:height, :width]
    along = x * np.cos(np.radians(angle)) + y * np.sin(np.radians(angle))
    wave = 128 + 80 * np.sin(2 * np.pi * along / wavelength + phase)
    return (wave[..., None] * np.array(colour)).astype(np.uint8)


def shuffled_pixels(picture, seed=0):
    flat = picture.reshape(-1, 3)
    return flat[np.random.RandomState(seed).permutation(len(flat))].reshape(picture.shape)


def test_the_same_picture_has_no_distance(descriptor):
    one, other = smooth_picture(60, 70), smooth_picture(60, 70, 5)
    found = descriptor.distances(descriptor.of([one, other, one]))
    assert found.shape == (3, 3)
    assert (np.diag(found) == 0).all()
    assert found[0, 2] < 1e-4 * found[0, 1]
    np.testing.assert_allclose(found, found.T, rtol=1e-6, atol=1e-12)


@given(st.integers(40, 90), st.integers(40, 90), st.integers(0, 999))
@settings(max_examples=8, deadline=None)
def test_properties_of_the_distances(network, height, width, seed):
    given_ = [smooth_picture(height, width, seed), noise(seed, width, height), noise(seed + 1)]
    for one in (GramMatrices(network, LAYERS), MapMeans(network, LAYERS), OrientedBands()):
        features = one.of(given_)
        found = one.distances(features)
        assert np.isfinite(found).all() and (found >= 0).all()
        assert (found[~np.eye(3, dtype=bool)] > 0).all()
        assert features.shape[0] == 3 and features.dtype == np.float32
        np.testing.assert_allclose(one.distances(features[:1], features[1:]), found[:1, 1:])
        if not isinstance(one, OrientedBands):
            assert found.max() <= 1 + 1e-9  # after a relu


def test_one_picture_alone_is_as_in_a_batch(descriptor):
    pictures = [smooth_picture(50, 60, 1), smooth_picture(50, 60, 2), smooth_picture(40, 44, 3)]
    together = descriptor.of(pictures)
    alone = np.concatenate([descriptor.of([one]) for one in pictures])
    np.testing.assert_allclose(together, alone, rtol=1e-4, atol=1e-5 * abs(alone).max())


def test_grams_and_means_against_numpy(network, arrays):
    net = oracle.Network(arrays, LAYERS[-1], "down")
    pictures = [smooth_picture(41, 52, 1), noise(2, 41, 52), smooth_picture(30, 64, 3)]
    described = []
    for picture in pictures:
        codes = net.codes((picture.astype(float) - CAFFE_MEAN).transpose(2, 0, 1))
        described.append([codes[name].reshape(len(codes[name]), -1) for name in LAYERS])
    grams, means = np.zeros((2, 3, 3))
    for i, first in enumerate(described):
        for j, second in enumerate(described):
            for a, b in zip(first, second):
                p, q = (m @ m.T / m.shape[1] for m in (a, b))
                size = np.linalg.norm(p) + np.linalg.norm(q)
                grams[i, j] += np.linalg.norm(p - q) / size / len(LAYERS)
            x, y = (np.concatenate([m.mean(1) for m in one]) for one in (first, second))
            similarity = (2 * x * y + 1e-6) / (x**2 + y**2 + 1e-6)
            means[i, j] = 1 - similarity.mean()
    one, other = GramMatrices(network, LAYERS), MapMeans(network, LAYERS)
    np.testing.assert_allclose(one.distances(one.of(pictures)), grams, rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(other.distances(other.of(pictures)), means, rtol=1e-3, atol=1e-6)


def test_sums_moments_and_colours_against_numpy(network, arrays):
    shown = [smooth_picture(24, 32, seed) for seed in (1, 2)]
    net = oracle.Network(arrays, LAYERS[-1], "down")
    code = [net.codes((p.astype(float) - CAFFE_MEAN).transpose(2, 0, 1)) for p in shown]
    means = [[one[name].mean(axis=(1, 2)) for name in LAYERS] for one in code]
    spreads = [[one[name].std(axis=(1, 2)) for name in LAYERS] for one in code]
    sums, moments = MapSums(network, LAYERS), MapMoments(network, LAYERS)
    np.testing.assert_allclose(sums.of(shown), list(map(np.concatenate, means)), rtol=1e-4)
    both = [
        np.concatenate([part for pair in zip(m, s) for part in pair])
        for m, s in zip(means, spreads)
    ]
    np.testing.assert_allclose(moments.of(shown), both, rtol=1e-3)
    wanted = np.mean(
        [np.linalg.norm(p - q) / (np.linalg.norm(p) + np.linalg.norm(q)) for p, q in zip(*means)]
    )
    assert sums.distances(sums.of(shown))[0, 1] == pytest.approx(wanted, rel=1e-4)
    values = spectra.lab(shown[0]).reshape(-1, 3)
    colours = np.concatenate([values.mean(axis=0), values.std(axis=0)])
    np.testing.assert_allclose(Colours().of(shown)[0], colours, rtol=1e-4)


def test_a_mean_that_doubles_has_a_known_distance(network):
    one = MapMeans(network, LAYERS)
    features = np.array([[1.0, 0], [2, 0], [0, 3]])
    found = one.distances(features)
    assert found[0, 1] == pytest.approx((1 - 4 / 5) / 2, rel=1e-5)
    assert found[0, 2] == pytest.approx(1, rel=1e-5)


def test_default_layers_come_from_the_network(network):
    assert len(GramMatrices(network)._layers) == 4
    explicit = GramMatrices(network, tuple(network.landmarks(first=True)[:4]))
    picture = [smooth_picture(40, 40)]
    np.testing.assert_array_equal(GramMatrices(network).of(picture), explicit.of(picture))


def test_distances_of_almost_equal_vectors_keep_their_digits(network):
    one = OrientedBands()
    features = np.full((2, 300), 1000, np.float32)
    features[1, 0] += 2.0**-10
    found = one.distances(features)
    assert found[0, 1] == found[1, 0] == 2.0**-10


# --- oriented bands ---


def band_of(picture):
    """The scale and orientation with the largest mean amplitude of L*."""
    means = spectra.amplitudes(spectra.lab(picture)[..., 0]).mean((1, 2))
    return np.unravel_index(means.argmax(), (spectra.SCALES, spectra.ORIENTATIONS))


@pytest.mark.parametrize("orientation", range(spectra.ORIENTATIONS))
@pytest.mark.parametrize("scale", range(spectra.SCALES))
def test_a_grating_is_in_its_band(scale, orientation):
    wavelength = 2**scale / np.sqrt(0.125)
    angle = 180 / spectra.ORIENTATIONS * orientation
    assert band_of(grating(angle, wavelength)) == (scale, orientation)


def test_transfers_against_direct_formulas():
    height, width = 10, 13
    found = spectra.transfers(height, width)
    squares = np.zeros((height, width))
    for scale in range(4):
        for orientation in range(6):
            wanted = np.zeros((height, width))
            for i, fy in enumerate(np.fft.fftfreq(height)):
                for j, fx in enumerate(np.fft.fftfreq(width)):
                    radius = np.sqrt(fx**2 + fy**2)
                    octave = np.log2(max(radius, 1e-9) * np.sqrt(8)) + scale
                    direction = np.radians(30 * orientation)
                    cosine = fx * np.cos(direction) + fy * np.sin(direction)
                    if abs(octave) < 1 and cosine > 0:
                        ring = np.cos(np.pi / 2 * octave)
                        # alpha_6 of Portilla & Simoncelli: 2^5 5! / sqrt(6 * 10!)
                        wanted[i, j] = 2 * ring * (cosine / radius) ** 5 * 0.8229512
            index = scale * 6 + orientation
            np.testing.assert_allclose(found[index], wanted, atol=2e-5)
            squares += wanted**2


def test_energies_of_the_bands_add_up_to_the_variance():
    random = np.random.RandomState(0)
    height, width = 120, 160
    radius = np.hypot(*spectra.frequencies(height, width))
    inside = (radius > 0.05) & (radius < 0.35)
    field = np.fft.ifft2(np.fft.fft2(random.normal(size=(height, width))) * inside).real
    energies = spectra.band_energies(field)
    assert energies.sum() == pytest.approx(field.var(), rel=0.03)
    np.testing.assert_allclose(
        energies, (spectra.amplitudes(field) ** 2).mean((1, 2)) / 2, rtol=1e-4
    )


def test_amplitudes_against_numpy():
    for height, width, rows, columns in ((18, 25, 4, 6), (64, 90, 16, 16)):
        field = np.random.RandomState(0).normal(3, 2, (height, width))
        spectrum = np.fft.fft2(field - field.mean())
        found = spectra.amplitudes(field)
        for band, transfer in enumerate(spectra.transfers(height, width)):
            wanted = np.abs(np.fft.ifft2(spectrum * transfer))[rows:-rows, columns:-columns]
            np.testing.assert_allclose(found[band], wanted, atol=1e-4)


@pytest.mark.parametrize("angle", [0, 30, 37, 90])
def test_a_grating_has_the_same_amplitude_everywhere(angle):
    """Although it does not fit a whole number of times into the picture."""
    y, x = np.mgrid[:90, :101]
    along = x * np.cos(np.radians(angle)) + y * np.sin(np.radians(angle))
    found = spectra.amplitudes(10 * np.sin(2 * np.pi * along / np.sqrt(32) + 1))
    band = found[found.mean((1, 2)).argmax()]
    np.testing.assert_allclose(band, np.median(band), rtol=0.1)


def test_the_power_has_no_cross():
    y, x = np.mgrid[:40, :56]
    wave = np.sin(2 * np.pi * (6.5 * x / 56 + 3.5 * y / 40))  # opposite edges do not fit
    found = spectra.power(wave)
    assert found.sum() == pytest.approx(1) and found[0, 0] == 0
    assert found[3:5, 6:8].sum() + found[-4:-2, -7:-5].sum() > 0.9
    assert found[:, 0].sum() + found[0].sum() < 1e-3
    assert np.isnan(spectra.power(np.full((4, 5), 3.0))).all()


def test_the_last_digits_of_one_colour_are_no_texture():
    field = 50 + np.random.RandomState(0).uniform(0, 1e-5, (20, 20))
    assert np.isnan(spectra.power(field)).all()
    assert (spectra.band_energies(field) == 0).all()


def test_shuffled_pixels_keep_colour_and_lose_texture():
    picture = grating(30, 12, colour=(1, 0.6, 0.3))
    mixed = shuffled_pixels(picture)
    bands, colour = OrientedBands(colour=False), OrientedBands()
    assert bands.distances(bands.of([picture, mixed]))[0, 1] > 1
    difference = colour.of([mixed])[0] - colour.of([picture])[0]
    grey = bands.of([picture]).shape[1]
    assert np.abs(difference[grey:]).max() < 1e-5  # moments of a* and b*
    assert np.abs(difference[:3]).max() < 1e-5  # moments of L*
    assert np.abs(difference[3:grey]).max() > 0.1
    # Two shufflings are the same texture.
    assert bands.distances(bands.of([mixed, shuffled_pixels(picture, 1)]))[0, 1] < 0.15


def grey_and_coloured(seed):
    """Two pictures with the same L*, one grey, one in colours that vary from place to place."""
    from skimage.color import lab2rgb

    random = np.random.RandomState(seed)
    light = np.kron(random.uniform(40, 60, (8, 8)), np.ones((8, 8)))
    tint = np.kron(random.uniform(-15, 15, (2, 4, 4)), np.ones((1, 16, 16)))
    pictures = []
    for a, b in (np.zeros_like(tint), tint):
        unit = lab2rgb(np.stack([light, a, b], -1))
        pictures.append(np.rint(unit * 255).astype(np.uint8))
    return pictures


@given(st.integers(0, 10_000))
@settings(max_examples=10, deadline=None)
def test_without_colour_only_lightness_counts(seed):
    grey, tinted = grey_and_coloured(seed)
    without, with_ = OrientedBands(colour=False), OrientedBands()
    rounding = without.distances(without.of([grey, tinted]))[0, 1]
    assert rounding < 0.1 < 0.2 < with_.distances(with_.of([grey, tinted]))[0, 1]


@given(st.integers(0, 359), st.floats(3, 20), st.floats(0, 6))
@settings(max_examples=10, deadline=None)
def test_phase_does_not_matter(angle, wavelength, phase):
    one, other = grating(angle, wavelength), grating(angle, wavelength, phase)
    turned = grating(angle + 90, wavelength)
    bands = OrientedBands()
    found = bands.distances(bands.of([one, other, turned]))
    assert found[0, 1] < found[0, 2] / 2


def test_pictures_of_one_colour():
    bands, grey = OrientedBands(), OrientedBands(colour=False)
    red, dark, green = (
        np.full((40, 40, 3), colour, np.uint8)
        for colour in ((200, 30, 30), (100, 10, 10), (30, 120, 30))
    )
    found = bands.distances(bands.of([red, red.copy(), dark, green]))
    assert found[0, 1] == 0
    assert found[0, 2] > 0 and found[0, 3] > found[0, 2]
    assert np.isfinite(grey.of([red, dark])).all()


def test_white_noise_is_alike_in_all_orientations():
    features = spectra.amplitudes(spectra.lab(noise(0, 256, 256))[..., 0]).mean((1, 2))
    by_scale = features.reshape(spectra.SCALES, spectra.ORIENTATIONS)
    np.testing.assert_allclose(by_scale, by_scale.mean(1, keepdims=True) * np.ones(6), rtol=0.15)
    assert (np.diff(by_scale.mean(1)) < 0).all()  # an octave less is a quarter of the energy


def test_one_size():
    """A picture and an enlarged one differ, unless both are brought to one size."""
    small = grating(0, 8, height=64, width=96)
    large = np.asarray(maps.read_all([np.kron(small, np.ones((2, 2, 1), np.uint8))])[0])
    kept, brought = OrientedBands(), OrientedBands(long_edge=96)
    apart = kept.distances(kept.of([small, large]))[0, 1]
    assert brought.distances(brought.of([small, large]))[0, 1] < apart / 4
    assert brought.of([small]).shape == brought.of([large]).shape


@pytest.mark.parametrize("colour", [True, False])
def test_statistics_against_numpy(colour):
    picture = smooth_picture(50, 61, 4)
    values = spectra.lab(picture).astype(float)
    light = values[..., 0]
    groups = [[light.mean() / 20, light.std() / 20]]
    groups[0].append(((light - light.mean()) ** 3).mean() / (light.std() ** 3 + 0.5**3))
    amplitudes = [band.ravel().astype(float) for band in spectra.amplitudes(light)]
    groups.append([np.log(band.mean() + 0.5) for band in amplitudes])
    groups.append([np.log(band.std() + 0.5) for band in amplitudes])

    def correlation(one, other):
        covariance = ((one - one.mean()) * (other - other.mean())).mean()
        return covariance / np.sqrt((one.var() + 0.25) * (other.var() + 0.25))

    def pairs(rows):
        count = len(rows)
        return [correlation(rows[i], rows[j]) for i in range(count) for j in range(i + 1, count)]

    groups.append(pairs(amplitudes))
    if colour:
        opponents = values.reshape(-1, 3).T[1:]
        groups.append([*(opponents.mean(1) / 20), *(opponents.std(1) / 20)])
        groups.append(pairs(values.reshape(-1, 3).T))
    wanted = np.concatenate([np.array(group) / np.sqrt(len(group)) for group in groups])
    found = OrientedBands(colour).of([picture])[0]
    np.testing.assert_allclose(found, wanted, atol=1e-4)


# --- null cases ---


def textures(seed):
    """A texture of one of three kinds, drawn with a seed."""
    random = np.random.RandomState(seed)
    white = random.normal(size=(96, 96))
    down, across = spectra.frequencies(96, 96)
    kinds = [np.exp(-((down / 0.03) ** 2)), np.exp(-((across / 0.03) ** 2)), np.ones((96, 96))]
    found = []
    for kind in kinds:
        field = np.fft.ifft2(np.fft.fft2(white) * kind).real
        field = np.clip(128 + 40 * field / field.std(), 0, 255)
        found.append(np.repeat(field[..., None], 3, 2).astype(np.uint8))
    return found


def test_draws_of_one_texture_are_nearer_than_other_textures(descriptor):
    pictures = [picture for seed in range(4) for picture in textures(seed)]
    kinds = np.tile(np.arange(3), 4)
    found = descriptor.distances(descriptor.of(pictures))
    same = (kinds[:, None] == kinds) & ~np.eye(12, dtype=bool)
    assert found[same].max() < found[kinds[:, None] != kinds].min()


def test_noise_with_random_labels_is_found_again_by_chance_alone(descriptor):
    """32 draws of one noise, 2 of each of 16 labels: the nearest has the label in 1 of 31."""
    hits = []
    for seed in range(6):
        pictures = [noise(100 * seed + i, 32, 32) for i in range(32)]
        found = descriptor.distances(descriptor.of(pictures))
        np.fill_diagonal(found, np.inf)
        nearest = found.argmin(1)
        hits += list(nearest // 2 == np.arange(32) // 2)
    assert sum(hits) <= 17  # of 192, where 6 are expected: less than once in 10,000


# --- bad input ---


def test_bad_pictures_are_named(descriptor, tmp_path):
    with pytest.raises(InputError, match="no picture"):
        descriptor.of([])
    with pytest.raises(InputError, match="uint8"):
        descriptor.of([np.zeros((20, 20, 3))])
    with pytest.raises(InputError, match="missing"):
        descriptor.of([tmp_path / "missing.png"])


def test_descriptors_of_different_kinds_cannot_be_compared(network):
    grams, bands = GramMatrices(network, LAYERS), OrientedBands()
    picture = [smooth_picture(30, 30)]
    with pytest.raises(InputError, match="compared"):
        bands.distances(bands.of(picture), grams.of(picture))
    with pytest.raises(InputError, match="oriented|values"):
        grams.distances(bands.of(picture))
    with pytest.raises(InputError, match="compared"):
        bands.distances(bands.of(picture)[0])


def test_bad_layers_sizes_and_pictures_that_are_too_small(network):
    with pytest.raises(InputError, match="relu9_1"):
        GramMatrices(network, ("relu9_1",)).of([smooth_picture(30, 30)])
    with pytest.raises(InputError, match="picture 1"):
        MapMeans(network, ("relu5_1",)).of([smooth_picture(60, 60), smooth_picture(8, 8)])
    with pytest.raises(InputError, match="long_edge=0"):
        OrientedBands(long_edge=0).of([smooth_picture(30, 30)])
    tiny = OrientedBands().of([np.zeros((1, 1, 3), np.uint8), np.zeros((1, 9, 3), np.uint8)])
    assert np.isfinite(tiny).all()


def test_names_tell_the_distances_apart(network):
    kinds = [GramMatrices(network), MapMeans(network), OrientedBands(), OrientedBands(False)]
    assert len({one.name for one in kinds}) == 4
    assert all(network.name in one.name for one in kinds[:2])


def test_batches_end_where_the_size_changes_or_at_the_limit(network, monkeypatch):
    monkeypatch.setattr(maps, "PIXELS", 2 * 40 * 50)
    sizes = [(40, 50)] * 3 + [(50, 40)] + [(40, 50)]
    pictures = [smooth_picture(*size, seed=i) for i, size in enumerate(sizes)]
    batches = list(maps.in_batches(network, pictures, ["relu1_1"]))
    assert [list(where) for where, _ in batches] == [[0, 1], [2], [3], [4]]
