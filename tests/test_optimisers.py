"""Optimisers: the schedules and formulas of a step."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from fmi import optimisers
from fmi.device.mxnet import mx
from fmi.settings import CODE, FAST


def test_learning_rate_falls_every_ten_steps_as_mxnets_schedule_does():

    schedule = mx.lr_scheduler.FactorScheduler(step=10, factor=0.9, base_lr=0.1)
    for step in range(1, 45):
        assert optimisers.learning_rate(CODE, step) == pytest.approx(schedule(step))


def test_a_cosine_schedule_would_be_0_after_the_last_step():
    cosine = replace(FAST, steps=8, learning_rate=2.0, warm_up=0.0)
    rates = [optimisers.learning_rate(cosine, step) for step in range(1, 10)]
    np.testing.assert_allclose(rates, 1 + np.cos(np.linspace(0, np.pi, 9)), atol=1e-12)


def test_the_learning_rate_rises_in_a_line_before_the_schedule():
    chosen = replace(FAST, steps=20, learning_rate=3.0, warm_up=0.2)
    rates = [optimisers.learning_rate(chosen, step) for step in range(1, 22)]
    np.testing.assert_allclose(rates[:5], [0.6, 1.2, 1.8, 2.4, 3.0])
    np.testing.assert_allclose(rates[4:], 1.5 + 1.5 * np.cos(np.linspace(0, np.pi, 17)), atol=1e-12)
    steps = replace(CODE, warm_up=0.5, steps=8)
    rates = [optimisers.learning_rate(steps, step) for step in range(1, 13)]
    np.testing.assert_allclose(rates, [0.02, 0.04, 0.06, 0.08, *[0.1] * 6, 0.09, 0.09])


def test_momentum_goes_in_a_line_and_stays_in_the_2016_code():
    chosen = replace(FAST, steps=5, momentum=0.8, last_momentum=0.3)
    found = [optimisers.momentum(chosen, step) for step in range(1, 6)]
    np.testing.assert_allclose(found, [0.8, 0.7, 0.6, 0.5, 0.4])
    assert {optimisers.momentum(CODE, step) for step in range(1, 1001)} == {0.9}


def scaled(gradient, size):
    return gradient * size / np.sqrt((gradient.astype(float) ** 2).mean((1, 2, 3), keepdims=True))


@pytest.mark.parametrize("preset", [CODE, FAST])
def test_update_is_the_formula(preset):

    chosen = replace(preset, steps=20, decay_every=2, weight_decay=0.01)
    random = np.random.RandomState(0)
    image = random.normal(0, 50, (2, 3, 5, 6)).astype(np.float32)
    velocity, moved, moving = np.zeros_like(image), mx.nd.array(image), mx.nd.zeros(image.shape)
    for step in range(1, 6):
        gradient = (random.standard_cauchy(image.shape) * 10.0**step).astype(np.float32)
        before = moved.asnumpy()
        after = optimisers.update(moved, mx.nd.array(gradient), moving, chosen, step)
        np.testing.assert_array_equal(moved.asnumpy(), before)  # only the velocity is changed
        moved = after
        clipped = preset is CODE
        shaped = np.clip(gradient, -10, 10) if clipped else scaled(gradient, chosen.clip)
        rate = 0.1 * 0.9 ** ((step - 1) // 2) if clipped else chosen.learning_rate * step / 9
        momentum = 0.9 if clipped else 0.85 - 0.25 * (step - 1) / 20
        velocity = momentum * velocity - rate * (shaped + 0.01 * image)
        image = image + velocity
    np.testing.assert_allclose(moving.asnumpy(), velocity, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(moved.asnumpy(), image, rtol=1e-4, atol=1e-3)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**31), st.floats(-12, 12), st.floats(0.01, 100))
def test_a_scaled_gradient_keeps_its_direction_and_forgets_its_length(seed, decades, size):

    gradient = np.random.RandomState(seed).normal(size=(3, 3, 4, 5)).astype(np.float32)
    gradient[1] *= 10**decades  # each picture by itself
    gradient[2] = 0
    found = optimisers.scaled(mx.nd.array(gradient), size).asnumpy()
    np.testing.assert_allclose(found[:2], scaled(gradient[:2], size), rtol=1e-3)
    assert not found[2].any()


# --- L-BFGS ---

SHAPE = (2, 3, 2, 2)  # 12 values in each of 2 pictures


def bowl(image):
    """Loss and gradient of each picture: a narrow valley that is curved, as Rosenbrock's."""
    x = image.reshape(len(image), -1).astype(float)
    scales = np.linspace(1, 30, x.shape[1])
    bent = x[:, 1:] - 0.1 * x[:, :-1] ** 2
    loss = (scales * (x - 1) ** 2).sum(1) + 5 * (bent**2).sum(1)
    gradient = 2 * scales * (x - 1)
    gradient[:, 1:] += 10 * bent
    gradient[:, :-1] -= 2 * x[:, :-1] * bent
    return loss, gradient.reshape(image.shape)


def descend(settings, image, steps=None, whitening=None):
    """Return the pictures that L-BFGS asks for, and their losses."""
    found, asked = optimisers.LBFGS(settings, whitening), [image]
    for step in range(1, (steps or settings.steps) + 1):
        loss, gradient = bowl(asked[-1])
        moved = found.move(mx.nd.array(asked[-1]), loss, mx.nd.array(gradient), step)
        asked.append(moved.asnumpy())
    return found, asked


def started(seed=0):
    return np.random.RandomState(seed).uniform(-1, 3, SHAPE).astype(np.float32)


class Diagonal:
    """A positive definite map: a factor for each value."""

    factors = np.linspace(0.5, 2, 12).reshape(1, *SHAPE[1:])

    def __call__(self, gradient):
        return mx.nd.broadcast_mul(gradient, mx.nd.array(self.factors))


@pytest.mark.parametrize("whitening", [None, Diagonal()])
def test_the_direction_is_that_of_the_whole_inverse_hessian(whitening):
    """The update of BFGS with 12 x 12 matrices (Nocedal & Wright, eq. 6.17) as the oracle."""
    found, _ = descend(replace(FAST, steps=100), started(), 6, whitening)
    first = np.diag(Diagonal.factors.ravel()) if whitening else np.eye(12)
    assert len(found.pairs) >= 3
    for row in range(2):
        taken = [
            (
                p.step[row].asnumpy().ravel().astype(float),
                p.change[row].asnumpy().ravel().astype(float),
            )
            for p in found.pairs
            if p.inverse[row]
        ]
        s, y = taken[-1]
        inverse = first * (s @ y) / (y @ first @ y)
        for s, y in taken:
            left = np.eye(12) - np.outer(s, y) / (s @ y)
            inverse = left @ inverse @ left.T + np.outer(s, s) / (s @ y)
        wanted = -inverse @ found.gradient[row].asnumpy().ravel()
        np.testing.assert_allclose(
            found.direction[row].asnumpy().ravel(), wanted, rtol=0, atol=2e-3 * np.abs(wanted).max()
        )


def test_lbfgs_reaches_the_minimum_and_returns_the_best_picture():
    settings = replace(FAST, steps=40)
    _, asked = descend(settings, started())
    losses = np.array([bowl(image)[0] for image in asked])
    assert (losses[-1] <= losses.min(axis=0) + 1e-5).all()  # not one that was only tried
    for row in range(2):
        best = minimize(lambda x: bowl(x.reshape(1, 3, 2, 2))[0][0], started()[row].ravel()).fun
        assert losses[-1, row] == pytest.approx(best, rel=1e-3)


def test_a_step_that_fails_is_shortened_from_the_same_picture():
    image = started()
    found = optimisers.LBFGS(replace(FAST, steps=10))
    loss, gradient = bowl(image)
    first = found.move(mx.nd.array(image), loss, mx.nd.array(gradient), 1).asnumpy() - image
    assert np.sqrt((first**2).mean((1, 2, 3))) == pytest.approx(optimisers.FIRST_STEP, rel=1e-3)
    worse = np.array([loss[0] + 1e9, loss[1] - 1e3])  # the first picture fails, the second does not
    again = found.move(mx.nd.array(image + first), worse, mx.nd.array(gradient * 0.5), 2).asnumpy()
    np.testing.assert_allclose(again[0], image[0] + 0.1 * first[0], rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(found.reached(worse), [loss[0], worse[1]])  # the best so far
    assert np.isnan(found.reached(np.array([np.nan, 1.0]))[0])  # so that it is noticed
    assert np.abs(again[1] - image[1]).max() > np.abs(first[1]).max()


def test_pictures_of_lbfgs_are_independent():
    settings = replace(FAST, steps=12)
    _, together = descend(settings, started())
    for row in range(2):
        _, alone = descend(settings, started()[row : row + 1])
        np.testing.assert_allclose(alone[-1][0], together[-1][row], atol=1e-3)


@pytest.mark.parametrize("seed", range(4))
def test_a_picture_remembers_its_own_steps_while_others_fail(seed, monkeypatch):
    monkeypatch.setattr(optimisers, "PAIRS", 3)
    settings = replace(FAST, steps=16)
    _, together = descend(settings, started(seed))
    for row in range(2):
        _, alone = descend(settings, started(seed)[row : row + 1])
        for step in range(17):
            np.testing.assert_array_equal(alone[step][0], together[step][row])


def test_lbfgs_continues_with_some_of_the_pictures():
    settings = replace(FAST, steps=12)
    _, whole = descend(settings, started())
    found, asked = descend(settings, started(), 6)
    found.take([1])
    image = asked[-1][1:]
    for step in range(7, 13):
        loss, gradient = bowl(image)
        image = found.move(mx.nd.array(image), loss, mx.nd.array(gradient), step).asnumpy()
    np.testing.assert_allclose(image[0], whole[-1][1], atol=1e-3)


def test_lbfgs_remembers_a_limited_number_of_steps():
    found, _ = descend(replace(FAST, steps=60), started(), 50)
    assert len(found.pairs) == optimisers.PAIRS
