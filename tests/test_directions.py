"""Directions in the space of channels, and activation maximisation."""

import dataclasses

import numpy as np
import oracle
import pytest
from conftest import CAFFE_MEAN, smooth_picture
from test_steps import agrees, codes, expected

import fmi.invert
from fmi.codes import along, directions
from fmi.device.mxnet import mx
from fmi.errors import InputError
from fmi.networks import catalogue
from fmi.runs.store import Store


@pytest.fixture
def from_noise(three_steps):
    return {name: value for name, value in three_steps.items() if name != "init"}


# --- directions ---


def test_a_code_along_directions_against_numpy():
    random = np.random.RandomState(0)
    code, rows = random.uniform(0, 3, (1, 4, 3, 2)), directions(4, 3, seed=1)
    found = along(mx.nd.array(code), mx.nd.array(rows)).asnumpy()
    wanted = rows[:, :, None, None] * code[0].sum(axis=0)
    np.testing.assert_allclose(found, wanted, rtol=1e-5)
    # As for Eq. 2, the energy of the target is that of the code.
    total = np.linalg.norm(code[0].sum(axis=0))
    np.testing.assert_allclose(np.linalg.norm(found.reshape(3, -1), axis=1), total, rtol=1e-5)


def test_random_directions_are_uniform_unit_vectors_that_do_not_depend_on_their_number():
    rows = directions(64, 400, seed=5)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1)
    np.testing.assert_array_equal(directions(64, 3, seed=5), rows[:3])
    assert not np.array_equal(directions(64, 3, seed=6), rows[:3])
    # Uniform on the sphere: each coordinate has mean 0 and variance 1/64, products have mean 0.
    assert np.abs(rows.mean(axis=0)).max() < 4 / np.sqrt(64 * 400)
    np.testing.assert_allclose((rows**2).mean(axis=0), 1 / 64, rtol=0.4)
    products = (rows @ rows.T)[np.triu_indices(400, 1)]
    assert abs(products.mean()) < 0.002 and products.std() == pytest.approx(1 / 8, rel=0.02)


def test_the_direction_of_an_axis_is_a_filter(picture, from_noise):
    rows = np.zeros((2, 5))
    rows[0, 3], rows[1, 1] = 7, 0.5  # the length does not matter
    found = fmi.invert.direction(picture, "relu2_2", rows, **from_noise)
    wanted = fmi.invert.feature_map(picture, "relu2_2", [3, 1], **from_noise)
    for one, other in zip(found, wanted):
        np.testing.assert_array_equal(one.array, other.array)
        assert one.loss == other.loss and one.explained == other.explained
        assert one.energy_share is None and "filter" not in one.record
    assert found[0].record["direction"] == [0, 0, 0, 1, 0]


def test_a_direction_against_the_numpy_descent(arrays, picture, init, three_steps):
    row = directions(5, 1, seed=2)[0]
    content = codes(arrays, picture, "relu2_2")["relu2_2"]
    target = row[:, None, None] * content.sum(axis=0)
    wanted = expected(arrays, "relu2_2", init, lambda f: {"relu2_2": f["relu2_2"] - target})
    (found,) = fmi.invert.direction(picture, "relu2_2", row, **three_steps)
    agrees(found, wanted, init)


def test_directions_are_kept_apart_in_a_store(picture, from_noise, tmp_path):
    given = {**from_noise, "store": Store(tmp_path / "store")}
    rows = directions(5, 2, seed=3)
    first = fmi.invert.direction(picture, "relu2_2", rows, **given)
    assert len(list(given["store"].names())) == 2
    again = fmi.invert.direction(picture, "relu2_2", rows[::-1], **given)
    assert len(list(given["store"].names())) == 2
    np.testing.assert_array_equal(again[0].array, first[1].array)
    assert not np.array_equal(first[0].array, first[1].array)


@pytest.mark.parametrize(
    "rows, fact",
    [
        (np.ones(4), "5 numbers"),
        (np.ones((2, 6)), r"\(2, 6\)"),
        (np.ones((1, 1, 5)), r"\(1, 1, 5\)"),
        (np.empty((0, 5)), r"\(0, 5\)"),
        (np.zeros(5), "0"),
        ([1, 2, 3, 4, np.nan], "finite"),
        ([1, 2, 3, 4, np.inf], "finite"),
        ("relu", "relu"),
        ([[1], [1, 2]], "numbers"),
        (None, "5 numbers|numbers"),
    ],
)
def test_odd_directions_are_refused(picture, from_noise, rows, fact):
    with pytest.raises(InputError, match=fact):
        fmi.invert.direction(picture, "relu2_2", rows, **from_noise)


def test_directions_belong_to_one_layer(picture, from_noise):
    with pytest.raises(InputError, match="one layer"):
        fmi.invert.direction(picture, ["relu1_1", "relu2_1"], np.ones(4), **from_noise)
    with pytest.raises(InputError, match="filters"):
        fmi.invert.direction(picture, "relu2_2:1", np.ones(5), **from_noise)


# --- activation maximisation ---


def test_maximisation_against_the_numpy_descent(arrays, picture, init, three_steps):
    def gradient(found):
        wanted = np.zeros_like(found["relu2_2"])
        wanted[3] = -1 / wanted[3].size
        return {"relu2_2": wanted}

    # The gradients of a mean are small; the rate makes them move the picture.
    rate = {"learning_rate": 1e4, "clip": 1e30}
    wanted = expected(arrays, "relu2_2", init, gradient, rate=1e4, clip=1e30)
    (found,) = fmi.invert.maximise(picture, "relu2_2", 3, **three_steps, **rate)
    agrees(found, wanted, init)


def test_the_loss_of_a_maximisation_is_minus_the_mean_activation(
    arrays, picture, init, three_steps
):
    found = fmi.invert.maximise(picture, "relu2_2", [3, 1], **three_steps)
    start = (init.astype(np.float32) - CAFFE_MEAN).transpose(2, 0, 1)
    code = oracle.Network(arrays, "relu2_2").codes(start)["relu2_2"]
    for inversion, index in zip(found, [3, 1]):
        assert inversion.loss[0] == pytest.approx(-code[index].mean(), rel=1e-4)
        assert inversion.explained is None  # there is no target


def test_maximisation_excites_the_filter_more_than_a_picture_does():
    given = {"weights": "embedded", "settings": "fast", "long_edge": 64, "progress": False}
    scene = smooth_picture(48, 64, seed=5)
    content = fmi.invert.activations(scene, "relu3_2", weights="embedded", long_edge=64)
    (found,) = fmi.invert.maximise(scene, "relu3_2", 3, **given)
    assert -found.loss[-1] > 3 * float(content["relu3_2"][0, 3].mean().asscalar())
    (other,) = fmi.invert.maximise(scene[::-1], "relu3_2", 3, **given)
    np.testing.assert_array_equal(found.array, other.array)  # only its proportions count


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_maximisation_in_tiles(precision, caplog):
    caplog.set_level("INFO")
    scene = smooth_picture(200, 260, seed=2)
    given = {
        **{"weights": "embedded", "long_edge": 260, "progress": False, "precision": precision},
        **{"settings": "fast", "steps": 4},
    }
    (whole,) = fmi.invert.maximise(scene, "relu2_2", 3, **given)
    (tiled,) = fmi.invert.maximise(scene, "relu2_2", 3, **given, memory=1.6e7)
    assert "tiles" in caplog.text
    limit = 1e-3 if precision == "float32" else 0.05
    assert np.allclose(tiled.loss, whole.loss, rtol=limit)
    assert -tiled.loss[-1] > -2 * tiled.loss[0]


def test_several_layers_are_maximised_together(picture, from_noise):
    (found,) = fmi.invert.maximise(picture, ["relu1_2", "relu2_1"], 2, **from_noise)
    parts = [
        fmi.invert.maximise(picture, layer, 2, **from_noise)[0] for layer in ("relu1_2", "relu2_1")
    ]
    assert found.loss[0] == pytest.approx(sum(part.loss[0] for part in parts), rel=1e-4)


@pytest.mark.parametrize("filters, fact", [(99, "99"), ([], "no filter"), (-1, "-1")])
def test_odd_filters_are_refused(picture, from_noise, filters, fact):
    with pytest.raises(InputError, match=fact):
        fmi.invert.maximise(picture, "relu2_2", filters, **from_noise)


def test_a_linear_term_is_no_squared_error(arrays, small_weights):
    """Its value scales with the code, and that of zeros is 0."""
    network = catalogue.load(None, small_weights, None, ["relu1_1"])
    loss = fmi.losses.activation("relu1_1", mx.nd.array([[0, 1, 0, 0]]), 0.5)
    truncated = network.truncated(["relu1_1"], "avg", mx.cpu())
    code = truncated(mx.nd.array(smooth_picture(8, 8).transpose(2, 0, 1)[None]))["relu1_1"]
    value = loss({"relu1_1": code}).asscalar()
    assert value == pytest.approx(-0.5 * float(code[0, 1].sum().asscalar()), rel=1e-5)
    assert loss({"relu1_1": 3 * code}).asscalar() == pytest.approx(3 * value, rel=1e-5)
    assert loss.terms[0].of_zeros().asnumpy().tolist() == [0]
    assert dataclasses.replace(loss.terms[0], squared=True).of_zeros().asscalar() == -0.5
