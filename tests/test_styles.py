"""What users of style transfer ask for: masks, several styles, colours, strength, jitter."""

import dataclasses

import numpy as np
import pytest
from conftest import smooth_picture
from PIL import Image
from scipy.stats import pearsonr

import fmi.invert
from fmi import losses, pictures
from fmi.device.mxnet import mx
from fmi.errors import InputError
from fmi.evidence.textures import MapSums
from fmi.networks import catalogue
from fmi.regularisers import regularised, rolled, total_variation
from fmi.settings import CODE, override

GIVEN = {
    "weights": "embedded",
    "settings": "fast",
    "long_edge": 64,
    "steps": 25,
    "progress": False,
    "denoise": 0,
}


@pytest.fixture(scope="module")
def scene():
    return smooth_picture(48, 64, seed=3)


@pytest.fixture(scope="module")
def paintings():
    stripes = np.zeros((48, 64, 3), np.uint8)
    stripes[:, ::4] = stripes[:, 1::4] = (250, 180, 20)
    blobs = smooth_picture(48, 64, seed=9)[:, :, ::-1]
    return [stripes, blobs]


@pytest.fixture(scope="module")
def half():
    mask = np.zeros((48, 64), np.uint8)
    mask[:, 32:] = 255
    return mask


def sums(found):
    judge = MapSums(catalogue.load(weights="embedded"))
    return judge.of([np.asarray(one) for one in found])


# --- masks ---


def test_outside_a_mask_there_is_nothing_of_the_texture(scene, half):
    (found,) = fmi.invert.feature_map(scene, "relu2_2", 3, mask=half, **GIVEN)
    (whole,) = fmi.invert.feature_map(scene, "relu2_2", 3, **GIVEN)
    code = fmi.invert.code(scene, "relu2_2", **GIVEN)
    left, right = np.s_[:, :24], np.s_[:, 40:]  # away from the edge of the mask

    def like(one, other, where):
        return pearsonr(one.array[where].ravel(), other.array[where].ravel())[0]

    assert like(found, code, left) > 0.6 and like(found, whole, left) < 0.2
    assert like(found, whole, right) > 0.4 and like(found, code, right) < 0.2
    assert found.record["mask"] and "mask" not in whole.record


def test_a_white_mask_changes_nothing_and_a_black_one_leaves_the_code(scene):
    white, black = np.full((48, 64), 255, np.uint8), np.zeros((48, 64), np.uint8)
    given = {**GIVEN, "steps": 4}
    (plain,) = fmi.invert.feature_map(scene, "relu2_2", 3, **given)
    (all_,) = fmi.invert.feature_map(scene, "relu2_2", 3, mask=white, **given)
    np.testing.assert_array_equal(plain.array, all_.array)
    (none,) = fmi.invert.feature_map(scene, "relu2_2", 3, mask=black, **given)
    code = fmi.invert.code(scene, "relu2_2", **given)
    np.testing.assert_array_equal(none.array, code.array)


@pytest.mark.parametrize("function", ["purposeful", "gatys"])
def test_a_style_stays_inside_its_mask(scene, paintings, half, function):
    transfer = getattr(fmi.invert, function)
    found = transfer(scene, paintings[0], mask=half, **GIVEN)
    whole = transfer(scene, paintings[0], **GIVEN)
    plain = transfer(scene, paintings[0], beta=0, **GIVEN)

    def off(one, where):
        return np.abs(one.array[where] - plain.array[where]).mean()

    left, right = np.s_[:, :24], np.s_[:, 40:]
    assert off(found, left) < 0.6 * off(whole, left)
    assert off(found, right) > 0.6 * off(whole, right)


@pytest.mark.parametrize("function", ["purposeful", "gatys"])
def test_a_picture_that_is_its_own_style_has_reached_it_under_a_grey_mask(
    scene, paintings, function
):
    transfer = getattr(fmi.invert, function)
    given = {**GIVEN, "content_scale": 255, "style_scale": 255, "init": "content", "steps": 1}
    grey = np.full((48, 64), 128, np.uint8)
    own = transfer(scene, scene, mask=grey, **given).loss[0]
    assert own < 1e-6 * transfer(scene, paintings[0], mask=grey, **given).loss[0]


def test_the_style_of_gatys_counts_each_position_as_the_mask_is_white():
    random = np.random.RandomState(0)
    code, target = random.uniform(0, 2, (1, 3, 4, 5)), random.uniform(0, 9, (1, 3, 3))
    mask, content = random.uniform(0, 1, (1, 1, 4, 5)), random.uniform(0, 2, (1, 2, 4, 5))
    array = mx.nd.array
    scheme = dataclasses.replace(CODE.gatys, content_layer="a", style_layers=("b",))
    sums = losses.Sums(array(target), positions=40, wanted=float(mask.sum()))
    loss = losses.gatys(array(content), {"b": sums}, scheme, {"b": array(mask)})
    found = loss({"a": array(content), "b": array(code)}).asscalar()
    maps = code.reshape(3, 20)
    gram = (maps * mask.reshape(20)) @ maps.T
    weight = scheme.beta * scheme.style(3, mask.sum())
    wanted = weight * ((gram - target[0] * mask.sum() / 40) ** 2).sum()
    assert found == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("function", ["purposeful", "gatys"])
def test_a_style_layer_that_is_named_twice_is_refused(scene, paintings, function):
    layers = ["relu1_1", "relu2_1", "relu1_1"]
    with pytest.raises(InputError, match="relu1_1 more than once"):
        getattr(fmi.invert, function)(scene, paintings[0], style_layers=layers, **GIVEN)


def test_a_mask_may_have_another_size_and_must_be_white_somewhere(scene, paintings, tmp_path):
    mask = np.zeros((480, 640, 3), np.uint8)
    mask[:, 320:] = 255
    path = tmp_path / "mask.png"
    Image.fromarray(mask).save(path)
    given = {**GIVEN, "steps": 2}
    (found,) = fmi.invert.feature_map(scene, "relu2_2", 3, mask=path, **given)
    assert found.array.shape == (48, 64, 3)
    with pytest.raises(InputError, match="black"):
        fmi.invert.purposeful(scene, paintings[0], mask=np.zeros((48, 64), np.uint8), **given)
    with pytest.raises(InputError, match="nowhere"):
        fmi.invert.feature_map(scene, "relu2_2", 3, mask="nowhere.png", **given)


@pytest.mark.parametrize("kind", ["RGBA", "LA", "P", "array"])
def test_a_transparent_mask_is_black(scene, half, kind, tmp_path):
    if kind == "P":
        mask = Image.fromarray(half // 255)
        mask.putpalette([0, 255, 0, 255, 255, 255])
        mask.save(tmp_path / "mask.png", transparency=0)
    else:
        white = Image.new("LA" if kind == "LA" else "RGBA", half.shape[::-1], "white")
        white.putalpha(Image.fromarray(half))
        white.save(tmp_path / "mask.png")
    given = np.asarray(white) if kind == "array" else tmp_path / "mask.png"
    common = {**GIVEN, "steps": 2}
    (plain,) = fmi.invert.feature_map(scene, "relu2_2", 3, mask=half, **common)
    (found,) = fmi.invert.feature_map(scene, "relu2_2", 3, mask=given, **common)
    np.testing.assert_array_equal(found.array, plain.array)
    assert found.record["mask"] == plain.record["mask"]


@pytest.mark.parametrize("function", ["feature_map", "purposeful"])
def test_a_mask_of_ones_is_refused(scene, paintings, half, function, tmp_path):
    given = {"feature_map": ("relu2_2", 3), "purposeful": (paintings[0],)}[function]
    Image.fromarray(half // 255).save(tmp_path / "mask.png")
    for mask in (half // 255, tmp_path / "mask.png"):
        with pytest.raises(InputError, match="mask .* largest value is 1 of 255"):
            getattr(fmi.invert, function)(scene, *given, mask=mask, **{**GIVEN, "steps": 2})
    for mask in (half > 0, half / 255):
        with pytest.raises(InputError, match="must be uint8"):
            getattr(fmi.invert, function)(scene, *given, mask=mask, **{**GIVEN, "steps": 2})


def test_a_mask_may_be_grey(scene, half):
    grey = half // 2 + half % 2
    (found,) = fmi.invert.feature_map(scene, "relu2_2", 3, mask=grey, **{**GIVEN, "steps": 2})
    assert grey.max() == 128 and found.record["mask"]


# --- several styles, strength, colours ---


def test_two_styles_lie_between_the_single_ones(scene, paintings):
    given = {**GIVEN, "alpha": 0, "steps": 40}
    one, other = (fmi.invert.purposeful(scene, style, **given) for style in paintings)
    both = fmi.invert.purposeful(scene, paintings, **given)
    mostly = fmi.invert.purposeful(scene, paintings, style_weights=[9, 1], **given)
    found = sums([one.undenoised, other.undenoised, both.undenoised, mostly.undenoised])
    axis = found[1] - found[0]
    place = (found - found[0]) @ axis / (axis @ axis)  # 0 for the first style, 1 for the second
    assert 0.3 < place[2] < 0.7 and 0 < place[3] < 0.3
    assert both.record["style_weights"] == [0.5, 0.5]
    assert set(both.record["pictures"]) == {"content", "style", "style_2"}
    alone = fmi.invert.purposeful(scene, paintings, style_weights=[1, 0], **{**given, "steps": 3})
    same = fmi.invert.purposeful(scene, paintings[0], **{**given, "steps": 3})
    np.testing.assert_allclose(alone.array, same.array, atol=0.05)


def test_strength_goes_from_the_content_to_the_style(scene, paintings):
    given = {**GIVEN, "steps": 15}
    middle = fmi.invert.gatys(scene, paintings[0], **given)
    same = fmi.invert.gatys(scene, paintings[0], strength=0.5, **given)
    np.testing.assert_array_equal(middle.array, same.array)
    content = fmi.invert.gatys(scene, paintings[0], strength=0, **given)
    wanted = fmi.invert.gatys(scene, paintings[0], alpha=20, beta=0, **given)
    np.testing.assert_array_equal(content.array, wanted.array)
    style = fmi.invert.gatys(scene, paintings[0], strength=1, **given)
    wanted = fmi.invert.gatys(scene, paintings[0], alpha=0, beta=2, **given)
    np.testing.assert_array_equal(style.array, wanted.array)
    assert style.record["strength"] == 1 and "strength" not in middle.record


def test_the_colours_of_the_content_are_kept(scene, paintings):
    given = {**GIVEN, "steps": 10}
    plain = fmi.invert.gatys(scene, paintings[0], **given)
    found = fmi.invert.gatys(scene, paintings[0], preserve_color=True, **given)
    grey = np.array([0.299, 0.587, 0.114])
    np.testing.assert_allclose(found.array @ grey, plain.array @ grey, atol=0.05)
    content = scene * (256 / 255)  # the 2016 code's white
    for first, second in ((0, 1), (1, 2)):
        kept = found.array[..., first] - found.array[..., second]
        np.testing.assert_allclose(kept, content[..., first] - content[..., second], atol=0.5)
    assert found.record["preserve_color"] is True and "preserve_color" not in plain.record


def test_with_colours_against_numpy():
    random = np.random.RandomState(0)
    one, other = random.uniform(0, 255, (2, 4, 5, 3))
    found = pictures.with_colours(one, other)
    np.testing.assert_allclose(
        found @ [0.299, 0.587, 0.114], one @ [0.299, 0.587, 0.114], rtol=1e-5
    )
    np.testing.assert_allclose(np.diff(found, axis=2), np.diff(other, axis=2), atol=1e-3)


@pytest.mark.parametrize(
    "more, fact",
    [
        ({"style_weights": [1]}, "2"),
        ({"style_weights": [1, -1]}, "-1"),
        ({"style_weights": [0, 0]}, "0"),
        ({"style_weights": "a,b"}, "a"),
        ({"strength": 1.5}, "1.5"),
        ({"strength": float("nan")}, "nan"),
        ({"preserve_color": "perhaps"}, "perhaps"),
        ({"jitter": 2}, "jitter"),
        ({"total_variation": -1}, "-1"),
    ],
)
def test_odd_values_are_refused(scene, paintings, more, fact):
    with pytest.raises(InputError, match=fact):
        fmi.invert.purposeful(scene, paintings, **{**GIVEN, **more})
    with pytest.raises(InputError, match="style"):
        fmi.invert.purposeful(scene, [], **GIVEN)


# --- total variation and jitter ---


def test_total_variation_against_numpy_and_finite_differences():
    random = np.random.RandomState(0)
    image = random.normal(0, 9, (2, 3, 5, 7)).astype(np.float32)

    def oracle(values):
        return (np.diff(values, axis=2) ** 2).sum((1, 2, 3)) + (np.diff(values, axis=3) ** 2).sum(
            (1, 2, 3)
        )

    value, gradient = (array.asnumpy() for array in total_variation(mx.nd.array(image)))
    np.testing.assert_allclose(value, oracle(image), rtol=1e-4)
    direction = random.normal(0, 1, image.shape)
    step = 1e-3
    moved = [oracle(image.astype(np.float64) + s * step * direction) for s in (1, -1)]
    wanted = (moved[0] - moved[1]) / (2 * step)
    np.testing.assert_allclose((gradient * direction).sum((1, 2, 3)), wanted, rtol=1e-3)


@pytest.mark.parametrize("rows, columns", [(0, 0), (1, -2), (-3, 9), (5, 7)])
def test_rolled_against_numpy(rows, columns):
    image = np.arange(3 * 5 * 7, dtype=np.float32).reshape(1, 3, 5, 7)
    found = rolled(mx.nd.array(image), rows, columns).asnumpy()
    np.testing.assert_array_equal(found, np.roll(image, (rows, columns), (2, 3)))


def test_jitter_moves_the_picture_for_the_network_and_its_gradient_back(scene):
    settings = override(CODE, {"jitter": 3})
    shifts = {regularised(None, settings, step).shift for step in range(40)}
    assert len(shifts) > 10 and max(max(map(abs, shift)) for shift in shifts) == 3
    assert regularised(None, settings, 7) == regularised(None, settings, 7)
    assert regularised(None, CODE, 7).shift == (0, 0)

    class Network:
        def gradient(self, image, loss):
            del loss
            self.seen = image.asnumpy()
            return mx.nd.ones(1), image  # a gradient that is the picture itself

    network, image = Network(), mx.nd.array(np.random.RandomState(0).rand(1, 3, 6, 8))
    now = regularised(network, settings, 5)
    _, gradient = now.gradient(image, None)
    np.testing.assert_array_equal(gradient.asnumpy(), image.asnumpy())
    assert not np.array_equal(network.seen, image.asnumpy())


def test_total_variation_smooths_and_jitter_can_be_repeated(scene):
    given = {**GIVEN, "steps": 10}
    (plain,) = fmi.invert.maximise(scene, "relu2_2", 3, **given)
    (smooth,) = fmi.invert.maximise(scene, "relu2_2", 3, total_variation=1.0, **given)

    def rough(one):
        return float(total_variation(mx.nd.array(one.array.transpose(2, 0, 1)[None]))[0].asscalar())

    assert rough(smooth) < 0.7 * rough(plain)
    one, two = (fmi.invert.maximise(scene, "relu2_2", 3, jitter=2, **given)[0] for _ in range(2))
    np.testing.assert_array_equal(one.array, two.array)
    assert not np.array_equal(one.array, plain.array)
    assert one.record["settings"]["jitter"] == 2


def test_numbers_are_those_of_the_picture_with_the_colours_kept(scene):
    from fmi import codes, losses
    from fmi.device.mxnet import mx
    from fmi.networks import catalogue

    shown = []
    (found,) = fmi.invert.feature_map(
        scene, "relu2_1", 3, preserve_color=True, callback=shown.append, **GIVEN
    )
    network = catalogue.load(weights=GIVEN["weights"])
    body = network.truncated(["relu2_1"], pool="avg", pool_rounding="up")
    content, reached = (
        body(mx.nd.array(pictures.from_rgb(array, network.mean)))["relu2_1"]
        for array in (scene.astype(np.float32), found.array)
    )
    target = codes.isolate(content, [3])
    loss, zeros = (
        losses.squared_length(code - target).asscalar() for code in (reached, 0 * target)
    )
    assert found.explained == pytest.approx(1 - loss / zeros, rel=0.02)
    energies = reached.asnumpy()[0].sum((1, 2))
    assert found.energy_share == pytest.approx(energies[3] / energies.sum(), rel=0.02)
    np.testing.assert_allclose(shown[-1].arrays[0], found.array, atol=1e-3)


@pytest.mark.parametrize("function", ["code", "maximise"])
def test_a_mask_that_could_change_nothing_is_refused(scene, half, function):
    more = [3] if function == "maximise" else []
    with pytest.raises(InputError, match="mask"):
        getattr(fmi.invert, function)(scene, "relu2_1", *more, mask=half, **GIVEN)


@pytest.mark.parametrize("function", ["purposeful", "gatys"])
def test_layers_of_a_transfer_may_be_ends_of_names(scene, paintings, function):
    network = mx.gluon.nn.HybridSequential(prefix="net_")
    for channels, name in ((3, "a_relu0"), (4, "b_relu1")):
        network.add(mx.gluon.nn.Conv2D(4, 3, padding=1, in_channels=channels))
        network.add(mx.gluon.nn.Activation("relu", prefix=f"{name}_"))
    network.initialize(mx.init.Xavier())
    given = {"network": network, "settings": "fast", "long_edge": 48, "steps": 2, "progress": False}
    transfer = getattr(fmi.invert, function)
    whole, short = (
        transfer(scene, paintings[0], style_layers=[style], content_layer=content, **given)
        for style, content in (("a_relu0", "b_relu1"), ("relu0", "relu1"))
    )
    assert whole.loss == short.loss
    assert whole.record["settings"] == short.record["settings"]
