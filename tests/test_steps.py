"""Three steps of each function in preset CODE against the NumPy computation in oracle.py."""

import numpy as np
import oracle
import pytest
from conftest import CAFFE_MEAN, smooth_picture

import fmi.invert

LAYERS5 = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")
HEIGHT, WIDTH = 36, 48


@pytest.fixture(scope="module")
def same_size_style():
    return smooth_picture(HEIGHT, WIDTH, seed=1)


def network_input(picture, white):
    """(H, W, 3) uint8 to (3, H, W), white becoming 256 (content) or 255 (style)."""
    return (picture / 255 * white - CAFFE_MEAN).transpose(2, 0, 1)


def expected(arrays, deepest, init, code_gradients, weight_decay=5e-4, **descent):
    network = oracle.Network(arrays, deepest)
    start = (init.astype(np.float32) - CAFFE_MEAN).transpose(2, 0, 1)
    found = oracle.descend(network, start, code_gradients, 3, weight_decay, **descent)
    return found.transpose(1, 2, 0) + CAFFE_MEAN


def codes(arrays, picture, deepest, white=256):
    return oracle.Network(arrays, deepest).codes(network_input(picture, white))


def agrees(inversion, wanted, init):
    assert inversion.steps == 3
    assert np.abs(inversion.array - init).max() > 1  # it has moved
    assert np.abs(inversion.array - wanted).max() < 0.01


def test_code(arrays, picture, init, three_steps):
    target = codes(arrays, picture, "relu3_2")["relu3_2"]
    wanted = expected(arrays, "relu3_2", init, lambda f: {"relu3_2": f["relu3_2"] - target})
    agrees(fmi.invert.code(picture, "relu3_2", **three_steps), wanted, init)


def test_feature_map(arrays, picture, init, three_steps):
    content = codes(arrays, picture, "relu2_2")["relu2_2"]
    found = fmi.invert.feature_map(picture, "relu2_2", [1, 4], **three_steps)
    for index, inversion in zip([1, 4], found):
        target = np.zeros_like(content)
        target[index] = content.sum(axis=0)
        wanted = expected(
            arrays, "relu2_2", init, lambda f, t=target: {"relu2_2": f["relu2_2"] - t}
        )
        agrees(inversion, wanted, init)


def test_feature_map_chained(arrays, picture, init, three_steps):
    found = fmi.invert.feature_map(picture, "relu2_2", [1, 4], chain=True, **three_steps)
    before = network_input(found[0].array, 255)
    content = oracle.Network(arrays, "relu2_2").codes(before)["relu2_2"]
    target = np.zeros_like(content)
    target[4] = content.sum(axis=0)
    wanted = expected(arrays, "relu2_2", init, lambda f: {"relu2_2": f["relu2_2"] - target})
    agrees(found[1], wanted, init)
    unchained = fmi.invert.feature_map(picture, "relu2_2", [1, 4], **three_steps)
    assert np.array_equal(found[0].array, unchained[0].array)
    assert np.abs(found[1].array - unchained[1].array).max() > 0.1


def test_random(arrays, picture, init, three_steps):
    content = codes(arrays, picture, "relu3_1")["relu3_1"]
    found = fmi.invert.random(picture, "relu3_1", draws=2, seed=5, **three_steps)
    for draw, inversion in enumerate(found):
        rate = fmi.codes.shares("normal", len(content), 5, draw, "relu3_1")
        energies = content.sum(axis=(1, 2))
        safe = np.where(energies > 0, energies, 1)
        target = content / safe[:, None, None] * rate[:, None, None] * content.sum()
        wanted = expected(
            arrays, "relu3_1", init, lambda f, t=target: {"relu3_1": f["relu3_1"] - t}
        )
        agrees(inversion, wanted, init)


def test_purposeful(arrays, picture, same_size_style, init, three_steps):
    content = codes(arrays, picture, "relu5_1")["relu2_2"]
    wanted_codes = codes(arrays, same_size_style, "relu5_1", white=255)

    def gradients(found):
        out = {}
        for name in LAYERS5:
            channels, height, width = found[name].shape
            difference = (found[name] - wanted_codes[name]).sum(axis=(1, 2))
            even = np.ones((channels, height, width)) * difference[:, None, None]
            out[name] = even / (channels * height * width)
        positions = content.shape[1] * content.shape[2]
        out["relu2_2"] = 10 * (found["relu2_2"] - content) / positions
        return out

    wanted = expected(arrays, "relu5_1", init, gradients, weight_decay=5e-3)
    agrees(fmi.invert.purposeful(picture, same_size_style, **three_steps), wanted, init)


def test_gatys(arrays, picture, same_size_style, init, three_steps):
    content = codes(arrays, picture, "relu5_1")["relu2_2"]
    wanted_codes = codes(arrays, same_size_style, "relu5_1", white=255)

    def gram(code):
        flat = code.reshape(len(code), -1)
        return flat @ flat.T

    def gradients(found):
        out = {}
        for name in LAYERS5:
            channels, height, width = found[name].shape
            flat = found[name].reshape(channels, -1)
            difference = gram(found[name]) - gram(wanted_codes[name])
            back = (difference @ flat).reshape(found[name].shape)
            out[name] = back / (channels**2 * height * width)
        out["relu2_2"] = 10 * (found["relu2_2"] - content)
        return out

    wanted = expected(arrays, "relu5_1", init, gradients, weight_decay=5e-3)
    agrees(fmi.invert.gatys(picture, same_size_style, **three_steps), wanted, init)
    # Gram gradients are so large that every element is clipped; once more without clipping.
    wanted = expected(arrays, "relu5_1", init, gradients, weight_decay=5e-3, rate=1e-3, clip=1e9)
    free = {**three_steps, "learning_rate": 1e-3, "clip": 1e9}
    agrees(fmi.invert.gatys(picture, same_size_style, **free), wanted, init)


def test_rank_match(arrays, picture, same_size_style, init, three_steps):
    content = codes(arrays, picture, "relu2_1")["relu2_1"]
    other = codes(arrays, same_size_style, "relu2_1", white=255)["relu2_1"]
    target = np.zeros_like(content)
    by_style, by_content = (np.argsort(code.sum(axis=(1, 2))) for code in (other, content))
    for place, source in zip(by_style, by_content):
        target[place] = content[source] - content[source].mean() + other[place].mean()
    wanted = expected(arrays, "relu2_1", init, lambda f: {"relu2_1": f["relu2_1"] - target})
    agrees(fmi.invert.rank_match(picture, same_size_style, "relu2_1", **three_steps), wanted, init)


def test_the_oracle_itself_against_finite_differences(arrays):
    """The oracle's gradient is that of 1/2 ||F - T||^2 by central differences."""
    network = oracle.Network(arrays, "relu2_1")
    random = np.random.RandomState(0)
    image = random.uniform(-50, 50, (3, 6, 7))
    target = random.uniform(0, 50, network.codes(image)["relu2_1"].shape)
    gradient = network.gradient(image, lambda f: {"relu2_1": f["relu2_1"] - target})

    def loss(values):
        return ((network.codes(values)["relu2_1"] - target) ** 2).sum() / 2

    for place in [(0, 0, 0), (1, 3, 4), (2, 5, 6), (0, 2, 5)]:
        step = np.zeros_like(image)
        step[place] = 1e-4
        numeric = (loss(image + step) - loss(image - step)) / 2e-4
        assert numeric == pytest.approx(gradient[place], rel=1e-5, abs=1e-6)
