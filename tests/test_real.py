"""On the real VGG-19 and the paper's pictures, where FMI_MODELS and FMI_PICTURES name them.

FMI_PUBLISHED names a folder with the authors' Fig. 3 (fig3_golden_gate.png). FMI_FULL=1 runs
all of Fig. 3 that blocks 1-3 reach, which takes an hour on a laptop; otherwise two panels.
"""

import os

import h5py
import numpy as np
import oracle
import pytest
import skimage.data

import fmi.invert
from experiments import compare, published
from fmi import evidence, pictures
from fmi.networks import catalogue
from fmi.sources import table

FULL = os.environ.get("FMI_FULL") == "1"
LAYERS = ("relu1_2", "relu2_2", "relu3_2")


def panels(real_pictures, real_weights, layers, filters, **options):
    """Chained panels of the Golden Gate Bridge by the names of their files."""
    found = {}
    for layer in layers:
        inversions = fmi.invert.feature_map(
            real_pictures / "golden_gate.jpg", layer, filters, weights=real_weights, **options
        )
        for index, inversion in zip(filters, inversions):
            found[f"{layer}_filter{index}"] = np.asarray(inversion.image)
    return found


def test_first_panels_of_the_published_fig_3(real_pictures, real_weights, published_fig3):
    """Filter 0 of relu1_2 to its stop, and of relu2_2 far enough down to know it."""
    mine = panels(real_pictures, real_weights, LAYERS[:1], [0], chain=True)
    mine.update(panels(real_pictures, real_weights, LAYERS[1:2], [0], chain=True, steps=60))
    theirs = published.SHEETS["fig3"].read(published_fig3)
    one, two = compare.compare(mine, theirs, catalogue.load(weights=real_weights))
    assert one.own and two.own
    assert one.distance < 0.15 and two.distance < 0.3


@pytest.mark.full
@pytest.mark.skipif(not FULL, reason="FMI_FULL=1 is not set: this takes an hour")
def test_published_fig_3(real_pictures, real_weights, published_fig3):
    mine = panels(real_pictures, real_weights, LAYERS, range(5), chain=True)
    theirs = published.SHEETS["fig3"].read(published_fig3)
    rows = compare.compare(mine, theirs, catalogue.load(weights=real_weights))
    assert all(row.own for row in rows), rows
    assert np.median([row.distance for row in rows]) <= 0.12, rows


def test_codes_of_the_golden_gate_bridge(real_pictures, real_weights):
    """Mean activations measured independently: 256 pixels, anti-aliased, white being 255.

    Odd sizes were rounded down in pooling.
    """
    layers = ["relu1_1", "relu1_2", "relu2_1", "relu2_2", "relu3_1", "relu3_2", "relu3_4"]
    found = fmi.invert.activations(
        real_pictures / "golden_gate.jpg",
        layers,
        weights=real_weights,
        settings="paper",
        long_edge=256,
        pool_rounding="down",
    )
    means = [float(found[name].mean().asscalar()) for name in layers]
    assert means == pytest.approx([21, 98, 93, 95, 78, 91, 276], abs=0.8)


def test_code_inversion_finds_the_picture_again(real_pictures, real_weights):
    golden_gate = real_pictures / "golden_gate.jpg"
    found = fmi.invert.code(golden_gate, "relu2_1", weights=real_weights, long_edge=96)
    small = pictures.to_network(
        pictures.read(golden_gate).pixels,
        found.array.shape[:2],
        256,
        (0, 0, 0),
        "constant",
        False,
    )[0].transpose(1, 2, 0)
    assert np.corrcoef(np.asarray(found.image).ravel(), small.ravel())[0, 1] > 0.95
    assert found.loss[-1] < 0.001 * found.loss[0]


def test_distance_is_zero_to_itself_and_symmetric(real_weights):
    random = np.random.RandomState(0)
    images = [random.randint(0, 256, (60, 80, 3), dtype=np.uint8) for _ in range(2)]
    images.append(np.full((60, 80, 3), 128, np.uint8))
    table = evidence.distances(images, images, catalogue.load(weights=real_weights), compare.JUDGED)
    assert np.diag(table).max() < 1e-6
    np.testing.assert_allclose(table, table.T)
    assert table[0, 1] < table[0, 2]


@pytest.fixture(scope="session")
def photographs():
    """vgg16-hed, where it has been fetched."""
    path = table.find(table.models()["vgg16-hed"])
    if path is None:
        pytest.skip("vgg16-hed is not here: fmi weights fetch vgg16-hed")
    return catalogue.load("vgg16-hed")


def test_mean_activations_of_vgg16_hed(photographs):
    """Measured with h5py and SciPy's convolutions, average pooling, at 48 pixels."""
    pixels = np.ascontiguousarray(skimage.data.coffee()[:384:8, :384:8])
    image = pixels[..., ::-1] - np.array([104.00699, 116.66877, 122.67892])  # BGR
    value = image.transpose(2, 0, 1)
    with h5py.File(photographs.weights.path) as file:
        for block, count in ((1, 2), (2, 2), (3, 2)):
            for index in range(count):
                name = f"block{block}/layers/conv2d{f'_{index}' if index else ''}/vars"
                kernel, bias = (np.asarray(file[f"{name}/{i}"], dtype=float) for i in (0, 1))
                value = oracle.convolve(value, kernel.transpose(3, 2, 0, 1), bias)
                value = np.maximum(value, 0)
            value = oracle.pool(value) if block < 3 else value
    found = fmi.invert.activations(
        pixels, "relu3_2", network=photographs, settings="paper", long_edge=48
    )["relu3_2"].asnumpy()[0]
    assert np.linalg.norm(found - value) < 1e-4 * np.linalg.norm(value)


def test_fig3_of_vgg16_hed_is_scale_free(photographs):
    """The losses fall as far as they were seen to, and each filter has a texture of its own."""
    coffee = skimage.data.coffee()
    for layer, share in (("relu2_2", 0.85), ("relu5_2", 0.95)):
        found = fmi.invert.feature_map(
            coffee, layer, [0, 1], network=photographs, long_edge=128, progress=False
        )
        assert {inversion.record["settings"]["preset"] for inversion in found} == {"fast"}
        assert max(i.loss[-1] / i.loss[0] for i in found) < share
        one, two = (i.array for i in found)
        assert np.abs(one - two).mean() > 10
