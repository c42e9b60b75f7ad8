"""Networks that are not of the VGG family: Gluon blocks, symbols, exported pairs, zoo names."""

import functools
import inspect
import json
import logging
import os
import subprocess
import sys
import warnings

import numpy as np
import pytest
from conftest import smooth_picture

import fmi.invert
from fmi.call import replaced_layers
from fmi.device.mxnet import mx
from fmi.errors import InputError
from fmi.networks import base, catalogue, gluon, topology
from fmi.networks.base import Input
from fmi.settings import CODE

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from mxnet.gluon import nn
    from mxnet.gluon.model_zoo import vision

MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
ZOO = [
    "alexnet",
    "vgg11_bn",
    "resnet18_v1",
    "resnet18_v2",
    "squeezenet1.1",
    "mobilenetv2_1.0",
    "densenet121",
    "inceptionv3",
]
QUICK = {"long_edge": 96, "steps": 3, "progress": False}


def zoo_block(name, seed=0):
    """A random network with BatchNorm statistics that are not the initial ones."""
    mx.random.seed(seed)
    block = vision.get_model(name)
    block.initialize(mx.init.Xavier(magnitude=2))
    block(mx.nd.zeros((1, 3, 299, 299) if "inception" in name else (1, 3, 224, 224)))
    random = np.random.RandomState(seed)
    for key, parameter in block.collect_params().items():
        if key.endswith(("running_mean", "beta")):
            parameter.set_data(mx.nd.array(random.normal(0, 0.2, parameter.shape)))
        elif key.endswith(("running_var", "gamma")):
            parameter.set_data(mx.nd.array(random.uniform(0.6, 1.5, parameter.shape)))
    return block


def own_outputs(block, image, names):
    """Inner values of a block, computed by MXNet from a picture as the block itself takes it."""
    inner = block(mx.sym.var("data")).get_internals()
    outputs = mx.sym.Group([inner[f"{name}_output"] for name in names])
    parameters = {n: p for n, p in block.collect_params().items() if n in outputs.list_inputs()}
    net = mx.gluon.SymbolBlock(outputs, mx.sym.var("data"))
    for name, parameter in net.collect_params().items():
        parameter.shape = parameters[name].shape
        parameter.initialize(mx.init.Zero())
        parameter.set_data(parameters[name].data())
    found = net(mx.nd.array(image))
    return [array.asnumpy() for array in (found if isinstance(found, list) else [found])]


def early_middle_late(network):
    chosen = network.landmarks()
    return [chosen[0], chosen[len(chosen) // 2], chosen[-1]]


@pytest.mark.parametrize("name", ZOO)
def test_codes_are_the_nets_own_inner_outputs(name, tmp_path):
    block = zoo_block(name)
    network = catalogue.load(block)
    block.hybridize()
    block(mx.nd.zeros((1, 3, 299, 299) if "inception" in name else (1, 3, 224, 224)))
    block.export(str(tmp_path / "net"))
    pair = catalogue.load(tmp_path / "net-symbol.json")
    assert [layer.name for layer in pair.layers] == [layer.name for layer in network.layers]
    assert pair.describe()["sha256"] == network.describe()["sha256"]
    pixels = np.random.RandomState(1).uniform(0, 255, (1, 150, 171, 3))
    image = ((pixels / 255 - MEAN) / STD).transpose(0, 3, 1, 2)
    ours = mx.nd.array((pixels - 255 * MEAN).transpose(0, 3, 1, 2))
    layers = early_middle_late(network)
    prefix = block.name + "_"
    full = [
        next(
            o
            for o in block(mx.sym.var("data")).get_internals().list_outputs()
            if o
            in (
                f"{prefix}{n}_fwd_output",
                f"{prefix}{n}_output",
                f"{prefix}features_{n}_fwd_output",
                f"{prefix}features_{n}_output",
            )
        )
        for n in layers
    ]
    wanted = own_outputs(block, image, [output[: -len("_output")] for output in full])
    sizes = network.sizes(150, 171)
    for taken in (network, pair):
        found = taken.truncated(layers)(ours)
        for layer, expected in zip(layers, wanted):
            code = found[layer].asnumpy()
            assert code.shape == expected.shape and code.shape[2:] == sizes[layer]
            assert code.shape[1] == taken.layer(layer).channels
            assert np.abs(code - expected).max() <= 1e-5 * np.abs(expected).max()
            assert code.min() >= 0 or taken.layer(layer).negative


@pytest.mark.parametrize("name", ["alexnet", "resnet18_v2", "mobilenetv2_1.0", "inceptionv3"])
def test_the_gradient_agrees_with_finite_differences(name):
    network = catalogue.load(zoo_block(name))
    layer = network.landmarks()[1]
    truncated = network.truncated([layer])
    random = np.random.RandomState(0)
    image = random.normal(0, 40, (2, 3, 96, 99)).astype(np.float32)
    target = truncated(mx.nd.array(random.normal(0, 40, image.shape)))[layer]
    loss = fmi.losses.code(layer, target, 0.5)
    _, gradient = truncated.gradient(mx.nd.array(image), loss)
    gradient = gradient.asnumpy()
    for _ in range(3):
        way = random.normal(0, 1, image.shape).astype(np.float32)
        step = 0.02
        values = [
            loss(truncated(mx.nd.array(image + sign * step * way))).asnumpy().astype(float)
            for sign in (1, -1)
        ]
        slope = (values[0] - values[1]) / (2 * step)
        expected = (gradient * way).sum(axis=(1, 2, 3))
        size = np.linalg.norm(gradient.reshape(2, -1), axis=1)
        assert np.abs(slope - expected).max() < 0.1 * size.max()


def averages(size, kernel, stride, pad):
    """The matrix of an average pooling along one axis; padding counts, what is beyond does not."""
    found = np.zeros((1 + max(0, -(-(size + 2 * pad - kernel) // stride)), size))
    for row, start in zip(found, range(-pad, size + pad, stride)):
        row[max(0, start) : start + kernel] = 1 / (min(start + kernel, size + pad) - start)
    return found


@pytest.mark.parametrize("pads", [(0, 0), (1, 1), (0, 1), (1, 0)])
@pytest.mark.parametrize("kernels", [(2, 2), (3, 3), (2, 3), (3, 2)])
def test_average_pooling_with_sizes_rounded_up(kernels, pads):
    random = np.random.RandomState(0)
    for strides in ((1, 1), (2, 2), (3, 3), (1, 2), (2, 1), (3, 2)):
        if any(stride > kernel for stride, kernel in zip(strides, kernels)):
            continue
        block = nn.HybridSequential()
        block.add(nn.AvgPool2D(kernels, strides, pads, ceil_mode=True))
        how = Input("RGB", 255.0, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
        network = catalogue.load(block, input=how)
        (layer,) = (one.name for one in network.layers)
        truncated = network.truncated([layer])
        for height in range(5, 25):
            size = height, height + random.randint(4)
            rows, columns = map(averages, size, kernels, strides, pads)
            x = mx.nd.array(random.normal(size=(1, 3, *size)))
            x.attach_grad()
            with mx.autograd.record():
                code = truncated(x)[layer]
            assert np.abs(code.asnumpy() - rows @ x.asnumpy() @ columns.T).max() < 1e-5
            weights = random.normal(size=code.shape)
            code.backward(mx.nd.array(weights))
            assert np.abs(x.grad.asnumpy() - rows.T @ weights @ columns).max() < 1e-5
            assert network.sizes(*size)[layer] == code.shape[2:]


@pytest.mark.parametrize("function", ["code", "feature_map", "random", "purposeful", "gatys"])
def test_every_function_takes_any_network(function, caplog):
    block = zoo_block("resnet18_v1")
    pixels = smooth_picture(72, 96)
    arguments = {"code": ["relu0"], "feature_map": ["stage1_relu0:3"], "random": ["relu0"]}
    style = [] if function in arguments else [smooth_picture(60, 60, seed=1)]
    with caplog.at_level(logging.INFO):
        found = getattr(fmi.invert, function)(
            pixels, *arguments.get(function, style), network=block, **{**QUICK, "steps": 6}
        )
    for inversion in found if isinstance(found, list) else [found]:
        assert inversion.array.shape == (72, 96, 3) and np.isfinite(inversion.array).all()
        assert inversion.record["settings"]["preset"] == "fast"  # scale-free
        assert inversion.record["network"]["input"]["mean"] == list(MEAN)
        assert inversion.loss[-1] < inversion.loss[0]
    assert "settings 'fast'" in caplog.text
    if style:
        layers = inversion.record["layers"]
        assert layers == ["stage1_activation1", "relu0", *(f"stage{i}_relu0" for i in (1, 2, 3, 4))]


def test_a_loaded_network_is_not_built_again(monkeypatch):
    network = catalogue.load(zoo_block("alexnet"))
    built = []
    truncate = gluon.SymbolNetwork._truncate
    monkeypatch.setattr(
        gluon.SymbolNetwork, "_truncate", lambda s, *a: built.append(a) or truncate(s, *a)
    )
    one, two = (
        fmi.invert.code(smooth_picture(72, 96), "conv0_relu", network=network, **QUICK)
        for _ in range(2)
    )
    assert np.array_equal(one.array, two.array) and len(built) == 1
    with pytest.raises(InputError, match="weights= and input="):
        fmi.invert.code(smooth_picture(72, 96), "conv0_relu", network=network, input="caffe")


def test_how_a_picture_is_taken(caplog):
    catalogue._warn.cache_clear()
    block = nn.HybridSequential(prefix="own_")
    with block.name_scope():
        block.add(nn.Conv2D(4, 3, use_bias=False), nn.Activation("relu"))
    block.initialize(mx.init.Normal(1))
    pixels = np.random.RandomState(0).uniform(0, 255, (1, 3, 9, 9))

    def code(how):
        network = catalogue.load(block, input=how)
        mean = np.array(network.mean)[None, :, None, None]
        return network.truncated(["conv0"])(mx.nd.array(pixels - mean))["conv0"].asnumpy()

    def own(array):
        return block[0](mx.nd.array(array)).asnumpy()

    mean, std = (a[None, :, None, None] for a in (MEAN, STD))
    np.testing.assert_allclose(
        code("imagenet"), own((pixels / 255 - mean) / std), rtol=1e-4, atol=1e-4
    )
    colour = np.array([123.68, 116.779, 103.939])[None, :, None, None]
    np.testing.assert_allclose(code("caffe"), own(pixels - colour), rtol=1e-4, atol=1e-2)
    bgr = Input("BGR", 255, (1.0, 2.0, 3.0), (4.0, 5.0, 6.0))
    turned = (pixels - np.array([1, 2, 3])[None, :, None, None]) / np.array([4, 5, 6])[
        None, :, None, None
    ]
    np.testing.assert_allclose(code(bgr), own(turned[:, ::-1]), rtol=1e-4, atol=1e-3)
    assert caplog.text == ""
    catalogue.load(block)
    assert "own_: assuming ImageNet preprocessing" in caplog.text.replace("own:", "own_:")
    with pytest.raises(InputError, match="unknown input 'cafe'; did you mean caffe"):
        catalogue.load(block, input="cafe")
    for wrong in ({"channels": "GBR"}, {"std": (1, 0, 1)}, {"scale": -1}, {"mean": (1, 2)}):
        with pytest.raises(
            InputError, match="channels must be 'RGB' or 'BGR', scale must be positive"
        ):
            Input(**wrong)


def test_layers_by_the_end_of_their_names():
    network = catalogue.load(zoo_block("mobilenetv2_1.0"))
    assert network.layer("linearbottleneck3_conv1").kind == "convolution"
    with pytest.raises(
        InputError, match=r"'conv2' of .* is ambiguous: .*linearbottleneck0_conv2, .*\.\.\."
    ):
        network.layer("conv2")
    with pytest.raises(InputError, match=".* 'linearbottleneck99_conv0'; did you mean"):
        network.layer("linearbottleneck99_conv0")
    with pytest.raises(InputError, match="a layer must be given by its name, not 3"):
        network.layer(3)


def test_stride_field_and_sign():
    block = nn.HybridSequential(prefix="a_")
    with block.name_scope():
        block.add(
            nn.Conv2D(4, 5, strides=2, padding=2),
            nn.LeakyReLU(0.1),
            nn.MaxPool2D(2),
            nn.Conv2D(8, 3, dilation=2),
            nn.Activation("sigmoid"),
            nn.AvgPool2D(3, 1),
            nn.GlobalAvgPool2D(),
            nn.Conv2D(8, 1),
            nn.Activation("relu"),
            nn.Dense(3),
        )
    block.initialize()
    layers = catalogue.load(block).layers
    table = [(n.name, n.kind, n.stride, n.receptive_field, n.negative) for n in layers]
    assert table == [
        ("conv0", "convolution", 2, 5, True),
        ("leakyrelu0", "activation", 2, 5, True),
        ("pool0", "pooling", 4, 7, True),
        ("conv1", "convolution", 4, 23, True),
        ("sigmoid0", "activation", 4, 23, False),
        ("pool1", "pooling", 4, 31, False),
    ]  # what comes after the global pooling has no positions


def test_sums_with_negative_parameters_can_be_negative():
    relu = mx.sym.relu(
        mx.sym.Convolution(mx.sym.var("data"), kernel=(3, 3), num_filter=2, name="c")
    )
    bias = mx.sym.var("own_bias", shape=(1, 2, 1, 1))
    symbol = mx.sym.broadcast_add(relu, bias, name="shifted")
    arrays = {"c_weight": np.ones((2, 3, 3, 3)), "c_bias": np.ones(2)}
    network = catalogue.load(
        (symbol, {**arrays, "own_bias": -np.ones((1, 2, 1, 1))}), input="caffe"
    )
    assert [layer.negative for layer in network.layers] == [True, False, True]


def test_swish_is_the_product_and_batch_norm_with_relu_is_a_layer():
    block = nn.HybridSequential(prefix="a_")
    with block.name_scope():
        block.add(nn.Conv2D(4, 3), nn.Swish(), nn.Conv2D(4, 3), nn.Swish(beta=2))
        block.add(nn.Conv2D(4, 3), nn.BatchNormReLU())
    block.initialize(mx.init.Normal(0.5))
    image = mx.nd.random.normal(0, 1, (2, 3, 12, 12))
    wanted, code = {}, image
    for name, layer in zip(("", "swish0", "", "swish1", "", "batchnormrelu0"), block):
        code = layer(code)
        if name:
            wanted[name] = code.asnumpy()
    network = catalogue.load(block, input=Input("RGB", 255.0))
    layers = [layer for layer in network.layers if layer.kind == "activation"]
    assert [(layer.name.split("_")[0], layer.negative) for layer in layers] == [
        ("swish0", True),
        ("swish1", True),
        ("batchnormrelu0", False),
    ]
    found = network.truncated([layer.name for layer in layers])(image)
    for layer in layers:
        expected = wanted[layer.name.split("_")[0]]
        np.testing.assert_allclose(found[layer.name].asnumpy(), expected, atol=1e-5)


def test_the_receptive_field_is_what_changes_a_position():
    network = catalogue.load(zoo_block("resnet18_v1"))
    for name in ("relu0", "stage1_activation0", "stage2_relu0"):
        layer = network.layer(name)
        truncated = network.truncated([name])
        base_ = np.random.RandomState(0).normal(0, 40, (1, 3, 200, 200)).astype(np.float32)
        x = mx.nd.array(base_)
        x.attach_grad()
        with mx.autograd.record():
            code = truncated(x)[name]
            middle = code.shape[2] // 2
            one = code[:, :, middle, middle].sum()
        one.backward()
        rows = np.flatnonzero(np.abs(x.grad.asnumpy()).sum(axis=(0, 1, 3)))
        assert 0.6 * layer.receptive_field < rows.max() - rows.min() + 1 <= layer.receptive_field
        assert round(200 / code.shape[2]) == layer.stride


def test_stride_and_receptive_field_are_those_of_the_wider_axis():
    for turn in (lambda pair: pair, lambda pair: pair[::-1]):
        block = nn.HybridSequential(prefix="a_")
        with block.name_scope():
            block.add(
                nn.Conv2D(4, turn((1, 7)), padding=turn((0, 3))),
                nn.AvgPool2D(turn((1, 2)), turn((1, 2))),
                nn.Conv2D(4, turn((3, 2)), dilation=turn((2, 3))),
            )
        block.initialize(mx.init.Constant(0.1))
        network = catalogue.load(block, input="caffe")
        for layer, stride in zip(network.layers, (1, 2, 2)):
            x = mx.nd.ones((1, 3, 60, 60))
            x.attach_grad()
            with mx.autograd.record():
                one = network.truncated([layer.name])(x)[layer.name][:, :, 12, 12].sum()
            one.backward()
            touched = (x.grad.asnumpy() != 0).any(axis=(0, 1))
            assert layer.receptive_field == max(
                np.ptp(np.flatnonzero(touched.any(axis))) + 1 for axis in (0, 1)
            )
            assert layer.stride == stride


def test_the_receptive_fields_of_inception_are_what_its_layers_reach():
    network = catalogue.load(zoo_block("inceptionv3"))
    for layer in network.layers:
        both = network.reach(layer.name)
        assert layer.receptive_field == max(r.before + r.after + 1 for r in both), layer.name


def test_smallest_sides_and_memory():
    network = catalogue.load(zoo_block("inceptionv3"))
    last = network.layers[-1].name
    side = network.smallest_side(last)
    assert last in network.sizes(side, side) and last not in network.sizes(side - 1, side - 1)
    with pytest.raises(InputError, match=f"too small for {last}: .*{side} pixels"):
        fmi.invert.code(smooth_picture(60, 60), last, network=network, long_edge=side - 1)
    small, large = (network.picture_bytes([last], s, s) for s in (150, 300))
    assert 3 < large / small < 6


def test_blocks_that_cannot_be_used():
    never = vision.resnet18_v1()
    with pytest.raises(InputError, match=r"not been initialised: .*initialize\(\)"):
        catalogue.load(never)

    class Two(nn.HybridBlock):
        def hybrid_forward(self, F, x, y):
            return x + y

    with pytest.raises(InputError, match="cannot be applied to a single picture"):
        catalogue.load(Two())
    dense = nn.HybridSequential()
    dense.add(nn.Dense(3, in_units=3))
    dense.initialize()
    with pytest.raises(InputError, match="has no layer with feature maps"):
        catalogue.load(dense)

    class Plain(mx.gluon.Block):
        pass

    with pytest.raises(InputError, match="HybridBlock"):
        catalogue.load(Plain())
    with pytest.raises(InputError, match="must be a name, a path, a HybridBlock"):
        catalogue.load(3)
    with pytest.raises(InputError, match="unknown network 'resnet18'; did you mean resnet18_v"):
        catalogue.load("resnet18")


def test_a_network_of_grey_pictures_is_refused():
    block = nn.HybridSequential()
    block.add(nn.Conv2D(4, 3, in_channels=1))
    block.initialize()
    with pytest.raises(InputError) as error:
        catalogue.load(block)
    assert len(str(error.value).splitlines()) == 1


def test_a_network_with_channels_last_is_refused():
    last = mx.sym.transpose(mx.sym.var("data"), axes=(0, 2, 3, 1))
    symbol = mx.sym.Convolution(last, kernel=(3, 3), num_filter=4, layout="NHWC", name="conv0")
    arrays = {"conv0_weight": np.ones((4, 3, 3, 3)), "conv0_bias": np.ones(4)}
    with pytest.raises(InputError, match="conv0 of the symbol has the layout NHWC"):
        catalogue.load((symbol, arrays), input="caffe")


def test_layers_whose_names_have_colons_and_commas_can_be_named():
    node = mx.sym.Convolution(mx.sym.var("data"), kernel=(3, 3), num_filter=4, name="conv:0")
    symbol = mx.sym.relu(mx.sym.relu(node, name="relu:0"), name="relu, 0")
    arrays = {"conv:0_weight": np.ones((4, 3, 3, 3)), "conv:0_bias": np.ones(4)}
    network = catalogue.load((symbol, arrays), input="caffe")
    assert [layer.name for layer in network.layers] == ["conv_0", "relu_0", "relu__0"]
    (found,) = fmi.invert.feature_map(
        smooth_picture(20, 20), "relu_0:3", network=network, **{**QUICK, "long_edge": 20}
    )
    assert found.title == "relu_0:3"


class Branches(mx.gluon.HybridBlock):
    def __init__(self, arrange):
        super().__init__()
        with self.name_scope():
            self.body, self.one = nn.Conv2D(4, 3, in_channels=3), nn.Conv2D(2, 3, in_channels=4)
            self.two = nn.Conv2D(2, 3, in_channels=4)
        self.arrange = arrange

    def hybrid_forward(self, _, x):
        x = self.body(x)
        return self.arrange(x, self.one(x), self.two(x))


def test_outputs_within_lists_are_found_and_others_refused():
    block = Branches(lambda a, b, c: [a, (b, [c])])
    block.initialize()
    names = [layer.name for layer in catalogue.load(block, input="caffe").layers]
    assert names == ["conv0", "conv1", "conv2"]
    block = Branches(lambda a, b, _: {"a": a, "b": b})
    block.initialize()
    with pytest.raises(InputError, match="an output is of type dict"):
        catalogue.load(block, input="caffe")


def test_a_half_precision_block_says_nothing(capfd):
    block = nn.HybridSequential()
    with block.name_scope():
        block.add(nn.Conv2D(4, 3, in_channels=3), nn.Activation("relu"))
    block.initialize(mx.init.Normal(0.5))
    block.cast("float16")
    image = mx.nd.random.normal(0, 1, (1, 3, 8, 8))
    code = catalogue.load(block, input=Input("RGB", 255.0)).truncated(["relu0"])(image)["relu0"]
    assert "infer_type" not in "".join(capfd.readouterr())
    block.cast("float32")
    np.testing.assert_allclose(code.asnumpy(), block(image).asnumpy(), atol=1e-5)


def test_a_block_is_left_as_it_is():
    block = vision.alexnet()
    block.initialize()  # never called: the dense layers' shapes are unknown
    catalogue.load(block).truncated(["conv0"])
    assert block(mx.nd.zeros((1, 3, 224, 224))).shape == (1, 1000)
    assert {p.grad_req for p in block.collect_params().values()} == {"write"}


def test_dropout_and_batch_norm_are_in_inference_mode():
    block = nn.HybridSequential(prefix="d_")
    with block.name_scope():
        block.add(nn.Conv2D(4, 3), nn.BatchNorm(), nn.Activation("relu"), nn.Dropout(0.5))
        block.add(nn.Conv2D(4, 3), nn.Activation("relu"))
    block.initialize(mx.init.Normal(0.5))
    network = catalogue.load(block)
    truncated = network.truncated(["relu1"])
    image = mx.nd.array(np.random.RandomState(0).normal(0, 40, (2, 3, 12, 12)))
    loss = fmi.losses.code("relu1", mx.nd.zeros((2, 4, 8, 8)), 1.0)
    one = [a.asnumpy() for a in truncated.gradient(image, loss)]
    two = [a.asnumpy() for a in truncated.gradient(image, loss)]
    np.testing.assert_array_equal(one[1], two[1])
    np.testing.assert_allclose(one[0], loss(truncated(image)).asnumpy(), rtol=1e-5)
    alone = truncated.gradient(image[1:], loss.take([1]))[1].asnumpy()
    np.testing.assert_allclose(alone[0], one[1][1], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("operator", "options"),
    [
        ("BatchNorm_v1", {}),
        ("contrib.BatchNormWithReLU", {}),
        ("contrib.SyncBatchNorm", {"key": "a", "ndev": 1}),
        ("LeakyReLU", {"act_type": "rrelu", "lower_bound": 0.1, "upper_bound": 0.7}),
    ],
)
def test_operators_that_differ_in_training_mode_are_in_inference_mode(operator, options):
    node = mx.sym.Convolution(mx.sym.var("data"), kernel=(3, 3), num_filter=4, name="conv0")
    node = functools.reduce(getattr, operator.split("."), mx.sym)(node, name="own", **options)[0]
    symbol = mx.sym.Convolution(node, kernel=(3, 3), num_filter=4, name="conv1")
    random = np.random.RandomState(0)
    shapes, _, states = symbol.infer_shape(data=(1, 3, 9, 9))
    names = [*symbol.list_arguments(), *symbol.list_auxiliary_states()]
    arrays = {n: random.uniform(0.1, 1, shape) for n, shape in zip(names, [*shapes, *states])}
    del arrays["data"]
    truncated = catalogue.load((symbol, arrays), input=Input()).truncated(["conv1"])
    image = random.normal(0, 4000, (2, 3, 9, 9)).astype(np.float32)
    bound = symbol.bind(
        mx.cpu(),
        {n: mx.nd.array({**arrays, "data": image / 255}[n]) for n in symbol.list_arguments()},
        aux_states={n: mx.nd.array(arrays[n]) for n in symbol.list_auxiliary_states()},
    )
    code = bound.forward(is_train=False)[0].asnumpy()
    loss = fmi.losses.code("conv1", mx.nd.zeros(code.shape), 1.0)
    losses, gradient = truncated.gradient(mx.nd.array(image), loss)
    np.testing.assert_allclose(losses.asnumpy(), (code**2).sum(axis=(1, 2, 3)), rtol=1e-4)
    way = random.normal(0, 1, image.shape).astype(np.float32)
    ends = [truncated.losses(mx.nd.array(image + s * way), loss).asnumpy() for s in (0.5, -0.5)]
    change = (gradient.asnumpy() * way).sum(axis=(1, 2, 3))
    np.testing.assert_allclose(ends[0] - ends[1], change, rtol=0.02)


@pytest.mark.parametrize("option", [{"pool": "max"}, {"pool_rounding": "down"}])
def test_the_pooling_of_other_networks_cannot_be_chosen(option):
    picture = np.zeros((64, 64, 3), np.uint8)
    with pytest.raises(InputError) as error:
        fmi.invert.code(picture, "relu0", network=zoo_block("alexnet"), **option)
    (name, value) = next(iter(option.items()))
    assert name in str(error.value) and value in str(error.value)


def saved(tmp_path, name="resnet18_v1"):
    block = zoo_block(name)
    block.hybridize()
    block(mx.nd.zeros((1, 3, 224, 224)))
    block.export(str(tmp_path / "net"), epoch=0)
    block.save_parameters(str(tmp_path / f"{name}.params"))
    return block


def test_files_in_every_form(tmp_path, monkeypatch):
    block = saved(tmp_path)
    wanted = catalogue.load(block).describe()["sha256"]
    net = str(tmp_path / "net")
    for given in (net, f"{net}-symbol.json", f"{net}-0000.params"):
        assert catalogue.load(given).describe()["sha256"] == wanted
    assert catalogue.load(net) is catalogue.load(net)  # built once
    symbol, arguments, states = mx.model.load_checkpoint(net, 0)
    for given in ((symbol, arguments, states), (symbol, {**arguments, **states})):
        assert catalogue.load(given).describe()["sha256"] == wanted
    assert catalogue.load(symbol, f"{net}-0000.params").describe()["sha256"] == wanted
    (tmp_path / "damaged.params").write_bytes(b"x" * 40)
    with pytest.raises(InputError, match="damaged.params: "):
        catalogue.load(symbol, tmp_path / "damaged.params")
    file = tmp_path / "resnet18_v1.params"
    assert catalogue.load("resnet18_v1", file).describe()["sha256"] == wanted
    assert catalogue.load("resnet18_v1", f"{net}-0000.params").describe()["sha256"] == wanted
    monkeypatch.setenv("FMI_MODELS", str(tmp_path))
    assert catalogue.load("resnet18_v1").describe()["sha256"] == wanted
    with pytest.raises(InputError, match="resnet34_v1: stage1_conv4_weight is missing"):
        catalogue.load("resnet34_v1", file)
    with pytest.raises(
        InputError, match=r"parameters of resnet50_v1 .*weights=.*resnet50_v1\.params"
    ):
        catalogue.load("resnet50_v1")
    with pytest.raises(InputError, match="omit weights="):
        catalogue.load(net, "vgg19")


def test_the_last_epoch_is_the_one_with_the_largest_number(tmp_path):
    graph = tmp_path / "n-symbol.json"
    graph.touch()
    for number in (0, 9999, 10000):
        (tmp_path / f"n-{number:04d}.params").touch()
    for given in (tmp_path / "n", graph):
        assert gluon.exported_pair(given) == (graph, tmp_path / "n-10000.params")
    one = tmp_path / "n-9999.params"
    assert gluon.exported_pair(one) == (graph, one)


def test_the_digest_tells_networks_apart(tmp_path):
    one, two = (catalogue.load(zoo_block("alexnet", seed)).describe()["sha256"] for seed in (0, 1))
    assert one != two
    assert one == catalogue.load(zoo_block("alexnet", 0)).describe()["sha256"]


def change(path, function):
    graph = json.loads(path.read_text())
    path.write_text(json.dumps(function(graph) or graph))


def custom(graph):
    graph["nodes"][-1]["op"] = "Custom"


def native(graph):
    graph["nodes"][-1]["op"] = "_Native"


def forward_edge(graph):
    graph["nodes"][3]["inputs"] = [[len(graph["nodes"]) - 1, 0, 0]]


def no_such_op(graph):
    graph["nodes"][-1]["op"] = "NoSuchOperator"


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda g: change(g, custom), "the operator Custom"),
        (lambda g: change(g, native), "the operator _Native"),
        (
            lambda g: change(g, forward_edge),
            "symbol.json is not a valid symbol file: a node comes before",
        ),
        (lambda g: change(g, no_such_op), "symbol.json is not a valid symbol file"),
        (lambda g: g.write_text("{"), "symbol.json is not a valid symbol file"),
        (lambda g: g.write_text("[]"), "symbol.json is not a valid symbol file"),
        (lambda g: g.write_bytes(b"\xff\xfe"), "symbol.json is not a valid symbol file"),
        (
            lambda g: g.with_name("net-0000.params").write_bytes(b"x" * 40),
            "params: unknown file format",
        ),
        (lambda g: g.with_name("net-0000.params").unlink(), "parameters .*-0000.params do not"),
    ],
)
def test_damaged_pairs(tmp_path, harm, message):
    saved(tmp_path, "alexnet")
    harm(tmp_path / "net-symbol.json")
    with pytest.raises(InputError, match=message) as error:
        catalogue.load(tmp_path / "net")
    assert len(str(error.value).splitlines()) == 1


def test_mutated_pairs_end_in_one_line(tmp_path):
    """300 changes of single bytes: read as a network, or refused; the process lives."""
    saved(tmp_path, "squeezenet1.1")
    code = inspect.cleandoc(
        """
        import sys, warnings, pathlib
        warnings.simplefilter("ignore")
        import numpy as np
        from fmi.networks import catalogue
        from fmi.errors import InputError
        graph = pathlib.Path(sys.argv[1])
        whole, random, refused = graph.read_bytes(), np.random.RandomState(0), 0
        for _ in range(300):
            data = bytearray(whole)
            for place in random.randint(0, len(data), random.randint(1, 6)):
                data[place] = random.randint(32, 127)
            graph.write_bytes(bytes(data))
            try:
                catalogue.load(graph)
            except InputError as error:
                assert "\\n" not in str(error)
                refused += 1
        print(refused)
        """
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "net-symbol.json")],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "FMI_CTX": "cpu"},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert 50 < int(done.stdout.split()[-1]) < 300


def test_vgg_names_take_the_familys_own_reader(tmp_path, small_weights):
    assert catalogue.load("vgg19", small_weights).name == "VGG-19"
    with pytest.raises(InputError, match="VGG-19, not vgg16"):
        catalogue.load("vgg16", small_weights)
    block = zoo_block("vgg11_bn")
    block.save_parameters(str(tmp_path / "v.params"))
    network = catalogue.load("vgg11_bn", tmp_path / "v.params")
    assert network.name == "VGG-11" and network.settings == "fast"
    pixels = np.random.RandomState(1).uniform(0, 255, (1, 64, 64, 3))
    ours = mx.nd.array((pixels - 255 * MEAN).transpose(0, 3, 1, 2))
    code = network.truncated(["relu3_1"], pool="max")(ours)["relu3_1"].asnumpy()
    image = ((pixels / 255 - MEAN) / STD).transpose(0, 3, 1, 2)
    (expected,) = own_outputs(block, image, [f"{block.name}_relu2_fwd"])
    assert np.abs(code - expected).max() < 1e-4 * np.abs(expected).max()
    with pytest.raises(InputError, match="input= cannot be used with the VGG family"):
        catalogue.load("vgg19", small_weights, input="caffe")


def test_filters_named_with_a_layer():
    assert base.split_filters("relu3_2") == ("relu3_2", ())
    assert base.split_filters("relu3_2:17") == ("relu3_2", (17,))
    assert base.split_filters("a_b:4,17") == ("a_b", (4, 17))


@pytest.mark.parametrize("name", ["densenet201", "resnet152_v2"])
def test_deep_networks(name):
    """As many operators in a row as Python would not recurse through."""
    network = catalogue.outline(name)
    assert len(network.layers) > 200 and network.layers[-1].stride == 32
    side = network.smallest_side(network.layers[-1].name)
    assert network.layers[-1].name in network.sizes(side, side)


def test_a_setting_of_none_is_the_presets():
    network = catalogue.load(zoo_block("alexnet"))
    found = fmi.invert.code(
        smooth_picture(72, 96), "conv0_relu", network=network, **QUICK, clip=None
    )
    assert found.record["settings"]["clip"] == 10


def test_only_a_presets_layers_are_replaced():
    """Layers that the user names are refused where the network does not have them."""
    network = catalogue.load(zoo_block("resnet18_v1"))
    two = smooth_picture(72, 96), smooth_picture(60, 60, seed=1)
    found = fmi.invert.gatys(*two, network=network, content_layer="stage2_relu0", **QUICK)
    assert found.record["layers"][:2] == ["stage2_relu0", "relu0"]
    with pytest.raises(InputError, match="'relu9'"):
        fmi.invert.gatys(*two, network=network, style_layers=("relu9",), **QUICK)
    eleven = fmi.networks.vgg.outline(topology.VGG11)  # it has no relu2_2
    settings = replaced_layers(CODE, "purposeful", eleven, ())
    assert settings.purposeful.content_layer == "relu2_1"
    assert settings.purposeful.style_layers == CODE.purposeful.style_layers


def test_a_block_that_is_used_again_has_a_layer_for_each_use():
    class Shared(mx.gluon.HybridBlock):
        def __init__(self):
            super().__init__()
            with self.name_scope():
                for name in "abc":
                    setattr(self, name, mx.gluon.nn.Conv2D(4, 3, padding=int(name != "c")))
                self.relu = mx.gluon.nn.Activation("relu")
                self.pool = mx.gluon.nn.MaxPool2D(2)

        def hybrid_forward(self, F, x):
            for convolution in (self.a, self.b, self.c):
                x = self.pool(self.relu(convolution(x)))
            return x

    block = Shared()
    block.initialize(mx.init.Xavier())
    picture = mx.nd.random.uniform(-1, 1, (1, 3, 32, 32))
    wanted, x = {}, picture
    for number, convolution in enumerate((block.a, block.b, block.c), 1):
        x = mx.nd.relu(convolution(x))
        wanted["relu0" if number == 1 else f"relu0_{number}"] = x
        x = mx.nd.Pooling(x, kernel=(2, 2), stride=(2, 2), pool_type="max")
    network = catalogue.load(block, input=Input("RGB", 255.0))
    names = [layer.name for layer in network.layers]
    assert [name for name in names if "relu" in name] == list(wanted)
    assert len(set(names)) == len(names) == 9
    found = network.truncated(list(wanted))(picture)
    for name, code in wanted.items():
        assert np.allclose(found[name].asnumpy(), code.asnumpy(), atol=1e-5), name
    fields = [network.layer(name).receptive_field for name in wanted]
    assert fields == [3, 3 + 1 + 2 * 2, 3 + 1 + 2 * 2 + 2 + 2 * 4]
