"""Tiles: the same codes, losses and gradients as from the whole picture."""

import dataclasses
import re
import subprocess
import sys

import numpy as np
import pytest
from conftest import smooth_picture
from hypothesis import given, settings
from hypothesis import strategies as st

import fmi.call
import fmi.invert
from fmi import codes, losses, memory, request
from fmi.device import environment
from fmi.device.mxnet import mx
from fmi.errors import InputError
from fmi.networks import catalogue, tiles, vgg
from fmi.networks.reach import Reach
from fmi.networks.tiles import Tiled
from fmi.networks.topology import VGG19
from fmi.runs import experiment, store

nn = mx.gluon.nn

LAYERS = [
    ["relu1_1"],
    ["pool1"],
    ["relu3_2"],
    ["conv4_1"],
    ["relu1_1", "relu2_2", "relu4_1"],
    ["relu3_1", "pool1", "conv2_2"],
]


@pytest.fixture(scope="module")
def network():
    return catalogue.load(None, "embedded", None, ["relu1_1"])


def reaches_of(network, layers):
    return {name: network.reach(name) for name in layers}


def problem(whole, size, pictures=2, seed=0):
    """Pictures, and a loss with terms of every kind towards the codes of others."""
    random = np.random.RandomState(seed)
    image, other = (
        mx.nd.array(random.normal(0, 50, (pictures, 3, *size)).astype(np.float32)) for _ in "12"
    )
    wanted = whole(other)
    loss = losses.all_codes(wanted, 0.5)
    for name, code in list(wanted.items())[:2]:
        scale = 1 / code[0, 0].size
        loss = loss + losses.energy(name, codes.energy(code), scale)
        loss = loss + losses.gram(name, codes.gram(code), 1e-4 * scale)
        mask = mx.nd.array(random.rand(1, 1, *code.shape[2:]))
        for term in losses.gram(name, codes.gram(code * mask), 1e-4 * scale).terms:
            loss = loss + losses.Loss((dataclasses.replace(term, mask=mask),))
    return image, loss


def error(found, wanted):
    found, wanted = (a if isinstance(a, np.ndarray) else a.asnumpy() for a in (found, wanted))
    return np.linalg.norm(found - wanted) / np.linalg.norm(wanted)


def gradient(network, image, loss):
    """Losses and gradients, which are read before the network computes anything else."""
    return [array.asnumpy() for array in network.gradient(image, loss)]


def compare(whole, tiled, image, loss):
    """The relative errors of the codes, the losses and the gradients of the tiled network."""
    wanted, found = whole(image), tiled(image)
    worst = max(error(found[name], code) for name, code in wanted.items())
    pairs = zip(gradient(tiled, image, loss), gradient(whole, image, loss))
    return (worst, *(error(*pair) for pair in pairs))


# --- plans ---

strides = st.lists(st.sampled_from([1, 2, 3]), min_size=1, max_size=4)


@settings(deadline=None, max_examples=300)
@given(strides, st.data())
def test_sections_divide_all_positions_and_contain_what_these_depend_on(steps, data):
    reaches, reach = {}, Reach()
    for index, step in enumerate(steps):
        kernel = data.draw(st.integers(1, 5))
        pad = data.draw(st.integers(0, kernel // 2))
        reach = reach.convolved(kernel, step, pad, data.draw(st.integers(1, 2)))
        reaches[f"layer{index}"] = reach
    length, crop = data.draw(st.integers(1, 400)), data.draw(st.integers(1, 200))
    sizes = {
        n: max(0, (length + r.before - r.after - 1) // r.stride + 1) for n, r in reaches.items()
    }
    found = tiles.sections(length, crop, reaches, sizes)
    for name, reach in reaches.items():
        bounds = [section.positions[name] for section in found]
        assert bounds[0][0] == 0 and bounds[-1][1] == sizes[name]
        assert all(one[1] == other[0] for one, other in zip(bounds, bounds[1:]))
        for section, (first, end) in zip(found, bounds):
            assert section.start % reach.stride == 0
            if first < end:
                assert section.start <= max(0, first * reach.stride - reach.before)
                assert section.stop >= min(length, (end - 1) * reach.stride + reach.after + 1)
    assert {section.stop - section.start for section in found} == {found[0].stop - found[0].start}
    assert found[0].start == 0 and found[-1].stop == length
    needed = sum(tiles._margins(length, reaches))  # alignment, before, after, rest
    assert found[0].stop <= max(crop, needed) or len(found) == 1


def test_the_largest_crop_is_the_one_with_the_fewest_pixels(network):
    reaches = reaches_of(network, ["relu4_1"])
    room = 400 * 500
    height, width = tiles.largest_crop((1000, 1500), reaches, lambda h, w: h * w <= room)
    assert height * width <= room
    computed = {}
    for rows in range(150, 1000, 10):
        columns = room // rows
        sizes = {"relu4_1": (125, 188)}
        planned = tiles.plan((1000, 1500), (rows, columns), reaches, sizes)
        if planned.crop[0] * planned.crop[1] <= room:
            computed[rows] = len(planned.tiles) * planned.crop[0] * planned.crop[1]
    planned = tiles.plan((1000, 1500), (height, width), reaches, sizes)
    assert len(planned.tiles) * height * width <= min(computed.values())
    assert tiles.largest_crop((1000, 1500), reaches, lambda h, w: h * w < 100) is None
    assert tiles.largest_crop((40, 40), reaches, lambda *_: True) == (40, 40)


# --- exactness ---


@settings(deadline=None, max_examples=25)
@given(
    st.sampled_from(LAYERS),
    st.tuples(st.integers(33, 190), st.integers(33, 190)),
    st.tuples(st.integers(1, 150), st.integers(1, 150)),
    st.sampled_from(["up", "down"]),
    st.sampled_from(["avg", "max"]),
)
def test_tiles_give_what_the_whole_picture_gives(network, layers, size, crop, rounding, pool):
    whole = network.truncated(layers, pool, None, "float32", rounding)
    tiled = Tiled(whole, reaches_of(network, layers), crop)
    image, loss = problem(whole, size)
    of_codes, of_losses, of_gradient = compare(whole, tiled, image, loss)
    assert of_codes < 1e-5
    assert of_losses < 1e-5
    assert of_gradient < 1e-4
    assert error(tiled.losses(image, loss), whole.losses(image, loss)) < 1e-5
    name = layers[-1]
    sums = (one.sums(image, codes.gram, [name])[name] for one in (tiled, whole))
    assert error(*sums) < 1e-5
    assert error(tiled.code(image, name), whole.code(image, name)) < 1e-5


def less(reach, **changes):
    return dataclasses.replace(reach, **changes)


BROKEN = {
    "halo before": lambda r: less(r, before=r.before - r.stride),
    "halo after": lambda r: less(r, after=r.after - r.stride),
    "alignment": lambda r: less(r, alignment=r.alignment // 2),
}


@pytest.mark.parametrize("layers, crop", [(["relu3_2"], 90), (["relu4_1"], 140)])
@pytest.mark.parametrize("how", BROKEN)
def test_a_smaller_halo_or_another_alignment_would_be_noticed(how, layers, crop, network):
    whole = network.truncated(layers)
    size = (241, 200)
    image, loss = problem(whole, size)
    right = reaches_of(network, layers)
    wrong = {n: tuple(BROKEN[how](reach) for reach in both) for n, both in right.items()}
    assert compare(whole, Tiled(whole, right, (crop, crop)), image, loss)[2] < 1e-5
    tiled = Tiled(whole, wrong, (crop, crop))
    assert len(tiled.plan(*size).tiles) > 1
    with np.errstate(all="ignore"):
        try:
            assert compare(whole, tiled, image, loss)[2] > 1e-4
        except (ValueError, mx.MXNetError):  # the codes do not even have the right size
            assert how == "alignment"


def test_sums_of_single_tiles_would_be_noticed(network, monkeypatch):
    whole = network.truncated(["relu2_2"])
    tiled = Tiled(whole, reaches_of(network, ["relu2_2"]), (64, 64))
    image, loss = problem(whole, (90, 90))
    first_pass = Tiled._first_pass

    def without_the_other_tiles(self, image, loss):
        found = first_pass(self, image, loss)
        targets = [[t.target if t.positions == "summed" else None for t in loss.terms]]
        return dataclasses.replace(found, targets=targets * len(found.targets))

    monkeypatch.setattr(Tiled, "_first_pass", without_the_other_tiles)
    assert compare(whole, tiled, image, loss)[2] > 0.01


def test_a_picture_that_fits_into_one_crop_is_computed_as_a_whole(network):
    whole = network.truncated(["relu2_2"])
    tiled = Tiled(whole, reaches_of(network, ["relu2_2"]), (64, 64))
    assert len(tiled.plan(64, 64).tiles) == 1
    image, loss = problem(whole, (64, 64))
    custom = losses.Loss(
        (losses.Term("relu2_2", lambda code: code**2, whole(image)["relu2_2"], 1),)
    )
    for one in (loss, custom):
        assert compare(whole, tiled, image, one)[1:] == (0, 0)


def test_an_unknown_statistic_is_refused(network):
    tiled = Tiled(network.truncated(["relu2_2"]), reaches_of(network, ["relu2_2"]), (64, 64))
    image = mx.nd.ones((1, 3, 100, 100))
    unknown = losses.Loss((losses.Term("relu2_2", lambda c: c.max(axis=(2, 3)), mx.nd.ones(1), 1),))
    for compute in (tiled.gradient, tiled.losses):
        with pytest.raises(InputError, match=r"relu2_2 .*positions"):
            compute(image, unknown)


def test_the_last_tile_is_not_computed_twice(network, monkeypatch):
    whole = network.truncated(["relu2_2"])
    tiled = Tiled(whole, reaches_of(network, ["relu2_2"]), (64, 64))
    image, loss = problem(whole, (90, 50))
    count = len(tiled.plan(90, 50).tiles)
    calls = []
    forward = vgg.Passes.forward
    monkeypatch.setattr(
        vgg.Passes, "forward", lambda self, crop: calls.append(1) or forward(self, crop)
    )
    gradient(tiled, image, loss)
    assert len(calls) == 2 * count - 1 > 2
    calls.clear()
    gradient(tiled, image, losses.Loss(loss.terms[:1]))  # no sums, one pass
    assert len(calls) == count


def test_memory_for_all_crops_is_allocated_once(network, monkeypatch):
    whole = network.truncated(["relu3_1"])
    tiled = Tiled(whole, reaches_of(network, ["relu3_1"]), (80, 80))
    image, loss = problem(whole, (173, 149))
    assert len(tiled.plan(173, 149).tiles) > 4
    shapes = []
    made = whole._make_passes
    monkeypatch.setattr(whole, "_make_passes", lambda shape: shapes.append(shape) or made(shape))
    whole.free()
    for _ in range(2):
        gradient(tiled, image, loss)
    assert len(shapes) == 1


def test_the_loss_is_scaled_for_float16_in_each_tile(network):
    whole = network.truncated(["relu2_2"], "max")  # automatic differentiation, as on GPUs
    tiled = Tiled(whole, reaches_of(network, ["relu2_2"]), (64, 64))
    image, loss = problem(whole, (90, 90))
    values, wanted = gradient(whole, image, loss)
    whole._half, whole._scale = True, 2.0**-8
    own, found = gradient(tiled, image, loss)
    whole._half = False
    assert error(own, values) < 1e-5 and error(found, wanted) < 1e-4


@pytest.mark.skipif("avx512bw" not in environment.cpu_flags(), reason="this CPU has no AVX-512")
def test_bfloat16_in_tiles(network):
    whole = network.truncated(["relu3_2"], precision="bfloat16")
    tiled = Tiled(whole, reaches_of(network, ["relu3_2"]), (96, 96))
    image, loss = problem(whole, (150, 170))
    of_codes, of_losses, of_gradient = compare(whole, tiled, image, loss)
    assert of_codes < 0.01 and of_losses < 0.001 and of_gradient < 0.02


# --- reach ---


def measured(network, layer, side, place):
    """The rows and columns of a picture that a position depends on, by its gradient."""
    truncated = network.truncated([layer])
    image = mx.nd.ones((1, 3, side, side)) * 3
    image.attach_grad()
    with mx.autograd.record():
        code = truncated(image)[layer]
        one = code[:, :, place, place].sum()
    one.backward()
    touched = np.abs(image.grad.asnumpy()).sum(axis=(0, 1))
    return [np.flatnonzero(touched.sum(axis=1 - axis))[[0, -1]].tolist() for axis in (0, 1)]


def claimed(network, layer, place):
    both = network.reach(layer)
    return [[place * r.stride - r.before, place * r.stride + r.after] for r in both]


@pytest.mark.parametrize("layer", ["conv1_1", "relu1_2", "pool1", "relu2_2", "relu3_3", "relu4_1"])
def test_the_reach_of_vgg_is_what_its_gradient_shows(layer):
    arrays, channels = {}, 3
    for name in VGG19.convolutions:
        arrays[f"{name}_weight"] = np.full((2, channels, 3, 3), 0.1, np.float32)
        arrays[f"{name}_bias"] = np.ones(2, np.float32)
        channels = 2
    outline = vgg.outline(VGG19)
    positive = vgg.VGG(dataclasses.replace(outline.weights, arrays=arrays))
    assert measured(positive, layer, 200, 12 if "4" in layer else 20) == claimed(
        positive, layer, 12 if "4" in layer else 20
    )


class Residual(nn.HybridBlock):
    """A sum and a concatenation of branches that reach differently far."""

    def __init__(self):
        super().__init__()
        with self.name_scope():
            self.wide = nn.Conv2D(4, (1, 7), padding=(0, 3))
            self.dilated = nn.Conv2D(4, 3, padding=2, dilation=2)
            self.norm = nn.BatchNorm()

    def hybrid_forward(self, F, x):
        both = F.relu(self.wide(x)) + self.norm(self.dilated(x)) * 0.5
        return F.concat(both, x, dim=1)


def blocks():
    return {
        "strides": [
            nn.Conv2D(4, 7, strides=2, padding=3),
            nn.Activation("relu"),
            nn.AvgPool2D(3, 2, 1, ceil_mode=True),
            nn.Conv2D(4, 3, padding=1),
        ],
        "valid": [nn.Conv2D(4, 5), nn.LeakyReLU(0.1), nn.MaxPool2D(3, 2), nn.Conv2D(4, 3)],
        "residual": [nn.Conv2D(4, 3, strides=2), Residual(), nn.AvgPool2D(2), nn.Conv2D(3, 2)],
        "three": [nn.Conv2D(4, 3, strides=3), nn.AvgPool2D(2), nn.Conv2D(3, (3, 1))],
    }


def built(parts, positive=False):
    block = nn.HybridSequential()
    block.add(*parts)
    block.initialize(mx.init.Constant(0.1) if positive else mx.init.Xavier(), force_reinit=True)
    block(mx.nd.zeros((1, 3, 256, 256)))
    return catalogue.load(block, input="caffe")


@pytest.mark.parametrize("name", ["strides", "residual", "three"])
def test_the_reach_of_other_networks_is_what_their_gradient_shows(name):
    network = built(blocks()[name], positive=True)
    for layer in network.layers:
        assert measured(network, layer.name, 160, 8) == claimed(network, layer.name, 8)


@pytest.mark.parametrize("name", blocks())
@pytest.mark.parametrize("size", [(97, 121), (120, 96)])
def test_other_networks_in_tiles(name, size):
    network = built(blocks()[name])
    names = [layer.name for layer in network.layers]
    for layers in (names[-1:], names):
        whole = network.truncated(layers)
        tiled = Tiled(whole, reaches_of(network, layers), (50, 50))
        assert len(tiled.plan(*size).tiles) > 3
        image, loss = problem(whole, size)
        assert max(compare(whole, tiled, image, loss)) < 1e-4


@pytest.mark.parametrize("name", ["resnet18_v2", "squeezenet1.0", "densenet121", "inceptionv3"])
def test_networks_of_the_zoo_in_tiles(name):
    block = mx.gluon.model_zoo.vision.get_model(name)
    block.initialize(mx.init.Xavier())
    block(mx.nd.zeros((1, 3, 299, 299)))
    network = catalogue.load(block)
    layers = network.landmarks(first=True)[:3]
    whole = network.truncated(layers)
    tiled = Tiled(whole, reaches_of(network, layers), (110, 130))
    assert len(tiled.plan(211, 198).tiles) > 3
    image, loss = problem(whole, (211, 198), pictures=1)
    assert max(compare(whole, tiled, image, loss)) < 1e-4


class Excitation(nn.HybridBlock):
    """Squeeze and excitation."""

    def __init__(self):
        super().__init__()
        with self.name_scope():
            self.squeeze = nn.GlobalAvgPool2D()
            self.excite = nn.Conv2D(4, 1, activation="sigmoid")

    def hybrid_forward(self, F, x):
        return F.broadcast_mul(x, self.excite(self.squeeze(x)))


class Everywhere(nn.HybridBlock):
    """A learned array with a value for each position."""

    def __init__(self):
        super().__init__()
        with self.name_scope():
            self.weight = self.params.get("weight", shape=(1, 4, 256, 256))

    def hybrid_forward(self, F, x, weight):
        return F.broadcast_add(x, weight)


WHOLE = {
    "excitation": (Excitation, "Pooling"),
    "instance norm": (nn.InstanceNorm, "InstanceNorm"),
    "layer norm": (lambda: nn.LayerNorm(axis=1), "LayerNorm"),
    "deconvolution": (lambda: nn.Conv2DTranspose(4, 2, 2), "Deconvolution"),
    "positions": (Everywhere, "broadcast_add"),
    "reflection": (lambda: nn.ReflectionPad2D(1), "Pad"),
}


@pytest.mark.parametrize("name", WHOLE)
def test_what_depends_on_the_whole_picture_is_not_computed_in_tiles(name):
    make, operator = WHOLE[name]
    network = built([nn.Conv2D(4, 3, padding=1), make(), nn.Conv2D(3, 3), nn.Activation("relu")])
    first, last = network.layers[0].name, network.layers[-1].name
    network.reach(first)
    with pytest.raises(InputError, match=rf"{last} .*\(.*{operator}.*\)"):
        network.reach(last)


# --- calls ---

# Larger steps amplify the last digit: what relus switch on and off differs after a few steps.
ROUGH = {"steps": 20, "stop": 0, "learning_rate": 0.01, "weights": "embedded", "denoise": 0}
MEMORY = 60e6  # bytes
STYLE_LAYERS = ("relu1_1", "relu2_1", "relu3_1")


def rough(size):
    return np.random.RandomState(5).uniform(0, 255, (*size, 3)).astype(np.float32)


@pytest.fixture
def plans(monkeypatch):
    """The plans that are made."""
    found = []
    planned = Tiled._planned

    def noted(self, *size):
        found.append(planned(self, *size))
        return found[-1]

    monkeypatch.setattr(Tiled, "_planned", noted)
    return found


@pytest.mark.parametrize("size", [(300, 400), (301, 403)])
@pytest.mark.parametrize("function", ["feature_map", "purposeful", "gatys", "random", "rank_match"])
def test_the_same_picture_after_20_steps(function, size, plans, style):
    content = smooth_picture(*size)
    options = {**ROUGH, "progress": False, "long_edge": max(size), "init": rough(size)}

    def compute(**more):
        if function == "feature_map":
            return fmi.invert.feature_map(content, "relu3_2", [3, 1], batch=2, **options, **more)
        if function == "random":
            return fmi.invert.random(content, "relu2_2", draws=2, **options, **more)
        if function == "rank_match":
            return [fmi.invert.rank_match(content, style, "relu2_2", **options, **more)]
        transfer, mask = getattr(fmi.invert, function), np.zeros(size, np.uint8)
        mask[50:220, 100:] = 255
        more["mask"] = mask if size[0] % 2 else None
        return [transfer(content, style, style_layers=STYLE_LAYERS, **options, **more)]

    whole = compute()
    assert not plans
    tiled = compute(memory=1.25 * MEMORY if function == "feature_map" else MEMORY)
    assert len(plans[0].tiles) > 2
    for one, other in zip(whole, tiled):
        difference = np.abs(one.array - other.array)
        assert np.abs(one.array - rough(size)).mean() > 3
        assert np.median(difference) < 1e-4
        assert (difference > 0.01).mean() < 0.01
        np.testing.assert_allclose(other.loss, one.loss, rtol=1e-4)
        assert other.explained == pytest.approx(one.explained, abs=1e-4)
        if one.energy_share is not None:
            assert other.energy_share == pytest.approx(one.energy_share, rel=1e-3)
        assert store.key(one.record) == store.key(other.record)


def test_a_style_picture_of_its_own_size(plans, style):
    content = smooth_picture(300, 400)
    options = {**ROUGH, "progress": False, "long_edge": 400, "style_size": "own", "steps": 3}
    one, other = (
        fmi.invert.purposeful(content, style, style_layers=STYLE_LAYERS, **options, memory=room)
        for room in (0.5, MEMORY)
    )
    assert {len(plan.tiles) > 1 for plan in plans} == {True} and len(plans) == 2
    np.testing.assert_allclose(other.loss, one.loss, rtol=1e-4)


def test_a_chain_and_odd_sizes_rounded_down(plans):
    content = smooth_picture(301, 403)
    options = {**ROUGH, "progress": False, "long_edge": 403, "pool_rounding": "down", "steps": 3}
    both = [
        fmi.invert.feature_map(content, "relu3_1", [0, 1], chain=True, **options, memory=room)
        for room in (0.5, 0.8 * MEMORY)
    ]
    assert len(plans[0].tiles) > 2
    for one, other in zip(*both):
        np.testing.assert_allclose(other.loss, one.loss, rtol=1e-4)
        assert np.median(np.abs(one.array - other.array)) < 1e-4


def call(layer="relu3_2", **options):
    content = smooth_picture(300, 400)
    options = {"weights": "embedded", "long_edge": 400, **options}
    return request.code(content, layer, None, options).call


def test_tiles_are_as_large_as_memory_allows_and_the_log_tells(caplog):
    caplog.set_level("INFO", "fmi")
    need = call()._need(400)
    assert call(memory=need)._crop is None
    areas = []
    for share in (0.9, 0.6, 0.4):
        chosen = call(memory=share * need)
        areas.append(int(np.prod(chosen._crop)))
        room = chosen.memory - memory.CODES * chosen._needed.codes(chosen.layers, 300, 400)
        assert chosen._needed.gradient(*chosen._crop) <= room - chosen._needed.state(300, 400)
    assert areas == sorted(areas, reverse=True)
    plan = chosen.truncated.plan(300, 400)
    height, width = plan.crop
    assert f"400 x 300 pixels are computed in {len(plan.tiles)} tiles of {width} x {height}" in (
        caplog.text
    )


def test_the_error_names_the_largest_picture_that_can_be_computed(monkeypatch):
    with pytest.raises(InputError, match="6000 x 4500 pixels .* largest long_edge") as error:
        call(long_edge=6000, memory=1e8)
    edge = int(str(error.value).split(" is ")[-1])
    assert call(long_edge=edge, memory=1e8)._crop
    with pytest.raises(InputError, match="long_edge"):
        call(long_edge=edge + 1, memory=1e8)
    (least,) = re.findall(r"as a whole and (\S+) GB in tiles", str(error.value))
    assert call(long_edge=6000, memory=float(least) * 1e9)._crop
    with pytest.raises(InputError, match="long_edge"):
        call(long_edge=6000, memory=float(least) * 0.9e9)
    monkeypatch.setattr(fmi.call, "free_memory", lambda _: 10)
    with pytest.raises(InputError, match="not even the smallest picture"):
        call()


def test_a_network_that_cannot_be_divided_is_computed_as_a_whole_if_it_fits(monkeypatch, caplog):
    caplog.set_level("INFO", "fmi")
    network = built([nn.Conv2D(4, 3, padding=1), Excitation(), nn.Conv2D(4, 3)])
    layer = network.layers[-1].name
    options = {"network": network, "long_edge": 400, "weights": "auto"}
    need = call(layer, **options)._need(400)
    monkeypatch.setattr(fmi.call, "free_memory", lambda _: need + 1)
    assert call(layer, **options)._crop is None
    assert "as a whole" in caplog.text
    monkeypatch.setattr(fmi.call, "free_memory", lambda _: need - 1)
    with pytest.raises(InputError, match=rf"long_edge that fits.*{layer}.*Pooling"):
        call(layer, **options)


@pytest.mark.parametrize("value", [0, -1, "much", float("nan"), True, None, 5, 0.0])
def test_memory_is_a_share_or_bytes(value):
    with pytest.raises(InputError, match="memory"):
        call(memory=value)


def test_memory_never_exceeds_what_is_free():
    assert memory.allowed(0.25, 1000) == 250
    assert memory.allowed(1, 1000) == 1000
    assert memory.allowed(4e9, 10**10) == 4 * 10**9
    assert memory.allowed(4e9, 10**9) == 10**9


def test_memory_is_a_variable_of_figures():
    read = experiment.read(experiment.packaged("fig3"), ["MEMORY=3e9"])
    assert read.memory == 3e9
    assert experiment.read(experiment.packaged("fig3")).memory == fmi.call.Options.memory
    with pytest.raises(InputError, match="memory"):
        experiment.read(experiment.packaged("fig3"), ["MEMORY=all"])


PEAK = r"""
import re, sys
import numpy as np
import fmi.invert
from fmi.networks import catalogue
peak = lambda: 1024 * int(re.search(r"VmHWM:\s*(\d+)", open("/proc/self/status").read())[1])
options = {"weights": "embedded", "steps": 2, "stop": 0, "progress": False}
picture = np.random.RandomState(0).randint(0, 256, (90, 120, 3)).astype(np.uint8)
fmi.invert.feature_map(picture, "relu3_2", [0], long_edge=120, **options)
before = peak()
options["memory"] = float(sys.argv[1])
fmi.invert.feature_map(picture, "relu3_2", [0], long_edge=2400, **options)
print(peak() - before)
"""


@pytest.mark.parametrize("room", [1e9])
def test_a_call_stays_within_its_memory(room):
    made = subprocess.run(
        [sys.executable, "-c", PEAK, str(room)], capture_output=True, text=True, timeout=600
    )
    assert made.returncode == 0, made.stderr
    assert 0.3 * room < float(made.stdout) < 1.1 * room


def test_the_same_picture_on_the_real_weights(real_weights, real_pictures, plans):
    options = {**ROUGH, "weights": real_weights, "long_edge": 401, "progress": False, "steps": 5}
    content = next(real_pictures.glob("golden_gate.*"))
    size = call(weights=real_weights, long_edge=401).size
    both = [
        fmi.invert.feature_map(content, "relu3_2", 3, **options, init=rough(size), memory=room)[0]
        for room in (0.5, 0.24e9)
    ]
    assert len(plans[0].tiles) > 1
    difference = np.abs(both[0].array - both[1].array)
    assert np.median(difference) < 1e-4 and (difference > 0.01).mean() < 0.01
    np.testing.assert_allclose(both[1].loss, both[0].loss, rtol=1e-4)
