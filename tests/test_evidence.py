"""The distance between panels, against NumPy alone."""

import numpy as np
import oracle
import pytest
from conftest import CAFFE_MEAN, smooth_picture
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays as numpy_arrays
from PIL import Image

from fmi import evidence
from fmi.networks import catalogue

LAYERS = ("relu1_1", "relu2_1")
DESCRIPTORS = 1 + len(LAYERS)


@pytest.fixture(scope="module")
def network(small_weights):
    return catalogue.load(weights=small_weights)


def described(panel, net):
    """Mean colour and Gram matrices of a panel at 250 x 187 pixels without 6 at each side."""
    small = np.asarray(Image.fromarray(panel).resize((250, 187), Image.Resampling.LANCZOS))
    inner = small[6:-6, 6:-6].astype(float)
    codes = net.codes((inner - CAFFE_MEAN).transpose(2, 0, 1))
    flat = [codes[name].reshape(len(codes[name]), -1) for name in LAYERS]
    return [inner.mean((0, 1)), *(maps @ maps.T / maps.shape[1] for maps in flat)]


def apart(first, second):
    """The sum of ||p - q|| / (||p|| + ||q||)."""
    length = lambda a: np.sqrt(np.square(a, dtype=float).sum())  # noqa: E731
    parts = [(length(p - q), length(p) + length(q)) for p, q in zip(first, second)]
    return sum(a / b if b else 0 for a, b in parts)


def test_against_numpy(network, arrays):
    net = oracle.Network(arrays, LAYERS[-1])
    rows = [smooth_picture(60, 80, 1), smooth_picture(187, 250, 2)]
    columns = [smooth_picture(300, 220, 3), rows[0], 255 - rows[1]]
    for panel, found in zip(rows, evidence.descriptors(rows, network, LAYERS)):
        for mine, wanted in zip(found, described(panel, net)):
            np.testing.assert_allclose(mine, wanted, rtol=1e-3, atol=1e-3 * np.abs(wanted).max())
    wanted = [[apart(described(r, net), described(c, net)) for c in columns] for r in rows]
    found = evidence.distances(rows, columns, network, LAYERS)
    np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-5)
    assert found[0].argmin() == 1 and found[0, 1] < 1e-6 < found.min(1)[1]


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_properties_of_the_distance(data):
    shapes = [(3,), (4, 4), (5, 5)][: data.draw(st.integers(1, 3))]
    values = st.integers(-(2**20), 2**20).map(lambda number: number / 64)
    first, second = (
        [data.draw(numpy_arrays(np.float32, shape, elements=values)) for shape in shapes]
        for _ in range(2)
    )
    found = evidence.distance(first, second)
    assert found == evidence.distance(second, first)
    assert 0 <= found <= len(shapes) + 1e-5
    assert found == pytest.approx(apart(first, second), rel=1e-4, abs=1e-12)
    assert evidence.distance(first, first) == 0
    if any((p != q).any() for p, q in zip(first, second)):
        assert found > 0
    opposite = [-array for array in first]
    assert evidence.distance(first, opposite) == pytest.approx(
        sum(bool(array.any()) for array in first), rel=1e-5
    )


@given(st.integers(8, 70), st.integers(8, 70), st.integers(0, 1000))
@settings(max_examples=5, deadline=None)
def test_properties_of_panels(network, height, width, seed):
    one, other = smooth_picture(height, width, seed), smooth_picture(width, height, seed + 1)
    found = evidence.distances([one, other], [one, other], network, LAYERS)
    assert found.shape == (2, 2)
    assert found[0, 0] == found[1, 1] == 0
    assert found[0, 1] == found[1, 0]
    assert 0 < found[0, 1] <= DESCRIPTORS


def test_black_panels_are_equal(network):
    black = np.zeros((20, 20, 3), np.uint8)
    assert evidence.distances([black], [black], network, LAYERS) == [[0]]
