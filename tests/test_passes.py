"""The gradient as a second forward pass, against NumPy and against automatic differentiation."""

import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import oracle
import pytest
from conftest import smooth_picture

import fmi.invert
from fmi import losses
from fmi.device import environment
from fmi.device.mxnet import mx
from fmi.networks import passes, vgg, weights
from fmi.networks.topology import VGG19

LAYERS = [
    ["relu1_1"],
    ["relu1_2"],
    ["relu3_2"],
    ["relu5_2"],
    ["relu1_1", "relu2_2", "relu4_1"],
    ["relu2_2", "relu1_1"],
    ["pool2"],
    ["conv2_1"],
    ["relu2_1", "pool1", "conv3_1"],
]
SIZES = [(35, 50), (48, 33)]


def problem(arrays, layers, size, pictures=2, precision="float32", rounding="up"):
    """A network, pictures, and the loss towards the codes of other pictures."""
    network = vgg.truncated(VGG19, arrays, layers, "avg", rounding, mx.cpu(), precision)
    random = np.random.RandomState(0)
    wanted, image = random.normal(0, 50, (2, pictures, 3, *size)).astype(np.float32)
    codes = network(mx.nd.array(wanted))
    terms = [losses.code(n, c, 0.5 + i).terms[0] for i, (n, c) in enumerate(codes.items())]
    return network, image, losses.Loss(tuple(terms)), {n: c.asnumpy() for n, c in codes.items()}


def by_automatic_differentiation(network, image, loss):
    x = mx.nd.array(image)
    x.attach_grad()
    with mx.autograd.record():
        values = loss(network(x))
    values.backward()
    return values.asnumpy(), x.grad.asnumpy()


@pytest.mark.parametrize("rounding", ["up", "down"])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("layers", LAYERS, ids="+".join)
def test_gradient_agrees_with_numpy(arrays, layers, size, rounding):
    network, image, loss, wanted = problem(arrays, layers, size, rounding=rounding)
    values, gradient = (a.asnumpy() for a in network.gradient(mx.nd.array(image), loss))
    numpy_network = oracle.Network(arrays, VGG19.deepest(layers), rounding)
    for place, picture in enumerate(image):
        codes = numpy_network.codes(picture)
        weights = {name: 0.5 + index for index, name in enumerate(layers)}
        difference = {n: codes[n] - wanted[n][place] for n in layers}
        expected = sum(weights[n] * (d**2).sum() for n, d in difference.items())
        assert values[place] == pytest.approx(expected, rel=1e-4)
        heads = {n: 2 * weights[n] * d for n, d in difference.items()}
        expected = numpy_network.gradient(picture, lambda _, heads=heads: heads)
        error = np.linalg.norm(gradient[place] - expected) / np.linalg.norm(expected)
        assert error < 1e-3  # a relu at its edge may differ


@pytest.mark.parametrize("rounding", ["up", "down"])
@pytest.mark.parametrize("layers", LAYERS, ids="+".join)
def test_gradient_agrees_with_automatic_differentiation(arrays, layers, rounding):
    network, image, loss, _ = problem(arrays, layers, (35, 50), rounding=rounding)
    values, gradient = (a.asnumpy() for a in network.gradient(mx.nd.array(image), loss))
    expected_values, expected = by_automatic_differentiation(network, image, loss)
    np.testing.assert_allclose(values, expected_values, rtol=1e-6)
    assert np.linalg.norm(gradient - expected) < 1e-3 * np.linalg.norm(expected)


@pytest.mark.skipif("avx512bw" not in environment.cpu_flags(), reason="this CPU has no AVX-512")
def test_bfloat16_gives_nearly_the_same_gradient(arrays):
    network, image, loss, _ = problem(arrays, ["relu3_2"], (35, 50), precision="bfloat16")
    values, gradient = (a.asnumpy() for a in network.gradient(mx.nd.array(image), loss))
    network, image, loss, _ = problem(arrays, ["relu3_2"], (35, 50))
    expected_values, expected = (a.asnumpy() for a in network.gradient(mx.nd.array(image), loss))
    assert gradient.dtype == np.float32
    np.testing.assert_allclose(values, expected_values, rtol=0.01)
    angle = (gradient * expected).sum() / np.linalg.norm(gradient) / np.linalg.norm(expected)
    assert angle > 0.99


def test_one_picture_among_others_has_the_gradient_it_has_alone(arrays):
    network, image, loss, _ = problem(arrays, ["relu3_2"], (35, 50), pictures=3)
    _, together = network.gradient(mx.nd.array(image), loss)
    together = together.asnumpy()
    _, alone = network.gradient(mx.nd.array(image[1:2]), loss.take([1]))
    np.testing.assert_allclose(alone.asnumpy()[0], together[1], rtol=1e-4, atol=1e-3)


def test_the_gradient_of_fewer_layers_has_nothing_of_the_last_one(arrays):
    network, image, loss, _ = problem(arrays, ["relu1_1", "relu2_2"], (35, 50))
    first = losses.Loss(loss.terms[:1])
    expected = by_automatic_differentiation(network, image, first)[1]
    network.gradient(mx.nd.array(image), loss)
    gradient = network.gradient(mx.nd.array(image), first)[1].asnumpy()
    np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-3)


def test_the_network_stays_usable_after_its_memory_is_given_back(arrays):
    network, image, loss, _ = problem(arrays, ["relu2_2"], (35, 50))
    _, before = network.gradient(mx.nd.array(image), loss)
    before = before.asnumpy()
    network.free()
    _, after = network.gradient(mx.nd.array(image), loss)
    np.testing.assert_array_equal(after.asnumpy(), before)


def test_max_pooling_is_left_to_automatic_differentiation(arrays):
    network = vgg.truncated(VGG19, arrays, ["relu2_1"], "max", "up", mx.cpu())
    image = np.random.RandomState(0).normal(0, 50, (1, 3, 20, 24)).astype(np.float32)
    loss = losses.code("relu2_1", mx.nd.zeros((1, len(arrays["conv2_1_bias"]), 10, 12)), 1.0)
    _, gradient = network.gradient(mx.nd.array(image), loss)
    _, expected = by_automatic_differentiation(network, image, loss)
    np.testing.assert_allclose(gradient.asnumpy(), expected, rtol=1e-5)


def test_turned_kernels():
    weight = np.random.RandomState(0).normal(size=(4, 3, 3, 3)).astype(np.float32)
    expected = weight[:, :, ::-1, ::-1].transpose(1, 0, 2, 3)
    np.testing.assert_array_equal(passes.turned(mx.nd.array(weight)).asnumpy(), expected)
    both = {"a_weight": mx.nd.array(weight), "b_weight": mx.nd.array(weight)}
    found = passes.turned_weights(both, "a")
    assert found["a_weight"].shape == (passes.CHANNELS, 4, 3, 3)
    np.testing.assert_array_equal(found["a_weight"][:3].asnumpy(), expected)
    assert not found["a_weight"][3:].asnumpy().any()
    np.testing.assert_array_equal(found["b_weight"].asnumpy(), expected)


def test_nothing_is_written_to_the_standard_error(arrays, capfd):
    network, image, loss, _ = problem(arrays, ["relu2_1"], (20, 20))
    capfd.readouterr()
    network.gradient(mx.nd.array(image), loss)
    assert capfd.readouterr() == ("", "")


def in_threads(*functions):
    """What the functions return, called at the same time."""
    found, start = [None] * len(functions), threading.Barrier(len(functions))

    def run(place, function):
        start.wait()
        found[place] = function()

    threads = [threading.Thread(target=run, args=each) for each in enumerate(functions)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


@pytest.fixture
def slowly(monkeypatch):
    """Binding, and the time between both passes, are so long that threads come in between."""

    def slow(function):
        def wrapped(*arguments):
            time.sleep(0.02)
            found = function(*arguments)
            time.sleep(0.02)
            return found

        return wrapped

    monkeypatch.setattr(passes, "_bind", slow(passes._bind))
    monkeypatch.setattr(passes.Passes, "backward", slow(passes.Passes.backward))


@pytest.mark.parametrize("options", [{}, {"pool": "max"}], ids=["passes", "autograd"])
@pytest.mark.parametrize("shared", [False, True], ids=["two networks", "one network"])
def test_threads_invert_at_the_same_time_as_one_after_the_other(
    shared, options, small_weights, slowly, capfd
):
    sources = [smooth_picture(36, 48), smooth_picture(36, 48, seed=1)]
    options = {"long_edge": 48, "progress": False, "steps": 8, "stop": 0, **options}
    network = vgg.VGG(weights.read(small_weights))

    def inversion(source):
        own = network if shared else vgg.VGG(weights.read(small_weights))
        return lambda: fmi.invert.code(source, "relu3_2", network=own, **options)

    alone = [inversion(source)() for source in sources]
    environment = dict(os.environ)
    capfd.readouterr()
    together = in_threads(*(inversion(source) for source in sources * 2))
    for one, other in zip(together, alone * 2):
        np.testing.assert_array_equal(one.array, other.array)
        assert one.loss == other.loss
    assert dict(os.environ) == environment
    os.write(2, b"still here")
    assert capfd.readouterr() == ("", "still here")


def test_what_others_write_to_the_standard_error_is_not_lost(arrays, capfd, monkeypatch):
    network, image, loss, _ = problem(arrays, ["relu3_2"], (20, 20))
    bind = passes._bind

    def noisily(*arguments):
        os.write(2, b"before ")
        bound = bind(*arguments)
        os.write(2, b"after, a line without an end")
        return bound

    monkeypatch.setattr(passes, "_bind", noisily)
    capfd.readouterr()
    network.gradient(mx.nd.array(image), loss)
    assert capfd.readouterr().err.count("before after, a line without an end") == 2


def test_binding_that_fails_restores_environment_and_standard_error(arrays, capfd, monkeypatch):
    network, image, loss, _ = problem(arrays, ["relu3_2"], (20, 20))

    def fails(*_):
        os.write(2, b"said before it failed")
        raise ZeroDivisionError

    monkeypatch.setattr(passes, "_bind", fails)
    monkeypatch.setenv("MXNET_SUBGRAPH_BACKEND", "MKLDNN")
    capfd.readouterr()
    for _ in range(2):  # the lock is free again
        with pytest.raises(ZeroDivisionError):
            network.gradient(mx.nd.array(image), loss)
    assert os.environ["MXNET_SUBGRAPH_BACKEND"] == "MKLDNN"
    assert capfd.readouterr().err == "said before it failed" * 2


def test_a_closed_standard_error_is_no_obstacle(arrays):
    network, image, loss, _ = problem(arrays, ["relu3_2"], (20, 20))
    sys.stderr.flush()
    before = os.dup(2)
    os.close(2)
    try:
        losses_, _ = network.gradient(mx.nd.array(image), loss)
        closed = losses_.asnumpy()
    finally:
        os.dup2(before, 2)
        os.close(before)
    network.free()
    np.testing.assert_array_equal(network.gradient(mx.nd.array(image), loss)[0].asnumpy(), closed)


REORDERS = """
import numpy as np
from conftest import random_arrays
from fmi.device.mxnet import mx
from fmi.networks import vgg
from fmi.networks.topology import VGG19

network = vgg.truncated(VGG19, random_arrays((16,) * 5), ["relu3_2"], "avg", {rounding!r}, mx.cpu())
image = mx.nd.array(np.random.RandomState(0).normal(0, 50, (1, 3, 35, 52)))
passes = network.passes(image.shape)
for turn in range(2):
    print("turn", turn, flush=True)
    passes.forward(image)
    passes.backward().wait_to_read()
"""


def reorders(rounding):
    """What oneDNN reorders in a step: what it copies to another memory layout, or to the same."""
    command = [sys.executable, "-W", "ignore", "-c", REORDERS.format(rounding=rounding)]
    folder = str(Path(__file__).parent)
    environ = {
        **os.environ,
        "DNNL_VERBOSE": "1",
        "PYTHONPATH": os.pathsep.join([folder, *sys.path]),
    }
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=True)
    lines = done.stdout.partition("turn 1")[2].splitlines()
    if not any("convolution" in line for line in lines):
        pytest.skip("this MXNet does not tell what oneDNN does")
    return [line for line in lines if ",reorder," in line]


def test_odd_sizes_cost_no_change_of_the_memory_layout():
    assert len(reorders("up")) == len(reorders("down"))


def test_gradients_of_relu_are_not_copied():
    """Outside of the deepest layer, whose gradient comes in the standard layout."""
    layouts = [re.findall(r"(?:src|dst)_\w+::blocked:(\w+)", line) for line in reorders("down")]
    assert sum(source == target for source, target in layouts) <= 1
