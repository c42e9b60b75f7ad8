"""Optimisers: the schedules and formulas of a step."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fmi import optimisers
from fmi.device.mxnet import mx
from fmi.settings import CODE, FAST


def test_learning_rate_falls_every_ten_steps_as_mxnets_schedule_does():

    schedule = mx.lr_scheduler.FactorScheduler(step=10, factor=0.9, base_lr=0.1)
    for step in range(1, 45):
        assert optimisers.learning_rate(CODE, step) == pytest.approx(schedule(step))


def test_a_cosine_schedule_would_be_0_after_the_last_step():
    cosine = replace(FAST, steps=8, learning_rate=2.0)
    rates = [optimisers.learning_rate(cosine, step) for step in range(1, 10)]
    np.testing.assert_allclose(rates, 1 + np.cos(np.linspace(0, np.pi, 9)), atol=1e-12)


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
        wave = (1 + np.cos(np.pi * (step - 1) / 20)) / 2
        rate = 0.1 * 0.9 ** ((step - 1) // 2) if clipped else chosen.learning_rate * wave
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
