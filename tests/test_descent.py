"""The descent: schedule, per-picture stops, freezing, batches, callbacks, Ctrl-C."""

import dataclasses
import json
from dataclasses import replace

import numpy as np
import pytest

import fmi.invert
from fmi import descent, pictures
from fmi.device.mxnet import mx
from fmi.networks.weights import embedded_path
from fmi.settings import CODE, FAST

QUICK = {"long_edge": 48, "progress": False}


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


class Rows:
    """The loss of :class:`Script`: which rows of its tables are computed."""

    def __init__(self, rows):
        self.rows = list(rows)
        self.pictures = len(self.rows)

    def take(self, pictures):
        return Rows(self.rows[place] for place in pictures)


class Script:
    """A network with given losses and gradients, (pictures, steps) each."""

    def __init__(self, losses, gradients):
        self.losses, self.gradients = np.array(losses), np.array(gradients)
        self.step, self.images = 0, []

    def gradient(self, image, loss):

        self.images.append((loss.rows, image.asnumpy()))
        losses, gradients = self.losses[loss.rows, self.step], self.gradients[loss.rows, self.step]
        self.step += 1
        return mx.nd.array(losses), mx.nd.ones_like(image) * mx.nd.array(
            gradients.reshape(-1, 1, 1, 1)
        )


PLAIN = replace(
    CODE,
    learning_rate=1.0,
    decay=1.0,
    momentum=0.0,
    last_momentum=0.0,
    weight_decay=0.0,
    clip=1e30,
    steps=5,
    stop=0.0,
)


def scripted(losses, gradients, chosen=PLAIN, first=100.0, **options):
    """What minimise makes of a picture whose pixels are all `first`, with ``x <- x - gradient``."""

    network = Script(losses, gradients)
    image = mx.nd.ones((1, 3, 2, 2)) * first
    rows = Rows(range(len(losses)))
    return descent.minimise(network, rows, image, chosen, progress=False, **options)


NAN, INF = float("nan"), float("inf")
GOOD = ([9, 8, 7, 6, 5], [1, 2, 3, 4, 5])
# losses, gradients, pixels of the picture that is kept, its losses, its relative change
DIVERGING = {
    "loss": ([9, 8, INF, 6, 5], GOOD[1], 99, [9, 8], 1 / 99),
    "nan": ([9, 8, 7, NAN, 5], GOOD[1], 97, [9, 8, 7], 2 / 97),
    "gradient": (GOOD[0], [1, 2, INF, 4, 5], 97, [9, 8, 7], 2 / 97),
    "nan gradient": (GOOD[0], [1, NAN, 3, 4, 5], 99, [9, 8], 1 / 99),
    "length": (GOOD[0], [1, 2, 3, 1e20, 5], 94, [9, 8, 7, 6], 3 / 94),
    "first gradient": (GOOD[0], [INF, 2, 3, 4, 5], 100, [9], None),
    "second loss": ([9, NAN, 7, 6, 5], GOOD[1], 100, [9], None),
    "first loss": ([-INF, 8, 7, 6, 5], GOOD[1], 100, [], None),
}


def check_diverged(found, pixels, losses, change):
    assert found.stopped == "diverged"
    assert found.image.shape == (3, 2, 2) and (found.image == pixels).all()
    assert found.loss == losses
    assert found.change == (None if change is None else pytest.approx(change, rel=1e-6))
    json.dumps([found.loss, found.change], allow_nan=False)


@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.parametrize("name", DIVERGING)
def test_a_descent_that_diverges_stops_and_keeps_the_last_good_picture(name, caplog):
    losses, gradients, *wanted = DIVERGING[name]
    steps, ended = [], []
    options = {"callback": lambda s: steps.append(s.step), "finished": lambda *a: ended.append(a)}
    (found,) = scripted([losses], [gradients], label="relu9_9", **options)
    check_diverged(found, *wanted)
    kept = len(wanted[1])
    whole_steps = kept if "loss" in name or name == "nan" else kept - 1
    assert steps == list(range(1, whole_steps + 1))
    assert ended == []
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "relu9_9" in record.getMessage()
    if name == "first loss":
        assert "init" in record.getMessage()
    else:
        assert f"step {kept} " in record.getMessage()
        assert "learning_rate" in record.getMessage() and "clip" in record.getMessage()


@pytest.mark.parametrize("name", ["gradient", "nan gradient", "first gradient"])
def test_clipping_does_not_hide_a_gradient_that_is_not_finite(name):
    losses, gradients, *wanted = DIVERGING[name]
    (found,) = scripted([losses], [gradients], replace(PLAIN, clip=10.0))
    check_diverged(found, *wanted)


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_pictures_that_diverge_stop_or_go_on_in_one_batch_as_alone(caplog):
    rows = [GOOD, *(case[:2] for case in DIVERGING.values()), ([1, 2, 3, 4, 5], [7, 7, 7, 1, 1])]
    chosen = replace(PLAIN, stop=1.9 / 97)  # GOOD and others make changes 1/99, 2/97, 3/94 ...
    for settings_ in (PLAIN, chosen):
        together = scripted(*zip(*rows), settings_)
        alone = [scripted([losses], [gradients], settings_)[0] for losses, gradients in rows]
        for one, other in zip(together, alone):
            np.testing.assert_array_equal(one.image, other.image)
            assert (one.loss, one.change, one.stopped) == (other.loss, other.change, other.stopped)
    assert [d.stopped for d in together].count("change") > 1
    together = scripted(*zip(*rows))
    assert [d.stopped for d in together] == ["steps", *["diverged"] * len(DIVERGING), "steps"]
    for found, (_, _, *wanted) in zip(together[1:], DIVERGING.values()):
        check_diverged(found, *wanted)
    assert (together[0].image == 100 - 15).all() and (together[-1].image == 100 - 23).all()
    assert together[0].loss == GOOD[0]


def test_the_callback_sees_only_pictures_that_have_neither_stopped_nor_diverged():
    states = []
    losses = [GOOD[0], [9, NAN, 9, 9, 9], GOOD[0]]
    gradients = [GOOD[1], GOOD[1], [8, 0, 3, 4, 5]]
    chosen = replace(PLAIN, steps=3, stop=1e-6)
    scripted(losses, gradients, chosen, callback=states.append)
    assert [s.pictures for s in states] == [(0, 1, 2), (0, 2), (0,)]
    assert [s.loss.tolist() for s in states] == [[9, 9, 9], [8, 8], [7]]
    for state, change in zip(states, ([1 / 99, 1 / 99, 8 / 92], [2 / 97, 0], [3 / 94])):
        np.testing.assert_allclose(state.change, change, rtol=1e-6)
    pixels = [state.image.asnumpy()[:, 0, 0, 0].tolist() for state in states]
    assert pixels == [[99, 99, 92], [97, 92], [94]]  # each its own copy


@pytest.mark.parametrize("name", ["loss", "gradient", "length", None])
def test_nothing_is_computed_after_the_last_picture_has_stopped(name):
    losses, gradients = DIVERGING[name][:2] if name else GOOD
    network = Script([losses] * 2, [gradients] * 2)
    image = mx.nd.ones((1, 3, 2, 2)) * 100
    chosen = PLAIN if name else replace(PLAIN, stop=2.5 / 97)
    found = descent.minimise(network, Rows([0, 1]), image, chosen, progress=False)
    kept = len(found[0].loss)
    assert kept < 5 and {d.stopped for d in found} == {"diverged" if name else "change"}
    assert network.step == kept + (name == "loss")


def test_a_warning_names_the_picture_among_several(caplog):
    losses, gradients, *_ = DIVERGING["nan"]
    rows = [GOOD, (losses, gradients), GOOD]
    for label, wanted in (("relu9_9", "relu9_9: picture 2 of 3 "), ("", "picture 2 of 3 ")):
        caplog.clear()
        scripted(*zip(*rows), label=label)
        (record,) = caplog.records
        assert record.getMessage().startswith(wanted)


def test_without_a_mean_colour_the_pictures_are_shown_as_they_are():
    states = []
    scripted([GOOD[0]], [GOOD[1]], callback=states.append)
    assert states[0].mean == (0.0, 0.0, 0.0)
    assert (states[0].arrays[0] == 99).all() and states[0].arrays[0].shape == (2, 2, 3)


def test_what_a_callback_does_to_its_copy_does_not_change_the_descent():
    def write(state):
        state.image[:] = 0

    (found,) = scripted([GOOD[0]], [GOOD[1]], callback=write)
    assert (found.image == 85).all()


def test_finished_is_called_as_soon_as_a_picture_has_stopped():
    events = []
    losses = [GOOD[0]] * 4
    gradients = [[8, 8, 0, 1, 1], [8, 0, 1, 1, 1], [8, INF, 1, 1, 1], [8, 8, 8, 8, 8]]
    chosen = replace(PLAIN, stop=1e-6, steps=4)

    def finished(index, found):
        events.append((index, found.stopped, found.change, float(found.image[0, 0, 0])))

    def step(state):
        events.append(state.step)

    found = scripted(losses, gradients, chosen, callback=step, finished=finished)
    first, second = (1, "change", 0.0, 92.0), (0, "change", 0.0, 84.0)
    assert events == [1, 2, first, 3, second, 4, (3, "steps", pytest.approx(8 / 68), 68.0)]
    assert [d.stopped for d in found] == ["change", "change", "diverged", "steps"]
    assert 0 < found[1].seconds <= found[0].seconds <= found[3].seconds


@pytest.mark.parametrize("where", ["callback", "finished"])
def test_exceptions_of_the_callers_functions_pass_through(where):
    mine = ZeroDivisionError("mine")

    def fails(*_):
        raise mine

    with pytest.raises(ZeroDivisionError) as caught:
        scripted([GOOD[0]], [GOOD[1]], **{where: fails})
    assert caught.value is mine


def test_an_interrupt_while_a_finished_picture_is_saved():
    def interrupt(index, found):
        raise KeyboardInterrupt

    gradients = [[8, 0, 1, 1, 1], [8, 8, 1, 1, 1], [8, 0, 1, 1, 1]]
    found = scripted([GOOD[0]] * 3, gradients, replace(PLAIN, stop=1e-6), finished=interrupt)
    assert [d.stopped for d in found] == ["change", "interrupted", "change"]
    assert [d.image[0, 0, 0] for d in found] == [92, 84, 92]
    assert [d.loss for d in found] == [[9, 8]] * 3
    assert [d.change for d in found] == [0, pytest.approx(8 / 84), 0]
    assert min(d.seconds for d in found) > 0


def test_an_interrupt_before_the_first_step_keeps_the_initial_picture():
    class Interrupted(Script):
        def gradient(self, image, loss):
            raise KeyboardInterrupt

    network = Interrupted([GOOD[0]], [GOOD[1]])
    image = mx.nd.ones((1, 3, 2, 2))
    (found,) = descent.minimise(network, Rows([0]), image, PLAIN, progress=False)
    assert (found.stopped, found.loss, found.change) == ("interrupted", [], None)
    assert (found.image == 1).all()


def test_each_picture_has_its_own_memory_and_the_first_is_left_as_it_is():

    first = mx.nd.ones((3, 3, 2, 2))
    gradients = [[1, 0, 1, 1, 1], [1, INF, 1, 1, 1], [1, 1, 1, 1, 1]]
    network = Script([GOOD[0]] * 3, gradients)
    chosen = replace(PLAIN, stop=1e-6)
    found = descent.minimise(network, Rows(range(3)), first, chosen, progress=False)
    assert [d.stopped for d in found] == ["change", "diverged", "steps"]
    for each in found:
        assert each.image.flags.owndata and each.image.base is None
    assert (first.asnumpy() == 1).all() and first.grad is None


def test_a_picture_that_becomes_the_mean_colour_has_a_finite_change():
    (found,) = scripted([GOOD[0]], [[0, 0, 0, 0, 100]])
    assert not found.image.any()
    assert found.stopped == "steps" and np.isfinite(found.change) and found.change > 1e30


class Bar:
    """Records what tqdm is told."""

    def __init__(self, **options):
        self.options, self.total, self.told = options, options["total"], []

    def __enter__(self):
        bars.append(self)
        return self

    def __exit__(self, *_):
        self.closed = True

    def set_postfix(self, **texts):
        self.texts = texts

    def update(self):
        self.told.append((self.total, self.texts["loss"], self.texts["change"]))
        assert self.texts["refresh"] is False


bars = []


@pytest.mark.parametrize(("progress", "hidden"), [(None, None), (True, False), (False, True)])
def test_the_progress_bar(progress, hidden, monkeypatch):

    monkeypatch.setattr(descent, "tqdm", Bar)
    network = Script([GOOD[0], [1, 1, 1, 1, 1]], [GOOD[1], [1, 1, 1, 1, 1]])
    chosen = replace(PLAIN, stop=0.03, decay=0.5, decay_every=3, steps=5, learning_rate=10.0)
    first = mx.nd.ones((1, 3, 2, 2)) * 1000
    descent.minimise(network, Rows([0, 1]), first, chosen, progress=progress, label="name")
    bar = bars.pop()
    options = {"total": 5, "desc": "name", "unit": "step", "disable": hidden, "leave": False}
    assert bar.options == options and bar.closed
    # Both pictures stop at once, as 10 / 990 < 0.03.
    assert bar.told == [(5, "10", "0.01")]


@pytest.mark.parametrize(
    ("change", "stop", "decay", "step", "total"),
    [
        (0.08, 0.01, 0.5, 4, 4 + 3 * 10),  # three halvings of ten steps each
        (0.09, 0.01, 0.5, 4, 4 + 32),
        (0.08, 0.01, 0.5, 80, 100),  # not more than the maximum
        (0.01, 0.01, 0.5, 4, 100),
        (0.08, 0.0, 0.5, 4, 100),
        (0.08, 0.01, 1.0, 4, 100),
    ],
)
def test_the_estimate_of_the_last_step(change, stop, decay, step, total):
    bar = Bar(total=100)
    chosen = replace(CODE, steps=100, stop=stop, decay=decay, decay_every=10)
    descent._show(bar, chosen, step, np.array([2.0, 1.5]), np.array([change, change / 2]))
    assert bar.told == [(total, "3.5", f"{change:.2g}")]


def test_the_seconds_of_a_step_are_divided_among_its_pictures(monkeypatch):
    clock = iter(range(100, 700, 6))
    monkeypatch.setattr(descent.time, "perf_counter", lambda: float(next(clock)))
    gradients = [[0, 8, 1, 1, 1], [8, INF, 1, 1, 1], [8, 1, 1, 1, 1]]
    found = scripted([GOOD[0]] * 3, gradients, replace(PLAIN, stop=1e-6, steps=3))
    assert [d.stopped for d in found] == ["change", "diverged", "steps"]
    # Steps of 6 seconds with 3, 2 and 1 pictures.
    assert [d.seconds for d in found] == [2, 2 + 3, 2 + 3 + 6]


def test_a_state_shows_its_pictures_in_rgb_and_cannot_be_changed():
    states = []
    mean = (1.0, 20.0, 300.0)
    scripted([GOOD[0]] * 2, [GOOD[1], [3, 3, 3, 3, 3]], mean=mean, callback=states.append)
    first, second = states[0].arrays
    assert first.shape == (2, 2, 3) and first.dtype == np.float32
    assert first[1, 1].tolist() == [100, 119, 399]
    assert second[0, 0].tolist() == [98, 117, 397]
    with pytest.raises(dataclasses.FrozenInstanceError):
        states[0].step = 7


def test_interrupted_pictures_are_as_after_the_last_step(caplog):
    def interrupt(state):
        if state.step == 3:
            raise KeyboardInterrupt

    found = scripted([GOOD[0], [1, 2, 3, 4, 5]], [GOOD[1], [0, 2, 2, 2, 2]], callback=interrupt)
    assert [d.stopped for d in found] == ["interrupted"] * 2
    assert [d.image[0, 0, 0] for d in found] == [94, 96]
    assert [d.loss for d in found] == [[9, 8, 7], [1, 2, 3]]
    assert [d.change for d in found] == pytest.approx([3 / 94, 2 / 96])
    assert all(d.seconds > 0 for d in found)
    (record,) = caplog.records
    assert record.levelname == "WARNING" and "step 3" in record.getMessage()


def test_warnings_name_the_picture_and_the_settings(caplog):
    broken = ([9, NAN, 7, 6, 5], GOOD[1])
    scripted(*zip(GOOD, broken, broken), replace(PLAIN, clip=7e29))
    first, second = (record.getMessage() for record in caplog.records)
    assert "picture 2 of 3 " in first and "picture 3 of 3 " in second
    assert "learning_rate (1)" in first and "clip (7e+29)" in first


def test_gatys_with_a_learning_rate_that_is_too_large(picture, style, small_weights, caplog):
    options = {**QUICK, "weights": small_weights, "clip": 1e9, "steps": 50, "stop": 0}
    found = fmi.invert.gatys(picture, style, learning_rate=1e3, **options)
    assert found.stopped == "diverged"
    assert np.isfinite(found.array).all() and np.isfinite(found.loss).all()
    assert 0 < found.steps < 50
    assert "learning_rate (1000)" in caplog.text
    json.dumps(found.describe(), allow_nan=False)


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


@pytest.mark.skipif(not embedded_path().is_file(), reason="the embedded network is not there")
@pytest.mark.parametrize("layer", ["relu2_2", "relu3_2"])
def test_fast_reaches_codes_loss_in_at_most_half_of_its_steps(layer):
    coffee = pictures.find("skimage:coffee", [])
    options = {"long_edge": 96, "weights": "embedded", "progress": False}
    code, fast = (
        fmi.invert.feature_map(coffee, layer, [0, 1, 2], settings=name, **options)
        for name in ("code", "fast")
    )
    for one, other in zip(code, fast):
        assert (other.steps, other.stopped) == (FAST.steps, "steps")
        assert other.steps <= one.steps / 2
        assert other.loss[-1] <= one.loss[-1]


def test_a_fast_batch_and_single_calls_are_the_same(picture, small_weights):
    options = {**QUICK, "weights": small_weights, "settings": "fast", "steps": 10}
    together = fmi.invert.feature_map(picture, "relu2_2", [0, 1, 2], **options)
    for index, other in enumerate(together):
        alone = fmi.invert.feature_map(picture, "relu2_2", index, **options)[0]
        assert np.abs(other.array - alone.array).max() < 0.5


@pytest.mark.parametrize("steps", [2, 9])
def test_the_last_loss_of_lbfgs_is_that_of_its_picture(steps, picture, style, small_weights):
    options = {**QUICK, "weights": small_weights}
    found = fmi.invert.gatys(picture, style, settings="fast", steps=steps, **options)
    assert found.loss == sorted(found.loss, reverse=True)
    again = fmi.invert.gatys(picture, style, init=found.array, steps=1, **options)
    assert found.loss[-1] == pytest.approx(again.loss[0], rel=1e-3)


@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        ("random", ("relu2_1",)),
        ("rank_match", ("style", "relu2_1")),
        ("purposeful", ("style",)),
        ("gatys", ("style",)),
    ],
)
def test_every_function_takes_preset_fast(function, arguments, picture, style, small_weights):
    given = [style if name == "style" else name for name in arguments]
    options = {**QUICK, "weights": small_weights, "settings": "fast"}
    found = getattr(fmi.invert, function)(picture, *given, **options)
    found = found[0] if function == "random" else found
    assert found.array.shape == (36, 48, 3)
    transfer = getattr(FAST, function, None)
    assert len(found.loss) == (transfer.steps if transfer else FAST.steps)
    assert found.loss[-1] < 0.8 * found.loss[0]
