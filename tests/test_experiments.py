"""Each figure the whole way on a small network and small pictures, through the command line."""

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fmi import cli, descent
from fmi.device.mxnet import mx
from fmi.errors import InputError
from fmi.runs import experiment

HERE = Path(__file__).parent.parent / "experiments"
QUICK = ("LONG_EDGE=48", "STEPS=4", "STOP=0")


def draw(figure, results, small_weights, picture_folder, *overrides):
    common = (f"WEIGHTS={small_weights}", f"PICTURES={picture_folder}", f"RESULTS={results}")
    return cli.main(["draw", str(HERE / f"{figure}.yaml"), *common, *QUICK, *overrides])


def files(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def check_sheet(results, figure, width_over_height):
    with Image.open(results / f"{figure}.png") as sheet:
        assert sheet.width / sheet.height == pytest.approx(width_over_height, rel=0.15)
        assert np.asarray(sheet.convert("RGB")).std() > 10
    assert (results / f"{figure}.pdf").read_bytes().startswith(b"%PDF")


def check_panels(results, wanted):
    found = {p.relative_to(results).with_suffix("").as_posix() for p in results.rglob("*.json")}
    assert found == set(wanted)
    for stem in wanted:
        record = json.loads((results / f"{stem}.json").read_text())
        assert record["outcome"]["steps"] == len(record["loss"]) == 4
        assert record["settings"]["long_edge"] == 48
        assert len(record["network"]["sha256"]) == 64
        with Image.open(results / f"{stem}.png") as image:
            assert max(image.size) == 48
            assert json.loads(image.text["fmi"])["settings"] == record["settings"]
        with Image.open(results / f"{stem}_undenoised.png") as raw:
            assert np.asarray(raw).std() > 0


def test_fig1(tmp_path, small_weights, picture_folder):
    assert draw("fig1", tmp_path, small_weights, picture_folder, "TILES=4", "FILTERS=6") == 0
    check_sheet(tmp_path, "fig1", 3)
    stages = [tmp_path / f"{name}.png" for name in ("code", "isolated", "reallocated")]
    before, isolated, reallocated = (np.asarray(Image.open(p)).astype(int) for p in stages)
    assert before.shape == isolated.shape == reallocated.shape
    assert not np.array_equal(before, reallocated)
    record = json.loads((tmp_path / "isolated.json").read_text())
    assert (record["first_map"], record["maps"]) == (4, 4)
    half_height, half_width = (side // 2 for side in isolated.shape[:2])
    assert isolated[half_height + 4 :, : half_width - 4].max() > 0  # filter 6: the third tile


def test_fig2(tmp_path, small_weights, picture_folder):
    assert draw("fig2", tmp_path, small_weights, picture_folder) == 0
    check_sheet(tmp_path, "fig2", 2 * 4 / 3)


def test_fig3(tmp_path, small_weights, picture_folder):
    layers = ("relu1_2", "relu2_2", "relu3_2", "relu4_2", "relu5_2")
    assert draw("fig3", tmp_path, small_weights, picture_folder, "FILTERS=0,3") == 0
    pictures = ("golden_gate", "tubingen")
    check_panels(tmp_path, [f"{p}/{n}_filter{i}" for p in pictures for n in layers for i in (0, 3)])
    check_sheet(tmp_path, "fig3", 2 * 4 / (10 * 3))
    record = json.loads((tmp_path / "tubingen/relu2_2_filter3.json").read_text())
    assert (record["chain"], record["filters_before"]) == (True, [0])


def test_fig3_after_the_paper_is_not_chained(tmp_path, small_weights, picture_folder):
    options = ("LAYERS=relu2_2", "SETTINGS=paper")
    assert draw("fig3", tmp_path, small_weights, picture_folder, *options) == 0
    record = json.loads((tmp_path / "golden_gate/relu2_2_filter4.json").read_text())
    assert (record["chain"], record["settings"]["preset"]) == (False, "paper")


def test_fig4(tmp_path, small_weights, picture_folder):
    assert draw("fig4", tmp_path, small_weights, picture_folder) == 0
    layers = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")
    check_panels(tmp_path, [f"golden_gate/{n}_draw{i}" for n in layers for i in (0, 1)])
    check_sheet(tmp_path, "fig4", 5 * 4 / (2 * 3))


@pytest.mark.parametrize("settings", ["code", "paper"])
def test_fig5(tmp_path, small_weights, picture_folder, settings):
    options = (f"SETTINGS={settings}", "STYLES=starry_night,seated_nude")
    assert draw("fig5", tmp_path, small_weights, picture_folder, *options) == 0
    wanted = [
        f"{p}/{s}_{m}"
        for p in ("golden_gate", "tubingen")
        for s in ("starry_night", "seated-nude")
        for m in ("gatys", "purposeful")
    ]
    check_panels(tmp_path, wanted)
    check_sheet(tmp_path, "fig5", 5 * 4 / (2 * 3))


def test_same_settings_are_not_computed_again(tmp_path, small_weights, picture_folder, monkeypatch):
    options = ("LAYERS=relu1_2", "FILTERS=0,1", "CHAIN=0")
    assert draw("fig3", tmp_path, small_weights, picture_folder, *options) == 0
    before = files(tmp_path)
    calls = []
    minimise = descent.minimise

    def counted(network, loss, *rest, **more):
        calls.append(loss.pictures)
        return minimise(network, loss, *rest, **more)

    monkeypatch.setattr(descent, "minimise", counted)
    assert draw("fig3", tmp_path, small_weights, picture_folder, *options) == 0
    assert calls == []
    assert files(tmp_path) == before
    (tmp_path / "tubingen/relu1_2_filter1.png").unlink()
    assert draw("fig3", tmp_path, small_weights, picture_folder, *options) == 0
    assert calls == [1]
    assert files(tmp_path) == before  # the same seed gives the same bytes
    assert draw("fig3", tmp_path, small_weights, picture_folder, *options, "SEED=1") == 0
    assert calls == [1, 2, 2]


def test_same_seed_same_bytes_in_another_folder(tmp_path, small_weights, picture_folder):
    for name in ("one", "two"):
        assert draw("fig4", tmp_path / name, small_weights, picture_folder, "LAYERS=relu2_1") == 0
    assert files(tmp_path / "one") == files(tmp_path / "two")


def test_interrupt_keeps_finished_panels(
    tmp_path, small_weights, picture_folder, monkeypatch, capsys
):
    steps = []
    update = descent._show

    def interrupt(*arguments):
        steps.append(None)
        if len(steps) == 7:
            raise KeyboardInterrupt
        update(*arguments)

    monkeypatch.setattr(descent, "_show", interrupt)
    options = ("LAYERS=relu1_2", "FILTERS=0,1,2")
    assert draw("fig3", tmp_path, small_weights, picture_folder, *options) == 130
    assert [p.name for p in (tmp_path / "golden_gate").glob("*.json")] == ["relu1_2_filter0.json"]
    assert not (tmp_path / "fig3.png").exists()
    assert "finished panels are kept" in capsys.readouterr().err


def test_pictures_by_path(tmp_path, small_weights, picture_folder):
    path = picture_folder / "the_scream.png"
    options = (f"PICTURES={path}", "LAYERS=relu1_2", "FILTERS=0")
    assert draw("fig3", tmp_path, small_weights, picture_folder, *options) == 0
    assert (tmp_path / "the_scream/relu1_2_filter0.png").is_file()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("LAYRES=relu1_2", "unknown variable 'LAYRES'; did you mean LAYERS"),
        ("STYLES=the_scream", "unknown variable 'STYLES'"),
        ("LAYERS=relu9_9", "layer of VGG-19 'relu9_9'; "),
        ("FILTERS=0,4", "relu1_2 has no filter 4; its filters are numbered 0 to 3"),
        ("FILTERS=first", "filters='first' is not valid; give a value such as 0,1,2"),
        ("SEED=-1", "seed='-1' is not valid; give a value such as 0"),
        ("STEPS=few", "steps='few' must be a whole number"),
        ("SETTINGS=papr", "unknown settings 'papr'; did you mean paper"),
        ("PICTURES=mona_lisa", "picture 'mona_lisa' was not found in"),
        ("WEIGHTS=nowhere.npz", "weights nowhere.npz cannot be read: No such file"),
        ("CTX=gpu(99) FILTERS=0", "ctx='gpu(99)' requests a GPU that MXNet cannot use here"),
        ("CTX=tpu FILTERS=0", "unknown device 'tpu'; use 'cpu', 'gpu' or 'gpu(1)'"),
        (
            "PRECISION=double FILTERS=0",
            "unknown precision 'double'; known: float32, bfloat16, float16, auto",
        ),
        ("LAYERS", "'LAYERS' must have the form KEY=VALUE"),
        ("LONG_EDGE=8 FILTERS=0", "is 8 x 6 pixels after resizing, which is too small for relu4_2"),
    ],
)
def test_mistakes_get_one_line_and_nothing_is_written(
    tmp_path, small_weights, picture_folder, capsys, override, message
):
    results = tmp_path / "results"
    assert draw("fig3", results, small_weights, picture_folder, *override.split()) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("fmi: ")
    assert message in error
    assert not results.exists()


def test_unknown_key_in_yaml(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("figure: fig3\nlayer: relu1_2\n")
    with pytest.raises(InputError, match=r"unknown key in .*mine.yaml 'layer'; did you mean"):
        experiment.read(path)
    path.write_text("figure: fig3\npictures: [golden_gate]\nlayers: [relu1_2]\nchain: false\n")
    with pytest.raises(InputError, match="mine.yaml lacks the key 'filters'"):
        experiment.read(path)
    path.write_text("figure: fig9\n")
    with pytest.raises(InputError, match="'figure' must be one of fig1, fig2"):
        experiment.read(path)
    path.write_text("figure: [\n")
    with pytest.raises(InputError, match="mine.yaml cannot be read: while parsing"):
        experiment.read(path)
    with pytest.raises(InputError, match="none.yaml cannot be read"):
        experiment.read(tmp_path / "none.yaml")


@pytest.fixture(scope="session")
def exported(tmp_path_factory):
    """An exported pair of a small network with convolutions, poolings and BatchNorm."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from mxnet.gluon import nn
    block = nn.HybridSequential(prefix="small_")
    with block.name_scope():
        for filters in (5, 6, 7):
            block.add(nn.Conv2D(filters, 3, padding=1), nn.BatchNorm(), nn.Activation("relu"))
            block.add(nn.Conv2D(filters, 3, padding=1), nn.Activation("relu"), nn.MaxPool2D())
        block.add(nn.GlobalAvgPool2D(), nn.Dense(3))
    block.initialize(mx.init.Xavier(magnitude=2))
    block.hybridize()
    block(mx.nd.zeros((1, 3, 32, 32)))
    path = tmp_path_factory.mktemp("exported") / "small"
    block.export(str(path))
    return path


@pytest.mark.parametrize(
    ("figure", "options", "panels"),
    [
        ("fig1", (), None),
        ("fig3", ("FILTERS=0,3",), ["relu1_filter0", "relu3_filter3", "relu5_filter0"]),
        ("fig4", (), ["relu0_draw0", "relu2_draw1", "relu4_draw1"]),
        ("fig5", ("STYLES=starry_night",), ["starry_night_gatys", "starry_night_purposeful"]),
    ],
)
def test_every_figure_takes_any_network(
    tmp_path, exported, picture_folder, figure, options, panels
):
    words = (f"NETWORK={exported}", f"PICTURES={picture_folder}", f"RESULTS={tmp_path}")
    assert cli.main(["draw", str(HERE / f"{figure}.yaml"), *words, *QUICK, *options]) == 0
    assert (tmp_path / f"{figure}.png").is_file()
    for panel in panels or ():
        record = json.loads((tmp_path / f"golden_gate/{panel}.json").read_text())
        assert record["network"]["name"] == "small"
        assert record["settings"]["preset"] == "fast"
    if figure == "fig5":
        assert record["layers"] == ["relu3", "relu0", "relu2", "relu4"]


def test_layers_can_name_their_filters(tmp_path, small_weights, picture_folder):
    options = ("LAYERS=relu1_2:3,relu2_2:4", "PICTURES=skimage:coffee")
    assert draw("fig3", tmp_path, small_weights, picture_folder, *options) == 0
    found = {p.name for p in (tmp_path / "coffee").glob("*.json")}
    assert found == {"relu1_2_filter3.json", "relu2_2_filter4.json"}
    assert (tmp_path / "fig3.png").is_file()


def test_the_network_is_part_of_the_key(tmp_path, exported, picture_folder):
    words = (f"PICTURES={picture_folder}", f"RESULTS={tmp_path}", "LAYERS=relu0", "FILTERS=0")
    keys = set()
    for how in ("caffe", "imagenet"):
        run = [*words, f"NETWORK={exported}", f"INPUT={how}", *QUICK]
        assert cli.main(["draw", str(HERE / "fig3.yaml"), *run]) == 0
        keys.add(json.loads((tmp_path / "golden_gate/relu0_filter0.json").read_text())["key"])
    assert len(keys) == 2
