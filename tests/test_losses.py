"""Losses against NumPy, their gradients against finite differences, and their algebra."""

import dataclasses

import numpy as np
import pytest

from fmi import losses
from fmi.device.mxnet import mx
from fmi.networks.base import loss_scaling
from fmi.settings import Transfer, Weighting

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


def test_the_explained_part_is_one_minus_the_loss_by_that_of_zeros(code):
    first, one = make("code", weight=0.3)
    second, two = make("gram", weight=0.1, seed=2)
    zeros = np.zeros_like(code)
    for loss, oracle in [(first, one), (second, two), (first + second, lambda c: one(c) + two(c))]:
        found = loss.explained(loss({"relu1_1": mx.nd.array(code)})).asnumpy()
        np.testing.assert_allclose(found, 1 - oracle(code) / oracle(zeros), rtol=1e-4, atol=1e-5)
        assert (loss.explained(loss({"relu1_1": mx.nd.zeros(SHAPE)})).asnumpy() == 0).all()
    target = mx.nd.array(code)
    reached = losses.code("relu1_1", target, 9)
    assert (reached.explained(reached({"relu1_1": target})).asnumpy() == 1).all()
    nothing = losses.code("relu1_1", mx.nd.zeros(SHAPE), 9)
    assert np.isnan(nothing.explained(nothing({"relu1_1": mx.nd.zeros(SHAPE)})).asnumpy()).all()


def gradient(code, value):
    """The gradient for the code of what `value` makes of it."""
    x = mx.nd.array(code)
    x.attach_grad()
    with mx.autograd.record():
        values = value({"relu1_1": x})
    values.backward()
    return values.asnumpy(), x.grad.asnumpy()


@pytest.mark.parametrize("weight", [0.5, 0.7])
@pytest.mark.parametrize("factor", [1.0, 3.0, 0.0, -0.25])
def test_the_gradient_is_twice_the_weighted_difference(weight, factor, code):
    other = code[::-1].copy()
    loss = losses.code("relu1_1", mx.nd.array(other), weight)
    wanted = weight * factor * ((code - other).astype("float64") ** 2).sum(axis=(1, 2, 3))
    for scaled in (factor * loss, loss * factor, lambda codes: factor * loss(codes)):
        values, found = gradient(code, scaled)
        np.testing.assert_allclose(values, wanted, rtol=1e-5)
        np.testing.assert_allclose(found, 2 * weight * factor * (code - other), rtol=1e-5)


@pytest.mark.parametrize("name", STATISTICS)
def test_each_picture_is_scaled_by_its_own_head_gradient(name, code):
    loss, _ = make(name, weight=0.5)
    _, plain = gradient(code, loss)
    heads = np.array([1.0, -3.0], np.float32)
    values, found = gradient(code, lambda codes: loss(codes) * mx.nd.array(heads))
    np.testing.assert_allclose(found, plain * heads[:, None, None, None], rtol=1e-5)
    _, squares = gradient(code, lambda codes: loss(codes) ** 2)
    twice = 2 * (values / heads)[:, None, None, None]
    np.testing.assert_allclose(squares, twice * plain, rtol=1e-4)


def test_a_sum_is_scaled_term_by_term(code):
    first, one = make("code")
    second, two = make("energy", seed=2)
    values = {"relu1_1": mx.nd.array(code)}
    found = (2 * first + second * np.float64(0.5))(values).asnumpy()
    np.testing.assert_allclose(found, 2 * one(code) + 0.5 * two(code), rtol=1e-4)
    both = (first + second) * 3
    assert [term.weight for term in both.terms] == [pytest.approx(2.1)] * 2
    assert [term.weight for term in first.terms] == [0.7]  # unchanged
    np.testing.assert_allclose(
        (np.float32(3) * (first + second))(values).asnumpy(), both(values).asnumpy(), rtol=1e-6
    )


@pytest.mark.parametrize("other", ["3", None, [1.0], np.ones(2), mx.nd.ones(2), 1j, True])
def test_a_loss_is_multiplied_by_numbers_only(other):
    loss, _ = make("code")
    for product in (lambda: loss * other, lambda: other * loss, lambda: loss + other):
        with pytest.raises(TypeError):
            product()


@pytest.mark.parametrize("factor", [float("nan"), float("inf"), -np.inf])
def test_a_factor_is_finite(factor):
    loss, _ = make("code")
    with pytest.raises(ValueError, match=str(factor)):
        loss * factor


CONTENT = {"a": (1, 2, 6, 5), "b": (1, 3, 3, 4), "c": (1, 4, 2, 2)}
STYLE = {"a": (1, 2, 7, 8), "b": (1, 3, 5, 3), "c": (1, 4, 3, 1)}
SCHEME = Transfer(
    content_layer="b",
    style_layers=("a", "b"),
    alpha=3.0,
    beta=0.2,
    content=Weighting(0.7, channels=1, positions=2),
    style=Weighting(1.1, channels=2, positions=1),
    weight_decay=0.0,
)


@pytest.mark.parametrize("name", ["purposeful", "gatys"])
def test_style_transfer_is_its_formula(name):
    """For a style picture of another size; a layer that is in no scheme is not needed."""
    random = np.random.RandomState(0)
    content, found, style = (
        {layer: random.uniform(-2, 2, shape).astype(np.float32) for layer, shape in shapes.items()}
        for shapes in (CONTENT, CONTENT, STYLE)
    )
    statistic = STATISTICS["energy" if name == "purposeful" else "gram"]
    sums = {
        layer: losses.Sums(mx.nd.array(statistic(code)), *(x[0, 0].size for x in pair))
        for layer, code in style.items()
        for pair in [(code, content[layer])]
    }
    loss = getattr(losses, name)(mx.nd.array(content["b"]), sums, SCHEME)
    kept = ((found["b"] - content["b"]) ** 2).sum()
    expected = 3.0 * 0.7 / (3 * 12**2) * kept
    for layer, channels, positions, other in (("a", 2, 30, 56), ("b", 3, 12, 15)):
        wanted = statistic(style[layer]) * positions / other  # as much a position
        difference = statistic(found[layer]) - wanted
        expected += 0.2 * 1.1 / (channels**2 * positions) * (difference**2).sum()
    codes = {layer: mx.nd.array(found[layer]) for layer in ("a", "b")}
    np.testing.assert_allclose(loss(codes).asnumpy(), [expected], rtol=1e-5)
    assert [term.layer for term in loss.terms] == ["b", "a", "b"]


def test_all_codes_is_the_sum_over_layers():
    random = np.random.RandomState(0)
    found, targets = (
        {layer: random.uniform(-2, 2, shape).astype(np.float32) for layer, shape in CONTENT.items()}
        for _ in range(2)
    )
    loss = losses.all_codes({n: mx.nd.array(t) for n, t in targets.items()}, 0.3)
    expected = 0.3 * sum(((found[n] - targets[n]) ** 2).sum() for n in CONTENT)
    value = loss({layer: mx.nd.array(code) for layer, code in found.items()})
    np.testing.assert_allclose(value.asnumpy(), [expected], rtol=1e-5)
    assert [term.layer for term in loss.terms] == list(CONTENT)


def test_pictures_of_a_batch_are_taken_in_the_given_order():
    targets = np.arange(5 * 2 * 3).reshape(5, 2, 3, 1).astype(np.float32)
    device = mx.cpu(1)
    first = losses.code("a", mx.nd.array(targets, ctx=device), 1.0)
    second = losses.energy("b", mx.nd.array(targets.sum(axis=(2, 3)), ctx=device), 2.0)
    taken = (first + second).take([3, 0, 4])
    assert taken.pictures == 3
    np.testing.assert_array_equal(taken.terms[0].target.asnumpy(), targets[[3, 0, 4]])
    np.testing.assert_array_equal(
        taken.terms[1].target.asnumpy(), targets.sum(axis=(2, 3))[[3, 0, 4]]
    )
    assert [(t.layer, t.weight, t.target.context) for t in taken.terms] == [
        ("a", 1.0, device),
        ("b", 2.0, device),
    ]
    with pytest.raises(dataclasses.FrozenInstanceError):
        taken.terms = ()
    with pytest.raises(dataclasses.FrozenInstanceError):
        taken.terms[0].weight = 3.0


@pytest.mark.parametrize("broken", ["loss", "gradient"])
def test_a_picture_that_diverges_does_not_change_the_scale_of_the_others(broken):
    """In float16: its loss is not finite, or its gradient is not whatever the scale."""

    def differentiate(scale):
        losses = np.array([7.0, np.nan if broken == "loss" else 3.0]) * scale
        gradients = np.array([[2.0**-20, 1.0], [np.inf, 1.0]]) * scale  # float16 ends at 2**-24
        return mx.nd.array(losses), mx.nd.array(gradients).astype("float16").astype("float32")

    found, gradient, scale = loss_scaling(differentiate, 2.0)
    assert scale == 2
    assert found.asnumpy()[0] == 7
    np.testing.assert_array_equal(gradient.asnumpy()[0], [2.0**-20, 1.0])


def test_the_scale_is_halved_for_any_picture_that_needs_it():
    scales = []

    def differentiate(scale):
        scales.append(scale)
        gradients = mx.nd.array([[1.0, 1.0], [1.0, 2.0**17]]) * scale
        return mx.nd.array([scale, scale]), gradients.astype("float16").astype("float32")

    _, gradient, scale = loss_scaling(differentiate, 1.0)
    assert scales == [1, 0.5, 0.25] and scale == 0.25
    np.testing.assert_array_equal(gradient.asnumpy(), [[1.0, 1.0], [1.0, 2.0**17]])
