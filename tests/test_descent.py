"""The descent: schedule, per-picture stops, freezing, batches, callbacks, Ctrl-C."""

import numpy as np
import pytest

import fmi.invert
from fmi import descent
from fmi.settings import CODE

QUICK = {"long_edge": 48, "progress": False}


def test_learning_rate_falls_every_ten_steps_as_mxnets_schedule_does():
    from fmi._mxnet import mx

    schedule = mx.lr_scheduler.FactorScheduler(step=10, factor=0.9, base_lr=0.1)
    for step in range(1, 45):
        assert descent.learning_rate(CODE, step) == pytest.approx(schedule(step))


def test_start_is_uniform_around_the_mean_and_repeatable():
    first = descent.start((1, 3, 40, 50), 0.1, seed=3)
    assert first.dtype == np.float32
    assert np.abs(first).max() <= 0.1
    assert abs(first.mean()) < 0.005
    assert np.array_equal(first, descent.start((1, 3, 40, 50), 0.1, seed=3))
    assert not np.array_equal(first, descent.start((1, 3, 40, 50), 0.1, seed=4))


def test_batch_and_single_calls_are_the_same(picture, small_weights):
    options = {**QUICK, "weights": small_weights, "steps": 400}
    filters = [0, 1, 2, 3, 4]
    steps = {i: [] for i in ("batch", "single")}

    def note(kind):
        return lambda state: steps[kind].append(state.arrays) if state.step <= 3 else None

    together = fmi.invert.feature_map(
        picture, "relu2_2", filters, callback=note("batch"), **options
    )
    alone = [
        fmi.invert.feature_map(picture, "relu2_2", i, callback=note("single"), **options)[0]
        for i in filters
    ]
    assert [p.steps for p in together] == [p.steps for p in alone]
    assert len({p.steps for p in together}) > 1  # they stop at different steps
    assert {p.stopped for p in together} == {"change"}
    for index in filters:
        for step in range(3):
            single = steps["single"][3 * index + step][0]
            assert np.abs(steps["batch"][step][index] - single).max() < 0.01
        assert np.abs(together[index].array - alone[index].array).max() < 0.5
        np.testing.assert_allclose(together[index].loss, alone[index].loss, rtol=1e-3)


def test_stop_is_the_relative_change(picture, small_weights):
    states = []
    found = fmi.invert.code(
        picture, "relu1_2", weights=small_weights, stop=0.01, callback=states.append, **QUICK
    )
    changes = [float(s.change[0]) for s in states]
    assert found.stopped == "change"
    assert changes[-1] < 0.01 <= min(changes[:-1])
    assert found.change == pytest.approx(changes[-1])
    assert [s.step for s in states] == list(range(1, found.steps + 1))
    assert [float(s.loss[0]) for s in states] == found.loss


def test_change_is_measured_against_the_picture_with_its_mean_subtracted(picture, small_weights):
    images = []
    fmi.invert.code(
        picture,
        "relu1_2",
        weights=small_weights,
        steps=2,
        stop=0,
        callback=lambda s: images.append((s.image.asnumpy(), float(s.change[0]))),
        **QUICK,
    )
    (first, _), (second, change) = images
    wanted = np.linalg.norm(second - first) / np.linalg.norm(second)
    assert change == pytest.approx(wanted, rel=1e-4)


def test_stop_0_runs_all_steps(picture, small_weights):
    found = fmi.invert.code(picture, "relu1_1", weights=small_weights, steps=300, stop=0, **QUICK)
    assert (found.steps, found.stopped) == (300, "steps")
    assert found.loss[-1] < 0.05 * found.loss[0]


def test_interrupt_keeps_what_there_is(picture, small_weights):
    def interrupt(state):
        if state.step == 4:
            raise KeyboardInterrupt

    found = fmi.invert.feature_map(
        picture, "relu2_1", [0, 1], weights=small_weights, callback=interrupt, **QUICK
    )
    assert [(p.stopped, p.steps) for p in found] == [("interrupted", 4)] * 2
    assert np.abs(found[0].array - found[1].array).max() > 1


def test_interrupted_chain_keeps_finished_filters(picture, small_weights):
    calls = []

    def interrupt(state):
        calls.append(state.step)
        if len(calls) == 7:
            raise KeyboardInterrupt

    found = fmi.invert.feature_map(
        picture,
        "relu2_1",
        [0, 1, 2],
        chain=True,
        weights=small_weights,
        steps=5,
        stop=0,
        callback=interrupt,
        **QUICK,
    )
    assert [p.stopped for p in found] == ["steps", "interrupted"]


def test_a_batch_that_does_not_fit_is_split_without_a_difference(picture, small_weights):
    options = {**QUICK, "weights": small_weights, "steps": 20, "stop": 0}
    whole = fmi.invert.feature_map(picture, "relu2_1", [0, 1, 2], **options)
    split = fmi.invert.feature_map(picture, "relu2_1", [0, 1, 2], batch=2, **options)
    for one, other in zip(whole, split):
        assert np.abs(one.array - other.array).max() < 0.05


def test_same_seed_same_picture(picture, small_weights):
    options = {**QUICK, "weights": small_weights, "steps": 30}
    first, again = (fmi.invert.random(picture, "relu2_1", seed=2, **options)[0] for _ in range(2))
    other = fmi.invert.random(picture, "relu2_1", seed=3, **options)[0]
    assert np.array_equal(first.array, again.array)
    assert not np.array_equal(first.array, other.array)


def test_a_draw_is_the_same_whatever_their_number(picture, small_weights):
    options = {**QUICK, "weights": small_weights, "steps": 3}
    one = fmi.invert.random(picture, "relu2_1", draws=1, **options)
    three = fmi.invert.random(picture, "relu2_1", draws=3, **options)
    assert np.abs(one[0].array - three[0].array).max() < 0.01
    assert np.abs(three[0].array - three[1].array).max() > 1
