"""Whitening: the cosine transform, the spectrum of an answer, and what is measured of a network."""

import numpy as np
import pytest
import scipy.fft
from hypothesis import given, settings
from hypothesis import strategies as st

from fmi import losses, whitening
from fmi.device.mxnet import mx
from fmi.networks.vgg import network
from fmi.networks.weights import embedded_path, load

SIZES = st.tuples(st.integers(2, 24), st.integers(2, 24))


def answer_of(seed, height, width):
    return np.random.RandomState(seed).standard_normal((3, height, width)).astype(np.float32)


def like(height, width):
    return mx.nd.zeros((1, 3, height, width))


@pytest.mark.parametrize("length", [1, 2, 7, 383])
def test_cosines_are_the_orthonormal_transform(length):
    identity = np.eye(length)
    np.testing.assert_allclose(
        whitening.cosines(length), scipy.fft.dct(identity, axis=1, norm="ortho"), atol=1e-5
    )


@settings(deadline=None, max_examples=30)
@given(SIZES, st.integers(0, 2**31), st.sampled_from([1e-3, 0.2]))
def test_whitening_is_diagonal_symmetric_and_positive(size, seed, weakest):
    height, width = size
    found = whitening.of_answer(answer_of(seed, height, width), like(height, width), weakest)
    gradient = answer_of(seed + 1, height, width)[None].repeat(2, axis=0)
    gradient[1] *= -3
    whitened = found(mx.nd.array(gradient)).asnumpy()
    colours, factors = found.colours.asnumpy(), found.factors.asnumpy().transpose(1, 0, 2)
    waves = scipy.fft.dctn(gradient, axes=(2, 3), norm="ortho")
    waves = np.einsum("bchw,cd,hwd,ed->behw", waves, colours, factors, colours)
    oracle = scipy.fft.idctn(waves, axes=(2, 3), norm="ortho")
    np.testing.assert_allclose(whitened, oracle, atol=1e-3 * np.abs(oracle).max())
    np.testing.assert_allclose(colours.T @ colours, np.eye(3), atol=1e-5)
    assert (factors >= 1 - 1e-5).all() and (factors <= weakest**-0.5 * (1 + 1e-5)).all()
    other = answer_of(seed + 2, height, width)
    turned = found(mx.nd.array(other[None])).asnumpy()[0]
    left, right = np.vdot(whitened[0], other), np.vdot(gradient[0], turned)
    assert left == pytest.approx(right, abs=1e-3 * np.linalg.norm(turned) * np.linalg.norm(other))


def test_an_answer_with_a_known_spectrum_is_made_white():
    height, width = 96, 128
    down, across = np.arange(height)[:, None] / height, np.arange(width)[None] / width
    strength = 1 / (0.05 + np.hypot(down, across))  # of the frequencies
    tint = (
        np.array([[3.0, 0, 0], [0, 2, 0], [0, 0, 1]])
        @ np.linalg.qr(np.arange(9).reshape(3, 3) ** 2.0)[0]
    )
    random = np.random.RandomState(0)

    def draw():
        waves = random.standard_normal((3, height, width)) * strength
        picture = scipy.fft.idctn(waves, axes=(1, 2), norm="ortho")
        return np.einsum("dc,dhw->chw", tint, picture).astype(np.float32)

    found = whitening.of_answer(draw(), like(height, width), 1e-5)
    made = (
        np.mean([found(mx.nd.array(draw()[None])).asnumpy()[0] for _ in range(8)], axis=0) * 8**0.5
    )
    np.testing.assert_allclose(np.corrcoef(made.reshape(3, -1)), np.eye(3), atol=0.05)
    power = scipy.fft.dctn(made, axes=(1, 2), norm="ortho").reshape(3, -1).std(axis=0)
    near, far = np.hypot(down, across) < 0.2, np.hypot(down, across) > 0.8
    for chosen in (near, far):
        assert power[chosen.ravel()].mean() == pytest.approx(power.mean(), rel=0.1)


def test_nothing_is_changed_without_an_answer():
    found = whitening.of_answer(np.zeros((3, 6, 8), np.float32), like(6, 8), 0.1)
    gradient = answer_of(3, 6, 8)[None]
    np.testing.assert_allclose(found(mx.nd.array(gradient)).asnumpy(), gradient, atol=1e-5)


def test_the_whitening_of_a_loss_depends_on_neither_targets_nor_batch(small_weights):
    truncated = network(load(small_weights)).truncated(["relu1_2", "relu2_1"])
    shapes = {name: code.shape[1:] for name, code in truncated(like(24, 32)).items()}

    def factors(pictures, seed):
        random = np.random.RandomState(seed)
        targets = {
            name: mx.nd.array(random.uniform(0, 9, (pictures, *shape)))
            for name, shape in shapes.items()
        }
        loss = losses.all_codes(targets, 0.5)
        return whitening.measured(truncated, loss, like(24, 32), 1e-3).factors.asnumpy()

    one = factors(1, 0)
    assert one.max() > 1.5  # the network answers frequencies differently
    np.testing.assert_allclose(factors(1, 1), one, rtol=1e-3)
    np.testing.assert_allclose(factors(3, 2), one, rtol=1e-3)


@pytest.mark.skipif(not embedded_path().is_file(), reason="the embedded network is not there")
def test_the_measured_spectrum_is_that_of_the_jacobian():
    """The mean square of J^T u in rings, from many explicit u, agrees with one measurement."""
    truncated = network(load("embedded")).truncated(["relu2_1"])
    size = (40, 48)
    random = np.random.RandomState(0)
    picture = mx.nd.array(random.standard_normal((1, 3, *size)) * whitening.CONTRAST)
    picture.attach_grad()
    squares = []
    for _ in range(20):
        with mx.autograd.record():
            code = truncated(picture)["relu2_1"]
            head = (code * mx.nd.array(random.standard_normal(code.shape))).sum()
        head.backward()
        waves = scipy.fft.dctn(picture.grad.asnumpy()[0], axes=(1, 2), norm="ortho")
        squares.append((waves**2).sum(axis=0))
    loss = losses.code("relu2_1", truncated(picture)["relu2_1"], 7.0)
    found = whitening.measured(truncated, loss, like(*size), 1e-6)
    variance = (1 / found.factors.asnumpy() ** 2).sum(axis=2).T
    down, across = np.arange(size[0])[:, None] / size[0], np.arange(size[1])[None] / size[1]
    radius, truth = np.hypot(down, across), np.mean(squares, axis=0)
    ratios = []
    for low in (0.1, 0.3, 0.5, 0.7, 0.9):
        ring = (radius > low) & (radius < low + 0.2)
        ratios.append(variance[ring].mean() / truth[ring].mean())
    assert max(ratios) / min(ratios) < 1.7
    assert truth[radius < 0.2].mean() / truth[radius > 1].mean() > 3  # otherwise nothing is tested
