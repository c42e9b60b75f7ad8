"""fmi repeat: every picture again from its record, and what is told or refused otherwise."""

import copy
import json
import logging
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import random_arrays, smooth_picture
from PIL import Image

import fmi.invert
from fmi import cli, inversion, records, repetition, request
from fmi.call import Call
from fmi.device.mxnet import mx
from fmi.device.precision import Precision
from fmi.errors import InputError

SMALL = {"weights": "embedded", "long_edge": 32, "steps": 2, "stop": 0, "progress": False}
REASONED = Precision("float32", "as precision='auto' gives it")
invert = fmi.invert


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder, with pictures."""
    for seed, name in enumerate(("photo", "painting", "other", "first")):
        Image.fromarray(smooth_picture(40, 48, seed)).save(tmp_path / f"{name}.png")
    Image.radial_gradient("L").resize((48, 40)).save(tmp_path / "mask.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def directions(channels):
    found = np.random.RandomState(0).normal(size=(3, channels))
    assert (np.linalg.norm(found / np.linalg.norm(found, axis=1)[:, None], axis=1) != 1).any()
    return found


CASES = {
    "code": lambda: invert.code(
        "photo.png", ["relu1_2", "relu2_1"], seed=3, pool="max", precision=REASONED, **SMALL
    ),
    "settings": lambda: invert.code(
        "photo.png", "relu1_1", settings="paper", momentum=0.8, **SMALL
    ),
    "content": lambda: invert.code("photo.png", "relu1_1", init="content", denoise=0, **SMALL),
    "filters": lambda: invert.feature_map("photo.png", "relu2_1", [3, 1], batch=2, **SMALL),
    "chain": lambda: invert.feature_map("photo.png", "relu2_1", [3, 1, 4], True, **SMALL),
    "direction": lambda: invert.direction("photo.png", "relu2_1", directions(channels()), **SMALL),
    "draws": lambda: invert.random("photo.png", ["relu1_1", "relu2_1"], 3, seed=7, **SMALL),
    "purposeful": lambda: invert.purposeful(
        "photo.png", "painting.png", settings="fast", preserve_color=True, beta=2.5, **SMALL
    ),
    "styles": lambda: invert.gatys(
        "photo.png",
        ["painting.png", "other.png", "photo.png"],
        style_weights=[0.7, 0.2, 0.15],
        strength=0.3,
        style_layers=["relu1_1", "relu2_1"],
        **SMALL,
    ),
    "rank_match": lambda: invert.rank_match("photo.png", "painting.png", "relu2_1", **SMALL),
    "maximise": lambda: invert.maximise(
        "photo.png", ["relu1_2", "relu2_1"], [2, 5], jitter=1, total_variation=1e-4, **SMALL
    ),
}


def channels():
    return (
        request.code("photo.png", "relu2_1", None, dict(SMALL))
        .call.network.layer("relu2_1")
        .channels
    )


@pytest.fixture
def one(folder):
    """The record of a picture, and its JSON file."""
    found = invert.code("photo.png", "relu1_1", **SMALL)
    found.save("out/one.png")
    return folder / "out/one.json"


def run(*words):
    return cli.main(["repeat", *map(str, words)])


def last(capsys):
    return capsys.readouterr().err.splitlines()[-1]


@pytest.fixture
def told(caplog):
    """A function that returns what has been logged last."""
    caplog.set_level(logging.INFO)
    return lambda: caplog.messages[-1]


@pytest.mark.parametrize("name", CASES)
def test_each_function_gives_the_same_bits(name, folder, caplog):
    caplog.set_level(logging.INFO)
    found = CASES[name]()
    for number, one in enumerate(found if isinstance(found, list) else [found]):
        one.save(f"{number}.png")
        for file in (f"{number}.json", f"{number}.png"):
            again = repetition.repeat(repetition.read(file), progress=False)
            np.testing.assert_array_equal(again.array, one.array)
            assert again.loss == one.loss
            assert records.key(again.record) == records.key(one.record)
            assert again.record == one.record
            assert caplog.messages[-1] == "the record: the same computation; the same outcome"


def test_init_and_mask_are_given(folder, capsys, told):
    first = np.random.RandomState(0).uniform(-9, 260, (20, 20, 3)).astype(np.float32)
    np.save("first.npy", first)
    common = {**SMALL, "mask": "mask.png"}
    for number, init in enumerate((first, "first.png")):
        style = invert.purposeful("photo.png", "painting.png", init=init, **common)
        style.save(f"{number}.png")
        file = "first.npy" if number == 0 else init
        right = ["--picture", f"init={file}", "--picture", "mask=mask.png"]
        assert run(f"{number}.json", *right) == 0
        assert capsys.readouterr().out == f"{number}_repeated.png\n"
        assert told().endswith("the same computation; the same outcome")
        again = json.loads(Path(f"{number}_repeated.json").read_text())
        assert again["loss"] == style.loss
        for words, fact in (
            (right[:2], "mask=FILE"),
            (right[2:], "init=FILE"),
            (["--picture", "init=photo.png", *right[2:]], "given as init"),
            ([*right[:2], "--picture", "mask=photo.png"], "given as mask"),
            ([*right, "--picture", "style_2=photo.png"], "style_2"),
            ([*right, *right], "twice"),
        ):
            assert run(f"{number}.json", *words, "-o", "no.png") == 2
            assert fact in last(capsys)
    assert not Path("no.png").exists()


def test_command_and_where_the_result_goes(one, capsys, told):
    before = one.read_bytes()
    assert run(one) == 0
    assert capsys.readouterr().out == "one_repeated.png\n"
    assert Path("one_repeated.png").read_bytes() == one.with_suffix(".png").read_bytes()
    assert Path("one_repeated.json").read_bytes() == before
    assert run(one.with_suffix(".png"), "-o", "new/folder") == 0
    assert capsys.readouterr().out == "new/folder/one_repeated.png\n"
    for out in ("out/one.png", Path("out/one.png").absolute()):
        assert run(one, "-o", out) == 2
        assert "replace" in last(capsys)
    shutil.copy("out/one.png", "alone.png")
    assert run("alone.png", "--ctx", "cpu", "--memory", "1e9") == 0
    assert "same computation" in told()
    assert one.read_bytes() == before


def test_pictures_are_found_by_name_and_digest(one, folder, capsys, told):
    (folder / "photo.png").rename(folder / "out/photo.png")  # beside the JSON
    shutil.copy("other.png", "out/photo.bmp.png")
    Image.open("other.png").save("out/photo.bmp")  # the same name, earlier in the alphabet
    assert run(one) == 0
    (folder / "out/photo.png").rename(folder / "moved.png")
    capsys.readouterr()
    assert run(one, "-o", "no.png") == 2
    error = last(capsys)
    assert "photo.bmp is another picture" in error and "--picture content=FILE" in error
    (folder / "out/photo.bmp").unlink()
    assert run(one, "-o", "no.png") == 2
    assert "was not found" in last(capsys)
    for text in ("moved.png", "content=moved.png"):
        assert run(one, "--picture", text) == 0
        assert "same computation" in told()
    for text, fact in (
        ("content=other.png", "is not the content picture"),
        ("other.png", "none of the pictures"),
        ("content=gone.png", "gone.png"),
        ("style=moved.png", "'style'"),
        ("content=first.npy", "first.npy"),
        ("*.png", "files match"),
    ):
        assert run(one, "--picture", text, "-o", "no.png") == 2
        assert fact in last(capsys)
    assert not Path("no.png").exists()


def test_pictures_of_scikit_image_and_arrays(folder, capsys, told):
    found = invert.code(fmi.pictures.find("skimage:immunohistochemistry", []), "relu1_1", **SMALL)
    found.save("ihc_code.png")
    assert run("ihc_code.json") == 0
    pixels = smooth_picture(40, 48, 0)
    invert.code(pixels, "relu1_1", **SMALL).save("array.png")
    assert run("array.png", "-o", "no.png") == 2
    assert "'array'" in last(capsys)
    assert run("array.png", "--picture", "photo.png") == 0  # a file with the same pixels
    assert "the same computation" in told()


def test_the_network_is_checked(folder, small_weights, tmp_path, capsys, told, monkeypatch):
    invert.code("photo.png", "relu1_1", **{**SMALL, "weights": small_weights}).save("a.png")
    assert run("a.json", "-o", "no.png") == 2
    error = last(capsys)
    assert "'small'" in error and "--weights" in error
    assert run("a.json", "--weights", "embedded", "-o", "no.png") == 2
    assert "'embedded' has the sha256" in last(capsys)
    other = tmp_path / "other.npz"
    np.savez(other, **random_arrays(seed=4))
    assert run("a.json", "--weights", other, "-o", "no.png") == 2
    assert "'other' has the sha256" in last(capsys)
    assert run("a.json", "--weights", small_weights) == 0
    assert "the same outcome" in told()
    monkeypatch.setenv("FMI_MODELS", str(small_weights.parent))  # by name, with the digest
    assert run("a.json") == 0
    assert not Path("no.png").exists()


def test_any_network_with_its_input(folder, capsys, told):
    network = mx.gluon.nn.HybridSequential(prefix="net_")
    network.add(mx.gluon.nn.Conv2D(4, 3, activation="relu"), mx.gluon.nn.Conv2D(4, 3))
    network.initialize(mx.init.Xavier())
    network.hybridize()
    network(mx.nd.zeros((1, 3, 32, 32)))
    network.export("net")
    names = [one.name for one in fmi.networks.catalogue.load("net", input="caffe").layers]
    common = {k: v for k, v in SMALL.items() if k != "weights"}
    how = fmi.networks.base.Input("BGR", 255.0, (100.0, 110.0, 120.0), (50.0, 60.0, 70.0))
    found = invert.code("photo.png", names[-1], network="net", input=how, **common)
    style = invert.gatys("photo.png", "painting.png", network="net", input="caffe", **common)
    for number, one in enumerate((found, style)):
        one.save(f"{number}.png")
        assert run(f"{number}.json", "-o", "no.png") == 2
        assert "--network" in last(capsys)
        assert run(f"{number}.json", "--network", "net") == 0
        assert "the same computation; the same outcome" in told()
        assert json.loads(Path(f"{number}_repeated.json").read_text())["loss"] == one.loss


def test_another_layer_of_the_same_name_is_refused(folder, caplog):
    caplog.set_level(logging.INFO)
    networks = []
    for first in (0, 1):
        mx.random.seed(0)
        block = mx.gluon.nn.HybridSequential()
        for number in (first, first + 1):
            channels = 4 if len(block) else 3
            block.add(mx.gluon.nn.Conv2D(4, 3, in_channels=channels))
            block.add(mx.gluon.nn.Activation("relu", prefix=f"relu{number}_"))
        block.initialize(mx.init.Xavier())
        networks.append(fmi.networks.catalogue.load(block, input="caffe"))
    one, two = networks
    common = {k: v for k, v in SMALL.items() if k != "weights"}
    record = invert.code("photo.png", "relu1", network=one, **common).record
    for old in (record, {name: value for name, value in record.items() if name != "nodes"}):
        repetition.repeat(old, network=one, progress=False)
        assert caplog.messages[-1] == "the record: the same computation"
    with pytest.raises(InputError, match="its relu1 would be another layer"):
        repetition.repeat(record, network=two, progress=False)
    other = invert.code("photo.png", "relu1", network=two, **common).record
    compared = repetition.compare(record, other)
    assert not compared.same and compared.entries == ("nodes [8] -> [4]",)
    shallow = invert.code("photo.png", "relu0", network=one, **common).record
    with pytest.raises(InputError, match="relu0"):
        repetition.repeat(shallow, network=two, progress=False)


def test_what_differs_is_told(one, told, monkeypatch):
    now = {**inversion.versions(), "numpy": "99.1", "fmi_source": "f" * 64}
    with monkeypatch.context() as patch:
        patch.setattr("fmi.call.versions", lambda: now)
        assert run(one) == 0
        text = told()
    old = inversion.versions()
    assert f"other versions: fmi_source {old['fmi_source'][:12]} -> {'f' * 12}, numpy" in text
    assert f"numpy {old['numpy']} -> 99.1; the same outcome" in text
    record = json.loads(one.read_text())
    record["outcome"]["final_loss"] += 1
    one.write_text(json.dumps(record))
    assert run(one) == 0
    assert "the same computation; another outcome, as with another CPU" in told()
    assert "number of threads: final_loss" in told()
    record["rotation"] = {"angle": 3}
    one.write_text(json.dumps(record))
    assert run(one) == 0
    assert "not the same computation: rotation.angle 3 -> nothing" in told()
    del record["outcome"], record["rotation"]
    record["key"] = records.key(record)
    record["settings"]["content_scale"] = 256  # as JavaScript writes 256.0
    one.write_text(json.dumps(record))
    assert run(one) == 0
    assert told() == f"{one}: the same computation"


def test_a_repetition_that_does_not_come_to_its_end(folder, capsys, monkeypatch):
    found = invert.feature_map("photo.png", "relu2_1", [3, 1], True, **SMALL)
    found[1].save("chain.png")
    invert.code("photo.png", "relu1_1", **SMALL).save("code.png")
    calls = []

    def ended(self, *arguments, invert=Call.invert, **more):
        calls.append(None)
        (one,) = invert(self, *arguments, **more)
        one.stopped = how
        return [one]

    monkeypatch.setattr(Call, "invert", ended)
    how = "interrupted"
    assert run("chain.json") == run("code.json") == 130
    assert len(calls) == 2  # the chain has not been continued
    how = "diverged"
    assert run("chain.json") == 2
    assert "filter 3, before 1 in the chain, has diverged" in last(capsys)
    assert run("code.json") == 2
    assert "has diverged, which it had not" in last(capsys)
    assert not list(folder.glob("*_repeated*"))


# --- damaged and hostile records ---


def changed(path, value):
    """A change of a record: the entry at a path becomes a value, or is removed."""

    def change(record):
        *way, name = path.split(".")
        for part in way:
            record = record[part]
        if value is KeyError:
            del record[name]
        else:
            record[name] = value

    change.__name__ = f"{path}={str(value)[:20]}".encode("unicode_escape").decode()
    return change


BAD = [
    *[changed(name, KeyError) for name in ("function", "layers", "settings", "seed", "pictures")],
    *[changed(name, KeyError) for name in ("network", "versions", "precision", "device")],
    changed("pictures.content", KeyError),
    changed("pictures.content.sha256", "../../x"),
    changed("pictures.style", {"name": "x", "sha256": "0" * 64}),
    changed("pictures", []),
    changed("network.sha256", "0" * 64),
    changed("network.sha256", None),
    changed("network", "embedded"),
    changed("network.name", "a\0b"),
    changed("function", "dream"),
    changed("function", "feature_map"),
    changed("function", "random"),
    changed("function", "direction"),
    changed("function", "gatys"),
    changed("layers", []),
    changed("layers", ["relu9_9"]),
    changed("layers", ["relu1_1:3"]),
    changed("layers", "relu1_1"),
    changed("layers", [["relu1_1"]]),
    changed("seed", -1),
    changed("seed", "0"),
    changed("seed", 10**400),
    changed("precision", "auto"),
    changed("precision", "float16"),
    changed("device", "tpu(0)"),
    changed("device", "gpu(99)"),
    changed("device", 0),
    changed("init", "x"),
    changed("init", "0" * 64),
    changed("mask", 3),
    changed("preserve_color", "yes"),
    changed("versions", {"numpy": 1}),
    changed("settings.steps", KeyError),
    changed("settings.steps", "2"),
    changed("settings.steps", True),
    changed("settings.steps", 1e300),
    changed("settings.steps", 0),
    changed("settings.long_edge", 10**9),
    changed("settings.long_edge", None),
    changed("settings.pool", "median"),
    changed("settings.pool", ["avg"]),
    changed("settings.learning_rate", [[]]),
    changed("settings.rotation", 3),
    changed("settings", [1]),
    changed("settings.\n", 3),
]


@pytest.mark.parametrize("change", BAD, ids=lambda change: change.__name__)
def test_a_record_that_cannot_be_repeated(change, one, capsys):
    record = json.loads(one.read_text())
    change(record)
    refused(one, json.dumps(record), capsys)


def test_a_place_that_cannot_be_repeated(folder, capsys):
    places = invert.feature_map("photo.png", "relu2_1", [3, 1], True, **SMALL)
    along = invert.direction("photo.png", "relu2_1", directions(channels()), **SMALL)
    style = invert.gatys("photo.png", ["painting.png", "other.png"], **SMALL)
    cases = [
        (places[1], changed("filter", 9999)),
        (places[1], changed("filter", -1)),
        (places[1], changed("filter", 1.5)),
        (places[1], changed("filters_before", [0, 10**6])),
        (places[1], changed("filters_before", "3")),
        (places[1], changed("chain", "true")),
        (along[0], changed("direction", [1.0])),
        (along[0], changed("direction", [])),
        (along[0], changed("direction", [0.0] * channels())),
        (along[0], changed("direction", [1.0] * channels())),
        (along[0], changed("layers", ["relu1_1", "relu2_1"])),
        (style, changed("style_weights", KeyError)),
        (style, changed("style_weights", [1.0])),
        (style, changed("style_weights", [-1.0, 2.0])),
        (style, changed("strength", 1.5)),
        (style, changed("pictures.style_3", {"name": "x", "sha256": "0" * 63})),
        (style, changed("pictures.style_9", {"name": "x", "sha256": "0" * 64})),
        (style, changed("settings.style", {"factor": 1.0, "channels": 10**9, "positions": 0})),
        (style, changed("settings.style.power", 2)),
        (style, changed("settings.style", None)),
        (style, changed("settings.style_layers", "relu1_1")),
        (style, changed("settings.style_layers", [])),
        (style, changed("settings.content_layer", "relu9_9")),
        (style, changed("settings.alpha", KeyError)),
    ]
    for found, change in cases:
        record = copy.deepcopy(found.describe())
        change(record)
        refused(folder / "bad.json", json.dumps(record), capsys)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "3",
        '"code"',
        "{}",
        '{"panels": [], "figure": "fig3"}',
        '{"finished": 12, "seconds": 3.5}',
        "[" * 100_000,
        '{"a":' * 5000 + "1" + "}" * 5000,
        '{"function": "code", "a": ' + "[" * 40 + "]" * 40 + "}",
        '{"function": NaN}',
        '{"seed": 1e999}',
        '{"seed": ' + "9" * 5000 + "}",
        "\x00\x01\x02",
        "\x89PNG\r\n\x1a\n and no more",
    ],
    ids=lambda text: text[:12],
)
def test_a_file_without_a_record(text, folder, capsys):
    refused(folder / "bad.json", text, capsys)


def test_numbers_that_json_lacks(one, capsys):
    text = one.read_text()
    for value in ("NaN", "-Infinity", "1e999"):
        refused(one, text.replace('"seed": 0', f'"seed": 0, "note": {value}'), capsys)


def refused(path, text, capsys):
    """Check that the text is refused in one line, and that nothing is written."""
    path.write_text(text, encoding="latin-1")
    before = {file for file in path.parent.parent.rglob("*") if file.is_file()}
    capsys.readouterr()
    assert run(path, "-o", "new/result.png") == 2
    written, error = capsys.readouterr()
    assert written == "" and "Traceback" not in error
    assert error.splitlines()[-1].startswith("fmi: ") and len(error) < 1500
    assert {file for file in path.parent.parent.rglob("*") if file.is_file()} == before
    assert not Path("new").exists()


def test_other_files_that_cannot_be_read(folder, capsys):
    (folder / "folder.json").mkdir()
    for name in ("gone.json", "folder.json", "photo.png", "x" * 300, "/dev/zero"):
        assert run(name, "-o", "new/result.png") == 2
        assert last(capsys).startswith("fmi: ")
    assert "no record of fmi" in (run("photo.png"), last(capsys))[1]
    assert not Path("new").exists()


def test_python_users_are_told_too(folder):
    found = invert.code("photo.png", "relu1_1", **SMALL)
    picture = fmi.pictures.read("photo.png")
    Path("photo.png").unlink()
    again = repetition.repeat(found.record, {"content": picture}, progress=False)
    np.testing.assert_array_equal(again.array, found.array)
    for record in (None, [], {}, {"function": {1, 2}}, {**found.record, "x": float("nan")}):
        with pytest.raises(InputError, match="record"):
            repetition.repeat(record)
    with pytest.raises(InputError, match="rotate"):
        repetition.repeat({**found.record, "pictures": {"rotate": {}}})


def test_the_help_is_quick():
    code = "import sys; from fmi.cli import main\ntry: main(['repeat', '--help'])\n"
    code += "except SystemExit: pass\nprint({'mxnet', 'pydantic'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "--picture" in done.stdout and done.stdout.splitlines()[-1] == "set()"
