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
    net = oracle.Network(arrays, LAYERS[-1], "down")
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


def luminance(panel):
    """L*, a*, b* at 250 x 187 pixels without 6 at each side, by the formulas of CIE and sRGB."""
    small = np.asarray(Image.fromarray(panel).resize((250, 187), Image.Resampling.LANCZOS))
    inner = small[6:-6, 6:-6].astype(float) / 255
    linear = np.where(inner <= 0.04045, inner / 12.92, ((inner + 0.055) / 1.055) ** 2.4)
    matrix = [
        [0.412453, 0.357580, 0.180423],
        [0.212671, 0.715160, 0.072169],
        [0.019334, 0.119193, 0.950227],
    ]
    xyz = linear @ np.array(matrix).T / [0.95047, 1, 1.08883]
    root = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    x, y, z = np.moveaxis(root, 2, 0)
    return 116 * y - 16, 500 * (x - y), 200 * (y - z)


def steepness(light):
    """The size of the Sobel gradient."""
    padded = np.pad(light, 1, mode="symmetric")
    smooth = [padded[i : i + light.shape[0]] for i in range(3)]
    down = smooth[2] - smooth[0]
    across = smooth[0] + 2 * smooth[1] + smooth[2]
    width = light.shape[1]
    vertical = down[:, :width] + 2 * down[:, 1:-1] + down[:, 2:]
    horizontal = across[:, 2:] - across[:, :width]
    return np.hypot(vertical, horizontal)


@pytest.mark.parametrize("seed", range(3))
def test_what_is_kept_against_numpy(seed):
    one, two = smooth_picture(100, 140, seed), smooth_picture(187, 250, 10 * seed + 1)
    mixed = (0.6 * np.asarray(Image.fromarray(one).resize((250, 187))) + 0.4 * two).astype(np.uint8)
    found = evidence.kept(one, mixed)
    (light, *colours), (other, *others) = luminance(one), luminance(mixed)
    edges = np.corrcoef(steepness(light).ravel(), steepness(other).ravel())[0, 1]
    assert found.edges == pytest.approx(edges, abs=2e-3)
    colour = np.sqrt(sum((p - q) ** 2 for p, q in zip(colours, others))).mean()
    assert found.colour == pytest.approx(colour, rel=1e-3)
    windows = [
        np.lib.stride_tricks.sliding_window_view(values, (7, 7)).reshape(-1, 49)
        for values in (light, other)
    ]
    p, q = windows
    means, spreads = [w.mean(1) for w in windows], [w.var(1, ddof=1) for w in windows]
    together = ((p - p.mean(1, keepdims=True)) * (q - q.mean(1, keepdims=True))).sum(1) / 48
    a, b = 1.0, 9.0  # (.01 * 100)^2, (.03 * 100)^2
    ssim = (2 * means[0] * means[1] + a) * (2 * together + b)
    ssim /= (means[0] ** 2 + means[1] ** 2 + a) * (spreads[0] + spreads[1] + b)
    assert found.ssim == pytest.approx(ssim.mean(), abs=2e-3)


def test_a_picture_keeps_all_of_itself_and_a_flat_one_has_no_edges():
    picture, flat = smooth_picture(100, 140), np.full((50, 60, 3), 90, np.uint8)
    assert evidence.kept(picture, picture) == evidence.Kept(1, pytest.approx(1), 0)
    assert evidence.kept(picture, flat).edges == 0
    assert evidence.kept(picture, picture[:, ::-1]).ssim < 0.5
