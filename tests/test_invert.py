"""The public functions: what they take, what they refuse, and what an Inversion holds."""

import inspect
import json
import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import oracle
import pytest
from conftest import CAFFE_MEAN, smooth_picture
from PIL import Image

import fmi.invert
from fmi import call, descent, pictures, request, settings, signatures
from fmi.call import Options
from fmi.errors import InputError
from fmi.networks import weights
from fmi.settings import CODE, PAPER

QUICK = {"long_edge": 48, "steps": 3, "stop": 0, "progress": False}


@pytest.fixture
def options(small_weights):
    return {**QUICK, "weights": small_weights}


def test_an_inversion_holds_all_that_is_needed_to_repeat_it(picture, options, small_weights):
    (found,) = fmi.invert.feature_map(picture, "relu2_1", 2, seed=9, **options)
    record = json.loads(json.dumps(found.settings))
    assert record["function"] == "feature_map"
    assert (record["layers"], record["filter"], record["seed"]) == (["relu2_1"], 2, 9)
    assert record["settings"]["learning_rate"] == 0.1
    assert record["network"]["sha256"] == weights.read(small_weights).sha256
    assert (record["precision"], record["device"]) == ("float32", "cpu(0)")
    packages = {"mxnet", "numpy", "pillow", "scikit-image", "scipy"}
    assert set(record["versions"]) == {"fmi", "fmi_source", "python", *packages}
    assert record["pictures"]["content"]["width"] == 48
    overrides = {"steps": 3, "stop": 0, "long_edge": 48}
    again = fmi.invert.feature_map(
        picture, *record["layers"], record["filter"], weights=small_weights, seed=9, **overrides
    )
    assert np.array_equal(found.array, again[0].array)


def test_an_inversion_tells_what_its_code_reached(picture, options, arrays):
    found = fmi.invert.feature_map(picture, ["relu1_2", "relu2_1"], [1, 2], **options)
    network = oracle.Network(arrays, "relu2_1")
    prepared = pictures.to_network(
        picture, (36, 48), CODE.content_scale, CAFFE_MEAN, CODE.resize_mode, CODE.anti_aliasing
    )
    content = network.codes(prepared[0])
    for one, index in zip(found, (1, 2)):
        codes = network.codes(pictures.from_rgb(one.array, CAFFE_MEAN)[0])
        left, whole, shares = 0, 0, []
        for layer in ("relu1_2", "relu2_1"):
            target = np.zeros_like(content[layer])
            target[index] = content[layer].sum(axis=0)
            left += ((codes[layer] - target) ** 2).sum()
            whole += (target**2).sum()
            shares.append(codes[layer][index].sum() / codes[layer].sum())
        assert one.explained == pytest.approx(1 - left / whole, abs=1e-4)
        assert one.energy_share == pytest.approx(np.mean(shares), rel=1e-3)
        outcome = one.describe()["outcome"]
        assert outcome["explained"] == one.explained
        assert outcome["energy_share"] == one.energy_share
    together = [(one.explained, one.energy_share) for one in found]
    alone = fmi.invert.feature_map(picture, ["relu1_2", "relu2_1"], 2, **options)
    assert together[0] != together[1] == pytest.approx((alone[0].explained, alone[0].energy_share))


def test_what_was_not_aimed_at_or_not_reached_is_none(picture, style, options):
    found = fmi.invert.gatys(picture, style, **options)
    assert found.explained < 1 and found.energy_share is None
    long = {**options, "steps": 60, "init": "content"}
    assert fmi.invert.code(picture, "relu1_1", **long).explained > 0.99

    def interrupt(state):
        raise KeyboardInterrupt

    left = fmi.invert.code(picture, "relu1_1", **options, callback=interrupt)
    assert (left.stopped, left.explained, left.energy_share) == ("interrupted", None, None)


def test_array_and_image(picture, options):
    found = fmi.invert.code(picture, "relu1_1", **options)
    assert (found.array.shape, found.array.dtype) == ((36, 48, 3), np.float32)
    assert (found.image.size, found.image.mode) == ((48, 36), "RGB")
    assert np.array_equal(
        np.asarray(found.undenoised), np.clip(found.array, 0, 255).astype(np.uint8)
    )
    assert not np.array_equal(np.asarray(found.undenoised), np.asarray(found.image))
    assert found._repr_png_().startswith(b"\x89PNG")
    assert "3 steps, stopped by steps" in repr(found)


def test_save_writes_png_text_and_json(picture, options, tmp_path):
    found = fmi.invert.code(picture, "relu1_1", **options)
    found.save(tmp_path / "x.png")
    with Image.open(tmp_path / "x.png") as image:
        assert np.array_equal(np.asarray(image), np.asarray(found.image))
        assert json.loads(image.text["fmi"]) == found.describe()
    record = json.loads((tmp_path / "x.json").read_text())
    assert record["loss"] == found.loss
    assert sorted(p.name for p in tmp_path.iterdir()) == ["x.json", "x.png"]
    with pytest.raises(InputError, match=r"x\.bmp: .*\.png, \.jpg, \.jpeg, \.webp"):
        found.save(tmp_path / "x.bmp")
    with pytest.raises(InputError, match="cannot be written"):
        found.save(tmp_path / "x.json" / "y.png")


def test_init_is_where_the_descent_starts(picture, options):
    init = np.full((36, 48, 3), 99, dtype=np.float32)
    first = []
    found = fmi.invert.code(
        picture, "relu1_1", init=init, callback=lambda s: first.append(s.arrays[0]), **options
    )
    assert np.abs(first[0] - 99).max() <= 1.1  # one step of at most rate x (clip + decay)
    assert len(found.settings["init"]) == 64
    same = fmi.invert.code(picture, "relu1_1", init=init[:-1], **options)  # resized
    np.testing.assert_allclose(same.array, found.array, atol=1e-3)
    for wrong in (init[..., :2], init * np.nan, init.astype(complex), np.zeros((0, 4, 3))):
        with pytest.raises(InputError, match=r"init .*\(H, W, 3\) or \(H, W\)"):
            fmi.invert.code(picture, "relu1_1", init=wrong, **options)


def test_init_can_be_the_content_or_a_picture(picture, style, options):
    first = []
    keep = {"callback": lambda s: first.append(s.arrays[0]), **options, "learning_rate": 1e-6}
    fmi.invert.code(picture, "relu1_1", init="content", settings="paper", **keep)
    assert np.abs(first[0] - picture).max() < 0.01
    fmi.invert.code(picture, "relu1_1", init=style, **keep)  # 40 x 30 is resized to 36 x 48
    expected = style.astype(float).mean(axis=(0, 1))
    assert np.abs(first[-1].mean(axis=(0, 1)) - expected).max() < 2
    one = fmi.invert.code(picture, "relu1_1", init="noise", **options)
    two = fmi.invert.code(picture, "relu1_1", **options)
    assert np.array_equal(one.array, two.array)


def test_grey_and_transparent_arrays_are_taken_as_such_files_are(picture, options):
    grey = picture[..., 0]
    found = fmi.invert.activations(grey, "relu1_1", **options)["relu1_1"]
    same = fmi.invert.activations(np.stack([grey] * 3, axis=2), "relu1_1", **options)["relu1_1"]
    np.testing.assert_array_equal(found.asnumpy(), same.asnumpy())
    clear = np.dstack([picture, np.zeros_like(grey)])
    found = fmi.invert.activations(clear, "relu1_1", **options)["relu1_1"]
    same = fmi.invert.activations(np.full_like(picture, 255), "relu1_1", **options)["relu1_1"]
    np.testing.assert_array_equal(found.asnumpy(), same.asnumpy())


def test_a_layer_can_name_its_filters(picture, options):
    found = fmi.invert.feature_map(picture, "relu2_1:3,1", **options)
    assert [inversion.record["filter"] for inversion in found] == [3, 1]
    same = fmi.invert.feature_map(picture, "relu2_1", [3, 1], **options)
    assert all(np.array_equal(a.array, b.array) for a, b in zip(found, same))
    with pytest.raises(InputError, match="filters are given twice"):
        fmi.invert.feature_map(picture, "relu2_1:3", 3, **options)
    with pytest.raises(InputError, match="'relu2_1:x' .*'relu3_2:4,17'"):
        fmi.invert.feature_map(picture, "relu2_1:x", **options)


def test_signatures_spell_out_every_keyword():
    for function in fmi.invert.__all__[1:]:
        shown = inspect.signature(getattr(fmi.invert, function)).parameters
        assert not any(p.kind is p.VAR_KEYWORD for p in shown.values())
        assert shown["precision"].default == "float32" and shown["steps"].default is None
        assert {*settings.field_names(Options), *settings.overridable()} <= set(shown)
        assert ("alpha" in shown) == (function in ("purposeful", "gatys"))
    keywords = Path(fmi.invert.__file__).with_name("keywords.py").read_text()
    assert keywords == signatures.module()  # python -m fmi.signatures > fmi/keywords.py


def test_the_picture_is_computed_once(picture, options):
    found = fmi.invert.code(picture, "relu1_1", **options)
    assert found.image is found.image and found.settings is found.record


def test_single_settings_and_presets(picture, options):
    found = fmi.invert.code(picture, "relu2_1", settings="paper", pool="max", **options)
    assert found.settings["settings"]["pool"] == "max"
    assert found.settings["settings"]["preset"] == "paper"
    same = fmi.invert.code(picture, "relu2_1", settings=PAPER, pool="max", **options)
    assert np.array_equal(found.array, same.array)
    other = fmi.invert.code(picture, "relu2_1", **options)
    assert np.abs(found.array - other.array).max() > 0.1


def test_several_layers_together(picture, options):
    found = fmi.invert.code(picture, ["relu1_1", "relu2_1"], **options)
    assert found.settings["layers"] == ["relu1_1", "relu2_1"]
    same = fmi.invert.code(picture, layers=["relu1_1", "relu2_1"], **options)
    assert np.array_equal(found.array, same.array)
    with pytest.raises(InputError, match="layer and layers="):
        fmi.invert.code(picture, "relu1_1", layers=["relu2_1"], **options)
    alone = [fmi.invert.code(picture, n, **options).loss[0] for n in ("relu1_1", "relu2_1")]
    assert found.loss[0] == pytest.approx(sum(alone), rel=1e-4)


def test_a_style_of_its_own_size_asks_for_as_much_energy_a_position(picture, options):
    """In preset PAPER a style twice as large, of the same texture, asks for the same."""
    tile = smooth_picture(32, 32, seed=4)
    once, twice = np.tile(tile, (3, 3, 1)), np.tile(tile, (6, 6, 1))
    paper = {**options, "settings": "paper", "style_layers": ("relu1_1",), "anti_aliasing": False}
    small = fmi.invert.purposeful(once[:32, :32], once[:32, :32], **{**paper, "long_edge": 32})
    assert small.loss[0] > 0
    for function in (fmi.invert.purposeful, fmi.invert.gatys):
        options_32 = {**paper, "content_layer": "relu1_1", "long_edge": 96}
        one = function(once, once, **options_32)
        two = function(once, twice[:96, :96], **options_32)
        assert one.loss[0] == pytest.approx(two.loss[0], rel=1e-5)
        half = function(once, once[:, :64], **options_32)  # two thirds of the positions
        assert one.loss[0] == pytest.approx(half.loss[0], rel=0.1)
        assert function(once, 255 - once, **options_32).loss[0] != pytest.approx(
            one.loss[0], rel=0.01
        )


def test_silent_feature_maps_are_reported(arrays, options, tmp_path, caplog):
    dead = {k: v.copy() for k, v in arrays.items()}
    dead["conv1_1_weight"][1] = 0
    dead["conv1_1_bias"][1] = -1
    path = tmp_path / "dead.npz"
    np.savez(path, **dead)
    with caplog.at_level(logging.WARNING):
        (found,) = fmi.invert.random(
            smooth_picture(36, 48), "relu1_1", **{**options, "weights": path}
        )
    assert found.settings["silent_feature_maps"] == {"relu1_1": [1]}
    assert "relu1_1: 1 feature maps" in caplog.text and "stay 0: [1]" in caplog.text
    assert np.isfinite(found.array).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda p, o: fmi.invert.code(p, "relu3", **o), "layer of VGG-19 'relu3'; did you mean"),
        (lambda p, o: fmi.invert.code(p, [], **o), "no layer is given"),
        (lambda p, o: fmi.invert.code(p, 3, **o), "layer=3 must be a name such as 'relu3_2'"),
        (lambda p, o: fmi.invert.feature_map(p, "relu1_2", "al", **o), "ranges such as 0-15"),
        (
            lambda p, o: fmi.invert.feature_map(p, "relu1_1", [0, 4], **o),
            "relu1_1 has no filter 4; its filters are numbered 0 to 3",
        ),
        (lambda p, o: fmi.invert.feature_map(p, "relu1_1", -1, **o), "relu1_1 has no filter -1"),
        (lambda p, o: fmi.invert.feature_map(p, "relu1_1", [], **o), "no filter is given"),
        (
            lambda p, o: fmi.invert.random(p, "relu1_1", draws=0, **o),
            "draws=0 must be at least 1",
        ),
        (lambda p, o: fmi.invert.code(p, "relu1_1", seed=-1, **o), "seed=-1 must be at least 0"),
        (
            lambda p, o: fmi.invert.code(p, "relu1_1", step=3, **o),
            "keyword 'step'; did you mean steps",
        ),
        (
            lambda p, o: fmi.invert.activations(p, "relu1_1", mask=p, **o),
            "and activations has neither",
        ),
        (lambda p, o: fmi.invert.gatys(p, p, stylelayers="x", **o), "did you mean style_layers"),
        (lambda p, o: fmi.invert.gatys(p, p, style_layers="x", **o), "layer of VGG-19 'x'"),
        (lambda p, o: fmi.invert.code("no.png", "relu1_1", **o), "no.png cannot be read"),
        (
            lambda p, o: fmi.invert.code(p, "relu5_1", **{**o, "long_edge": 20}),
            "too small for relu5_1: each side must have at least 16 pixels",
        ),
        (lambda p, o: fmi.invert.code(p, "relu1_1", ctx="gpu(99)", **o), "ctx='gpu(99)'"),
        (lambda p, o: fmi.invert.code(p, "relu1_1", precision="half", **o), "unknown precision"),
        (
            lambda p, o: fmi.invert.code(p, "relu1_1", precision="float16", **o),
            "precision='float16' needs a GPU",
        ),
    ],
)
def test_what_cannot_be_used_is_refused(picture, options, call, message):
    with pytest.raises(InputError) as error:
        call(picture, options)
    assert message in str(error.value)


WRONG = {
    "layer": [3, True, b"relu1_1", [3], [["relu1_1"]], {"relu1_1": 1}, "", "relu1_1:1.5", "a\0b"],
    "filters": [
        "x",
        "5-2",
        0.0,
        [0.5],
        [np.float32(1)],
        np.array([[0]]),
        True,
        [True],
        {0},
        [None],
        10**30,
    ],
    "chain": ["perhaps", 3, None],
    "progress": ["perhaps", 3],
    "callback": [3, "print"],
    "seed": ["1", 1.5, True, None, float("nan"), 10**30],
    "ctx": [3, b"cpu", "cpu(7)", "gpu(99999999999999999999)"],
    "precision": [3, b"float32", []],
    "settings": [["code"], 3, {}, ""],
    "weights": [3, None, [], np.zeros((4, 4, 3), np.uint8), "x" * 5000, "a\0b"],
    "network": [3, [], "", "x" * 5000],
    "store": [3, "results"],
    "init": [3, np.full((36, 48, 3), np.inf), np.full((36, 48, 3), 1e30), "a\0b"],
    "steps": [float("inf"), 1.5, True, 10**30, "9" * 5000],
    "long_edge": [10**12, 1.5, [1]],
    "learning_rate": [1e300, 0, "fast"],
}


@pytest.mark.parametrize(
    ("name", "value"), [(n, value) for n, values in WRONG.items() for value in values]
)
def test_values_of_the_wrong_kind_are_named(picture, options, name, value):
    given = {"picture": picture, "layer": "relu1_1", "filters": 0, **options, name: value}
    if name == "network":
        del given["weights"]
    with pytest.raises(InputError) as error:
        fmi.invert.feature_map(given.pop("picture"), given.pop("layer"), **given)
    text = str(error.value)
    assert name.rstrip("s") in text.lower() or "device" in text or "long_edge" in text
    assert len(text) < 600 and "\n" not in text


@pytest.mark.parametrize("draws", ["2", 1.5, 2.0, float("nan"), 0, -1, True, None, 10**30])
def test_draws_must_be_a_whole_number(picture, options, draws):
    with pytest.raises(InputError, match="^draws="):
        fmi.invert.random(picture, "relu1_1", draws, **options)


def test_whole_layers_have_no_filters(picture, options):
    for function in (fmi.invert.code, fmi.invert.random, fmi.invert.activations):
        with pytest.raises(InputError, match="'relu1_1:3' names filters"):
            function(picture, "relu1_1:3", **options)


def test_a_style_is_needed(picture, options):
    with pytest.raises(InputError, match="picture must be .* not NoneType"):
        fmi.invert.gatys(picture, None, **options)


def test_errors_of_a_callback_pass_through(picture, options):
    class MineError(Exception):
        pass

    def fails(state):
        raise MineError

    with pytest.raises(MineError):
        fmi.invert.code(picture, "relu1_1", callback=fails, **options)


@pytest.mark.parametrize("name, kind", [("x.jpg", "JPEG"), ("x.JPEG", "JPEG"), ("x.webp", "WEBP")])
def test_save_in_smaller_formats(name, kind, picture, options, tmp_path):
    found = fmi.invert.code(picture, "relu1_1", **options)
    found.save(tmp_path / name, undenoised=True)
    before = f"x_undenoised{(tmp_path / name).suffix}"
    assert {path.name for path in tmp_path.iterdir()} == {name, before, "x.json"}
    for file, wanted in ((name, found.image), (before, found.undenoised)):
        with Image.open(tmp_path / file) as image:
            assert (image.format, image.size) == (kind, found.image.size)
            off = np.asarray(image.convert("RGB"), float) - np.asarray(wanted, float)
        assert np.abs(off).mean() < 3, file
    assert json.loads((tmp_path / "x.json").read_text())["loss"] == found.loss


def test_jpeg_keeps_the_resolution_of_colours(tmp_path):
    pixels = np.zeros((32, 32, 3), np.uint8)
    pixels[:, ::2, 0] = pixels[:, 1::2, 2] = 200
    pictures.save(tmp_path / "x.jpg", pixels)
    off = np.asarray(Image.open(tmp_path / "x.jpg"), float) - pixels
    assert np.abs(off).mean() < 6


def test_a_picture_too_long_for_its_format_is_refused(tmp_path):
    pixels = np.zeros((2, 16_384, 3), np.uint8)
    with pytest.raises(InputError, match=r"16384 x 2 .*WEBP.*16383.*\.png"):
        pictures.save(tmp_path / "x.webp", pixels)
    assert not list(tmp_path.iterdir())
    pictures.save(tmp_path / "x.png", pixels)


def test_save_refuses_what_cannot_be_written(picture, options, tmp_path):
    found = fmi.invert.code(picture, "relu1_1", **options)
    for wrong in (
        3,
        None,
        "a\0b.png",
        "x" * 5000 + ".png",
        "/dev/null/x.png",
        "/dev/null/x.jpg",
        "x.gif",
        "",
    ):
        with pytest.raises(InputError):
            found.save(wrong)
    for extra in (object(), float("nan"), {1}, b"x", np.zeros(3)):
        with pytest.raises(InputError, match="JSON"):
            found.save(tmp_path / "x.png", more=extra)
    assert not list(tmp_path.iterdir())


def test_the_undenoised_picture_is_not_the_denoised_one(picture, options, tmp_path):
    found = fmi.invert.code(picture, "relu1_1", **options)
    found.save(tmp_path / "x.png", undenoised=True)
    with Image.open(tmp_path / "x_undenoised.png") as image:
        assert np.array_equal(np.asarray(image), pictures.eight_bits(found.array))
    with Image.open(tmp_path / "x.png") as image:
        wanted = pictures.denoised(pictures.eight_bits(found.array), 0.2)
        assert np.array_equal(np.asarray(image), wanted)


def test_a_batch_is_as_large_as_memory_allows(picture, options, monkeypatch):
    sizes = []
    minimise = descent.minimise

    def counted(network, loss, *rest, **more):
        sizes.append(loss.pictures)
        return minimise(network, loss, *rest, **more)

    monkeypatch.setattr(descent, "minimise", counted)
    need = request.code(picture, "relu2_1", None, options).call._need(48)
    for pictures_, groups in ((1.1, [1, 1, 1, 1, 1]), (2.5, [2, 2, 1]), (5.1, [5])):
        free = int(need * pictures_ / Options.memory)
        monkeypatch.setattr(call, "free_memory", lambda _, free=free: free)
        sizes.clear()
        fmi.invert.feature_map(picture, "relu2_1", [0, 1, 2, 3, 4], **options)
        assert sizes == groups
    assert need > 48 * 36 * 4 * 4 * 5  # two relus of four and five maps, their gradients ...


def test_weights_that_lack_the_layer(arrays, picture, tmp_path):
    path = tmp_path / "vgg19_start.npz"
    np.savez(path, **{k: v for k, v in arrays.items() if k.startswith(("conv1", "conv2_1"))})
    fmi.invert.code(picture, "relu2_1", weights=path, **QUICK)
    with pytest.raises(InputError, match="lacks conv2_2"):
        fmi.invert.code(picture, "relu3_1", weights=path, **QUICK)


def test_a_changed_record_leaves_the_next_one_as_it_is(picture, options):
    first = fmi.invert.code(picture, "relu1_1", **options)
    before = dict(first.record["versions"])
    first.record["versions"]["python"] = "another"
    assert fmi.invert.code(picture, "relu1_1", **options).record["versions"] == before


def test_a_changed_record_leaves_those_of_the_same_call_as_they_are(picture, options):
    one, two = fmi.invert.feature_map(picture, "relu1_1", [0, 1], **options)
    before = json.dumps(two.record)
    one.record["settings"]["denoise"] = 0
    one.record["pictures"]["content"]["name"] = "another"
    one.record["layers"].append("another")
    assert json.dumps(two.record) == before


# --- in Jupyter ---


def test_what_jupyter_shows(picture, options):
    found = fmi.invert.feature_map(picture, "relu2_1", [1, 3], **options)
    assert isinstance(found, list) and found[:1] == [found[0]]
    text = found[0]._repr_html_()
    for fact in (
        "relu2_1:1",
        "data:image/png;base64,",
        "<polyline",
        "alt=",
        "preset",
        "energy share",
    ):
        assert fact in text
    sheet = found._repr_html_()
    assert sheet.count("<img") == 2 and "relu2_1:1" in sheet and "relu2_1:3" in sheet
    assert fmi.invert.code(picture, "relu2_1", **options).title == "code, relu2_1"
    assert fmi.invert.random(picture, "relu2_1", 2, **options)[1].title == "random 1, relu2_1"


def test_names_are_escaped_in_html():
    from fmi import notebook

    text = notebook.card(b"x", '<script>"', [1.0, 0.5], {"<b>": "<i>"})
    assert "<script>" not in text and "<i>" not in text and 'alt="&lt;script&gt;&quot;"' in text
    assert "<polyline" not in notebook.card(b"x", "t", [float("nan"), 2.0], {})
    points = notebook.curve([100.0, 10.0, 1.0]).split('points="')[1].split('"')[0]
    assert points == "0.0,0.0 110.0,45.0 220.0,90.0"  # a straight line: the scale is logarithmic
    assert notebook.curve([-1.0, -3.0]).count("-") > 0


def test_pictures_by_name(tmp_path, monkeypatch):
    given = {"weights": "embedded", "long_edge": 32, "steps": 1, "progress": False}
    Image.fromarray(smooth_picture(30, 40)).save(tmp_path / "my-photo.png")
    monkeypatch.setenv("FMI_PICTURES", str(tmp_path))
    named = fmi.invert.code("my_photo", "relu1_1", **given)
    path = fmi.invert.code(tmp_path / "my-photo.png", "relu1_1", **given)
    assert named.array.tobytes() == path.array.tobytes()
    coffee = fmi.invert.code("skimage:coffee", "relu1_1", **given)
    assert coffee.record["pictures"]["content"]["name"] == "coffee"
    with pytest.raises(InputError, match="nowhere"):
        fmi.invert.code("nowhere", "relu1_1", **given)


def test_mxnet_whose_import_has_failed_before():
    code = (
        "try:\n    import mxnet\nexcept AttributeError:\n    pass\n"
        "import fmi.invert, mxnet\nprint(mxnet.nd.ones(2).sum().asscalar())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "2.0\n"), done.stderr


def test_all_filters_beside_those_of_a_layer_are_given_twice(picture, options):
    with pytest.raises(InputError, match="twice"):
        fmi.invert.feature_map(picture, "relu1_1:1", "all", **options)


def test_sums_of_negative_activations_are_no_shares_of_energy(picture):
    given = {"weights": "embedded", "long_edge": 40, "steps": 2, "progress": False}
    (linear,) = fmi.invert.feature_map(picture, "conv1_1", 1, **given)
    (rectified,) = fmi.invert.feature_map(picture, "relu1_1", 1, **given)
    assert linear.energy_share is None and linear.explained is not None
    assert 0 <= rectified.energy_share <= 1


@pytest.mark.parametrize("steps", [3, 10])
def test_a_descent_by_lbfgs_that_runs_out_of_steps_says_so(picture, steps):
    given = {"weights": "embedded", "settings": "code", "descent": "lbfgs", "progress": False}
    found = fmi.invert.code(picture, "relu2_1", steps=steps, long_edge=40, **given)
    assert (found.stopped, found.steps) == ("steps", steps)
