"""Losses against NumPy, their gradients against finite differences, and their algebra."""

import numpy as np
import pytest

from fmi import losses
from fmi.device.mxnet import mx

SHAPE = (2, 3, 4, 5)


@pytest.fixture
def code():
    return np.random.RandomState(0).uniform(-3, 3, SHAPE).astype(np.float32)


def flat(code):
    return code.reshape(*code.shape[:2], -1).astype(np.float64)


STATISTICS = {
    "code": flat,
    "energy": lambda code: flat(code).sum(axis=2),
    "gram": lambda code: np.einsum("bip,bjp->bij", flat(code), flat(code)),
}


def make(name, weight=0.7, seed=1):
    random = np.random.RandomState(seed)
    other = random.uniform(-3, 3, SHAPE).astype(np.float32)
    target = STATISTICS[name](other)
    given = target.reshape(SHAPE) if name == "code" else target
    loss = getattr(losses, name)("relu1_1", mx.nd.array(given), weight)

    def oracle(code):
        difference = STATISTICS[name](code) - target
        return weight * (difference**2).reshape(len(code), -1).sum(axis=1)

    return loss, oracle


@pytest.mark.parametrize("name", STATISTICS)
def test_value_of_each_picture(name, code):
    loss, oracle = make(name)
    found = loss({"relu1_1": mx.nd.array(code)}).asnumpy()
    np.testing.assert_allclose(found, oracle(code), rtol=1e-4)


@pytest.mark.parametrize("name", STATISTICS)
def test_gradient_by_finite_differences(name, code):
    loss, oracle = make(name)
    values = mx.nd.array(code)
    values.attach_grad()
    with mx.autograd.record():
        total = loss({"relu1_1": values})
    total.backward()
    found = values.grad.asnumpy()
    for place in [(0, 0, 0, 0), (1, 2, 3, 4), (0, 1, 2, 3)]:
        step = np.zeros(SHAPE)
        step[place] = 1e-3
        numeric = (oracle(code + step) - oracle(code - step)).sum() / 2e-3
        assert found[place] == pytest.approx(numeric, rel=1e-3)


def test_terms_add_up_and_can_be_taken_apart(code):
    first, one = make("code")
    second, two = make("gram", weight=0.1, seed=2)
    both = first + second
    values = {"relu1_1": mx.nd.array(code)}
    wanted = one(code) + two(code)
    np.testing.assert_allclose(both(values).asnumpy(), wanted, rtol=1e-4)
    last = both.take([1])
    assert (both.pictures, last.pictures) == (2, 1)
    found = last({"relu1_1": mx.nd.array(code[1:])}).asnumpy()
    np.testing.assert_allclose(found, wanted[1:], rtol=1e-4)


def test_the_gradient_is_twice_the_weighted_difference_and_times_is_a_factor(code):
    target = mx.nd.array(code[::-1].copy())
    for factor in (1.0, 3.0):
        loss = losses.code("relu1_1", target, 0.7).times(factor)
        x = mx.nd.array(code)
        x.attach_grad()
        with mx.autograd.record():
            values = loss({"relu1_1": x})
        values.backward()
        difference = code - code[::-1]
        wanted = 0.7 * factor * (difference.astype("float64") ** 2).sum(axis=(1, 2, 3))
        np.testing.assert_allclose(values.asnumpy(), wanted, rtol=1e-5)
        np.testing.assert_allclose(x.grad.asnumpy(), 1.4 * factor * difference, rtol=1e-5)
