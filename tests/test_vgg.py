"""VGG-19: names, truncation, codes against NumPy, frozen parameters, missing layers."""

import os
import subprocess
import sys

import numpy as np
import oracle
import pytest
from conftest import random_arrays

from fmi.device import environment as _environment
from fmi.device import mxnet as _mxnet
from fmi.device.mxnet import mx
from fmi.errors import InputError
from fmi.networks import base, catalogue, topology, vgg
from fmi.networks.topology import VGG19


def test_layers_are_those_of_the_paper():
    assert len(VGG19.convolutions) == 16
    filters = {name: topology.FILTERS[int(name[4]) - 1] for name in VGG19.convolutions}
    assert sum(filters.values()) == 5504  # paper, section 3.1
    assert VGG19.layers[:5] == ("conv1_1", "relu1_1", "conv1_2", "relu1_2", "pool1")
    assert VGG19.layers[-1] == "relu5_4"
    assert VGG19.smallest_side("relu1_2") == 1
    assert VGG19.smallest_side("relu5_1") == 16


@pytest.mark.parametrize("rounding", ["up", "down"])
@pytest.mark.parametrize("size", [(32, 32), (37, 50)])
def test_all_codes_in_one_pass_agree_with_numpy(arrays, size, rounding):
    layers = ["relu5_4", "relu1_1", "pool2", "conv3_2", "relu4_1"]
    image = np.random.RandomState(0).uniform(-120, 130, (3, *size)).astype(np.float32)
    network = vgg.truncated(VGG19, arrays, layers, "avg", rounding, mx.cpu())
    found = network(mx.nd.array(image[None]))
    wanted = oracle.Network(arrays, "relu5_4", rounding).codes(image)
    assert list(found) == layers
    for name in layers:
        np.testing.assert_allclose(found[name].asnumpy()[0], wanted[name], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("rounding, rows", [("up", 5), ("down", 4)])
def test_max_pooling_takes_the_largest(arrays, rounding, rows):
    image = np.random.RandomState(0).uniform(-120, 130, (1, 3, 9, 8)).astype(np.float32)
    network = vgg.truncated(VGG19, arrays, ["relu1_2", "pool1"], "max", rounding, mx.cpu())
    before, after = (code.asnumpy()[0] for code in network(mx.nd.array(image)).values())
    assert after.shape[1:] == (rows, 4)
    for row in range(rows):
        window = before[:, 2 * row : 2 * row + 2, 4:6]
        np.testing.assert_array_equal(after[:, row, 2], window.max(axis=(1, 2)))


def test_network_ends_at_the_deepest_layer_and_is_frozen(arrays):
    network = vgg.truncated(VGG19, arrays, ["relu1_1", "relu2_1"], "avg", "up", mx.cpu())
    parameters = network.block.collect_params()
    assert set(parameters) == {
        f"{name}_{kind}"
        for name in ("conv1_1", "conv1_2", "conv2_1")
        for kind in ("weight", "bias")
    }
    assert {p.grad_req for p in parameters.values()} == {"null"}


def test_missing_convolution_is_named(arrays, tmp_path):
    some = {k: v for k, v in arrays.items() if not k.startswith(("conv3_3", "conv4"))}
    np.savez(tmp_path / "some.npz", **some)
    network = catalogue.load(weights=tmp_path / "some.npz")
    network.truncated(["relu3_2"])
    with pytest.raises(InputError, match=r"some\.npz lacks conv3_3, which relu4_2 needs"):
        network.truncated(["relu4_2"])


def test_unknown_layer_names_the_nearest(small_weights):
    network = catalogue.load(weights=small_weights)
    with pytest.raises(InputError, match=r"VGG-19 'relu32'; did you mean .*relu3_2"):
        network.layer("relu32")
    with pytest.raises(InputError, match="VGG-19 'relu5_5'; did you mean relu5_"):
        network.layer("relu5_5")


def test_all_five_layers_of_the_full_width():
    arrays = random_arrays(filters=topology.FILTERS, seed=0)
    layers = ["relu1_2", "relu2_2", "relu3_2", "relu4_2", "relu5_2"]
    image = np.random.RandomState(0).uniform(-120, 130, (1, 3, 33, 40)).astype(np.float32)
    found = vgg.truncated(VGG19, arrays, layers, "avg", "up", mx.cpu())(mx.nd.array(image))
    shapes = [found[name].shape[1:] for name in layers]
    assert shapes == [(64, 33, 40), (128, 17, 20), (256, 9, 10), (512, 5, 5), (512, 3, 3)]
    wanted = oracle.Network(arrays, "relu5_2").codes(image[0])
    for name in layers:
        np.testing.assert_allclose(
            found[name].asnumpy()[0], wanted[name], rtol=1e-3, atol=1e-4 * wanted[name].max()
        )


def test_bfloat16_gives_nearly_the_same_codes_in_float32(arrays):
    if "avx512bw" not in _environment.cpu_flags():
        pytest.skip("this CPU has no AVX-512")
    image = mx.nd.random.uniform(-120, 130, (1, 3, 33, 40))
    exact = vgg.truncated(VGG19, arrays, ["relu1_1", "relu3_2"], "avg", "up", mx.cpu())(image)
    close = vgg.truncated(VGG19, arrays, ["relu1_1", "relu3_2"], "avg", "up", mx.cpu(), "bfloat16")(
        image
    )
    for name, values in exact.items():
        assert close[name].dtype == np.float32
        difference = (close[name] - values).norm() / values.norm()
        assert 0 < difference.asscalar() < 0.02


def test_amx_leaves_nothing_behind_for_processes_started_from_here():
    assert "DNNL_MAX_CPU_ISA" not in os.environ
    code = "from fmi.device import mxnet; print(mxnet.AMX)"
    run = [sys.executable, "-c", code]
    for value, wanted in [("0", "False"), ("1", str(_mxnet.AMX))]:
        environment = {**os.environ, "FMI_AMX": value, "PYTHONWARNINGS": "ignore"}
        out = subprocess.run(run, env=environment, capture_output=True, text=True, check=True)
        assert out.stdout.strip() == wanted


def test_loss_scaling_halves_until_float16_holds_the_gradient():
    scales = []

    def differentiate(scale):
        scales.append(scale)
        gradient = mx.nd.array([3e5, -2.0]) * scale
        return mx.nd.array([7.0]) * scale, gradient.astype("float16").astype("float32")

    losses, gradient, scale = base.loss_scaling(differentiate, 1.0)
    assert scales == [1.0, 0.5, 0.25, 0.125]
    assert scale == 0.125
    np.testing.assert_allclose(gradient.asnumpy(), [3e5, -2.0], rtol=1e-3)
    assert losses.asscalar() == 7


def test_loss_scaling_ends_where_the_loss_itself_is_not_finite():
    broken = mx.nd.array([np.nan])
    _, gradient, _ = base.loss_scaling(lambda scale: (broken, broken), 1.0)
    assert np.isnan(gradient.asscalar())
