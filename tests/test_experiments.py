"""Each figure the whole way on a small network and small pictures, through the command line."""

import json
import os
import re
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fmi import cli, codes, descent, pictures, sheets
from fmi.device import environment
from fmi.device.mxnet import mx
from fmi.errors import InputError
from fmi.runs import experiment, figures

HERE = Path(__file__).parent.parent / "experiments"
QUICK = ("LONG_EDGE=48", "STEPS=4", "STOP=0")
COARSE = ("LEARNING_RATE=3", "DENOISE=0")  # so that four steps make pictures that differ


def draw(figure, results, small_weights, picture_folder, *overrides):
    common = (f"WEIGHTS={small_weights}", f"PICTURES={picture_folder}", f"RESULTS={results}")
    return cli.main(["draw", str(HERE / f"{figure}.yaml"), *common, *QUICK, *overrides])


def files(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture
def blocks(monkeypatch):
    """The blocks of the last sheet that was drawn."""
    found = []
    sheet = sheets.sheet

    def kept(given, note=""):
        found[:] = given
        return sheet(given, note)

    monkeypatch.setattr(sheets, "sheet", kept)
    return found


def shows(panel, file):
    """Whether a panel of a sheet is the picture in a file."""
    with Image.open(file) as image:
        return np.array_equal(panel, np.asarray(image.convert("RGB")))


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
    options = ("TILES=4", "FILTERS=6", "LONG_EDGE=64")
    assert draw("fig1", tmp_path, small_weights, picture_folder, *options) == 0
    check_sheet(tmp_path, "fig1", 2.5)
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


@pytest.mark.parametrize(
    ("words", "note"),
    [
        ("", ""),  # as the published figures
        ("PRECISION=bfloat16 SEED=3", ""),
        ("SETTINGS=paper", "preset paper"),
        ("STEPS=9 POOL=max", "preset code, steps=9, pool=max"),
        ("CHAIN=1", ""),
        ("CHAIN=0", "preset code, chain=0"),
        ("CHAIN=0 SETTINGS=paper", "preset paper"),
        ("CHAIN=yes SETTINGS=paper", "preset paper, chain=1"),
        ("WEIGHTS=embedded", "drawn with fmi's embedded network, not VGG-19, preset code"),
    ],
)
def test_the_corner_says_what_differs_from_the_published_figure(
    tmp_path, small_weights, picture_folder, words, note
):
    given = (f"WEIGHTS={small_weights}", f"RESULTS={tmp_path}", *words.split())
    assert figures.Run(experiment.read(HERE / "fig3.yaml", given)).note == note


def test_the_corner_is_drawn(tmp_path, small_weights, picture_folder, monkeypatch):
    notes = []
    sheet = sheets.sheet
    monkeypatch.setattr(sheets, "sheet", lambda b, note="": notes.append(note) or sheet(b, note))
    assert draw("fig1", tmp_path, small_weights, picture_folder, "LONG_EDGE=64") == 0
    assert notes == ["preset code, long_edge=64, steps=4, stop=0"]


def test_every_panel_of_fig3_is_at_its_place(tmp_path, small_weights, picture_folder, blocks):
    options = ("FILTERS=3,0", "LAYERS=relu2_1,relu1_2", *COARSE)
    assert draw("fig3", tmp_path, small_weights, picture_folder, *options) == 0
    assert [block.caption[:3] for block in blocks] == ["(a)", "(b)"]
    for block, name in zip(blocks, ("golden_gate", "tubingen")):
        assert (list(block.rows), list(block.columns)) == (["relu2_1", "relu1_2"], ["3", "0"])
        for row, layer in zip(block.panels, block.rows):
            for panel, index in zip(row, block.columns):
                stem = tmp_path / f"{name}/{layer}_filter{index}"
                assert shows(panel, f"{stem}.png")
                record = json.loads(Path(f"{stem}.json").read_text())
                assert (record["layers"], record["filter"]) == ([layer], int(index))
                assert record["pictures"]["content"]["name"] == name
    every = [panel.tobytes() for block in blocks for row in block.panels for panel in row]
    assert len(set(every)) == 8


def test_every_panel_of_fig4_is_at_its_place(tmp_path, small_weights, picture_folder, blocks):
    options = ("DRAWS=3", "LAYERS=relu2_1,relu1_1")
    assert draw("fig4", tmp_path, small_weights, picture_folder, *options) == 0
    (block,) = blocks
    assert list(block.columns) == ["relu2_1", "relu1_1"]
    assert list(block.rows) == ["draw 0", "draw 1", "draw 2"]
    for number, row in enumerate(block.panels):
        for panel, layer in zip(row, block.columns):
            stem = tmp_path / f"golden_gate/{layer}_draw{number}"
            assert shows(panel, f"{stem}.png")
            record = json.loads(Path(f"{stem}.json").read_text())
            assert (record["layers"], record["draw"]) == ([layer], number)
    assert len({panel.tobytes() for row in block.panels for panel in row}) == 6


def test_every_panel_of_fig5_is_at_its_place(tmp_path, small_weights, picture_folder, blocks):
    options = ("STYLES=the_scream,frida_kahlo",)
    assert draw("fig5", tmp_path, small_weights, picture_folder, *options) == 0
    above, block = blocks
    assert list(above.rows) == ["content"]
    assert above.columns[1] == "The Golden Gate Bridge" and above.columns[3][:11] == "Neckarfront"
    for place, content in ((1, "golden_gate"), (3, "tubingen")):
        pixels = pictures.read(picture_folder / f"{content}.png").pixels
        assert np.array_equal(above.panels[0][place], pixels)
    assert [above.panels[0][place] for place in (0, 2, 4)] == [None] * 3
    assert list(block.rows) == ["The Scream", "Frida Kahlo"]
    headings = {"Gatys": "gatys", "PMCI": "purposeful"}
    contents = [None, "golden_gate", "golden_gate", "tubingen", "tubingen"]
    for row, style in zip(block.panels, ("the_scream", "frida_kahlo")):
        pixels = pictures.read(picture_folder / f"{style}.png").pixels
        assert np.array_equal(row[0], sheets.warped(pixels, row[1].shape[:2]))
        for panel, heading, content in list(zip(row, block.columns, contents))[1:]:
            stem = tmp_path / f"{content}/{style}_{headings[heading]}"
            assert shows(panel, f"{stem}.png")
            record = json.loads(Path(f"{stem}.json").read_text())
            assert record["function"] == headings[heading]
            names = {role: entry["name"] for role, entry in record["pictures"].items()}
            assert names == {"content": content, "style": style}
    assert len({panel.tobytes() for row in block.panels for panel in row}) == 10


def test_two_pictures_with_one_name_do_not_collide(tmp_path, small_weights, picture_folder, blocks):
    for folder, name in (("a", "golden_gate"), ("b", "the_scream"), ("c", "tubingen")):
        (tmp_path / folder).mkdir()
        shutil.copy(picture_folder / f"{name}.png", tmp_path / folder / "cat.png")
    shutil.copy(picture_folder / "tubingen.png", tmp_path / "cat_1.png")
    named = ",".join(f"{tmp_path}/{name}.png" for name in ("a/cat", "b/cat", "cat_1"))
    results = tmp_path / "results"
    options = (f"PICTURES={named}", "LAYERS=relu1_2", "FILTERS=0", *COARSE)
    assert draw("fig3", results, small_weights, picture_folder, *options) == 0
    panels = [block.panels[0][0] for block in blocks]
    assert len({panel.tobytes() for panel in panels}) == 3
    stems = list(results.rglob("*_filter0.png"))
    assert len(stems) == 3
    assert all(any(shows(panel, stem) for stem in stems) for panel in panels)
    for block in blocks:  # the caption tells the folder
        (stem,) = (stem for stem in stems if shows(block.panels[0][0], stem))
        assert block.caption.split()[1].rstrip(",") == stem.parent.name


def test_each_picture_is_read_once(tmp_path, small_weights, picture_folder, monkeypatch):
    opened = []
    read = Path.read_bytes

    def counted(path):
        if path.suffix == ".png" and path.parent == picture_folder:
            opened.append(path.name)
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", counted)
    assert draw("fig5", tmp_path, small_weights, picture_folder, "STYLES=the_scream") == 0
    assert sorted(opened) == ["golden_gate.png", "the_scream.png", "tubingen.png"]


def test_odd_names_of_pictures(tmp_path, small_weights, picture_folder):
    """Mathematics of matplotlib, names that are not UTF-8, and as long as can be."""
    odd = ["$x^{lar$", "frac \\frac", "n\u00f6", os.fsdecode(b"not\xffutf8"), "x" * 251, "-"]
    for number, name in enumerate(odd):
        results = tmp_path / f"results{number}"
        copy = tmp_path / f"{name}.png"
        shutil.copy(picture_folder / "tubingen.png", copy)
        options = (f"PICTURES={copy}", "LAYERS=relu1_2", "FILTERS=0")
        assert draw("fig3", results, small_weights, picture_folder, *options) == 0
        assert len(list(results.rglob("*_filter0.png"))) == 1
        assert draw("fig2", results, small_weights, picture_folder, f"PICTURES={copy}") == 0


def test_fig1_obeys_shares_and_settings(tmp_path, small_weights, picture_folder):
    found = {}
    for change in ("SHARES=normal", "SHARES=simplex", "SETTINGS=paper", "SEED=1"):
        results = tmp_path / change
        options = ("TILES=4", "FILTERS=6", change)
        assert draw("fig1", results, small_weights, picture_folder, *options) == 0
        found[change] = (results / "reallocated.png").read_bytes()
        record = json.loads((results / "reallocated.json").read_text())
        assert record["settings"]["shares"] == (
            "normal" if change[-6:] == "normal" or change == "SEED=1" else "simplex"
        )
    assert len(set(found.values())) == 4


def test_fig1_shows_the_values_of_equation_3(tmp_path, small_weights, picture_folder, monkeypatch):
    shown = []
    tiles = sheets.tiles
    monkeypatch.setattr(sheets, "tiles", lambda maps: shown.append(maps) or tiles(maps))
    options = ("TILES=8", "SHARES=simplex", "SEED=3")
    assert draw("fig1", tmp_path, small_weights, picture_folder, *options) == 0
    code, isolated, reallocated = shown
    np.testing.assert_allclose(isolated[0], code.sum(axis=0), rtol=1e-5)
    energies = code.sum(axis=(1, 2))
    v = codes.shares("simplex", 8, 3, 0, "relu5_1")
    wanted = np.where(energies > 0, v * energies.sum(), 0)
    np.testing.assert_allclose(reallocated.sum(axis=(1, 2)), wanted, rtol=1e-4)


def test_absent_pictures_of_ones_own(tmp_path, small_weights, capsys, monkeypatch):
    monkeypatch.setenv("FMI_PICTURES", str(tmp_path))
    mine = tmp_path / "mine.yaml"
    mine.write_text("figure: fig2\npictures: [my_cat, golden_gate]\n")
    assert cli.main(["draw", str(mine), f"RESULTS={tmp_path}/results"]) == 2
    assert "'my_cat' was not found" in capsys.readouterr().err
    with pytest.raises(InputError, match="'my_cat' was not found"):
        experiment.find(experiment.read(mine), ["my_cat"], "pictures")


def test_a_thin_style_picture_is_warped(tmp_path, small_weights, picture_folder):
    thin = tmp_path / "thin.png"
    Image.fromarray(np.arange(300 * 2 * 3).reshape(2, 300, 3).astype(np.uint8)).save(thin)
    options = (f"STYLES={thin}", "PICTURES=skimage:coffee")
    assert draw("fig5", tmp_path / "results", small_weights, picture_folder, *options) == 0
    options = (*options, "SETTINGS=paper")  # its own size
    assert draw("fig5", tmp_path / "results", small_weights, picture_folder, *options) == 2


@pytest.mark.parametrize(
    ("options", "warped"),
    [
        (("SETTINGS=paper",), False),
        (("STYLE_SIZE=own",), False),
        (("SETTINGS=paper", "STYLE_SIZE=content"), True),
    ],
)
def test_fig5_shows_a_style_in_the_shape_that_was_used(
    options, warped, tmp_path, small_weights, picture_folder, blocks
):
    upright = np.random.RandomState(0).randint(0, 256, (40, 30, 3), dtype=np.uint8)
    Image.fromarray(upright).save(tmp_path / "upright.png")
    options = (
        f"STYLES={tmp_path}/upright.png",
        f"PICTURES={picture_folder}/tubingen.png",
        *options,
    )
    assert draw("fig5", tmp_path / "results", small_weights, picture_folder, *options) == 0
    style, gatys, _ = blocks[1].panels[0]
    assert gatys.shape == (36, 48, 3)
    assert style.shape == gatys.shape if warped else np.array_equal(style, upright)


def test_a_figure_that_diverges_keeps_what_is_good_and_says_so(
    tmp_path, small_weights, picture_folder, capsys
):
    wild = ("LEARNING_RATE=1e5", "CLIP=1e12", "STEPS=30", "STYLES=the_scream")
    assert draw("fig5", tmp_path, small_weights, picture_folder, *wild) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "diverged" in error and "LEARNING_RATE" in error
    assert not (tmp_path / "fig5.png").exists()
    left = sorted(tmp_path.rglob("*_diverged.json"))
    assert left
    for file in left:
        record = json.loads(file.read_text(), parse_constant=lambda word: pytest.fail(word))
        assert record["outcome"]["stopped"] == "diverged"
        assert record["outcome"]["steps"] < 30
        with Image.open(file.with_suffix(".png")) as image:
            assert np.asarray(image).std() > 0
    assert draw("fig5", tmp_path, small_weights, picture_folder, *wild) == 2  # not stored as done


def test_a_chained_figure_goes_on_after_ctrl_c(
    tmp_path, small_weights, picture_folder, monkeypatch, caplog
):
    options = ("LAYERS=relu1_2", "FILTERS=0,1,2", "PICTURES=skimage:coffee")
    show, steps = descent._show, []

    def interrupt(*arguments):
        steps.append(None)
        if len(steps) == 7:
            raise KeyboardInterrupt
        show(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(descent, "_show", interrupt)
        assert draw("fig3", tmp_path / "a", small_weights, picture_folder, *options) == 130
    caplog.clear()
    with caplog.at_level("INFO"):
        assert draw("fig3", tmp_path / "a", small_weights, picture_folder, *options) == 0
    assert "fig3: 2 of 3 panels to compute" in caplog.text
    monkeypatch.setenv("FMI_STORE", str(tmp_path / "another"))
    assert draw("fig3", tmp_path / "b", small_weights, picture_folder, *options) == 0
    assert files(tmp_path / "a") == files(tmp_path / "b")


def test_two_seeds_at_once_draw_their_own_sheets(tmp_path, small_weights, picture_folder):
    """Readable copies are the last writer's, but each sheet is made of its own panels."""
    words = [sys.executable, "-m", "fmi", "draw", str(HERE / "fig3.yaml"), *QUICK, *COARSE]
    words += [
        f"WEIGHTS={small_weights}",
        f"PICTURES={picture_folder}",
        "LAYERS=relu1_2",
        "FILTERS=0",
    ]
    alone = {}
    for seed in (0, 1):
        more = [f"SEED={seed}", f"RESULTS={tmp_path}/alone{seed}", f"STORE={tmp_path}/s{seed}"]
        assert cli.main([*words[3:], *more]) == 0
        alone[seed] = (tmp_path / f"alone{seed}/fig3.png").read_bytes()
    both = [
        subprocess.Popen(
            [*words, f"SEED={seed}", f"RESULTS={tmp_path}/both", f"STORE={tmp_path}/s"]
        )
        for seed in (0, 1)
    ]
    assert [process.wait() for process in both] == [0, 0]
    assert (tmp_path / "both/fig3.png").read_bytes() in alone.values()
    assert alone[0] != alone[1]


def test_figures_are_drawn_from_any_folder_by_their_names(
    tmp_path, small_weights, picture_folder, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FMI_STORE")
    words = (f"WEIGHTS={small_weights}", f"PICTURES={picture_folder}", *QUICK, "LAYERS=relu1_1")
    assert cli.main(["figure", "fig4", *words]) == 0
    assert capsys.readouterr().out.split() == ["results/fig4/fig4.png", "results/fig4/fig4.pdf"]
    assert len(list((tmp_path / "results/store").glob("??/*/manifest.json"))) == 2
    assert cli.main(["figure", "fig9"]) == 2
    assert "unknown figure 'fig9'; did you mean fig" in capsys.readouterr().err
    for figure in experiment.FIGURES:
        assert experiment.packaged(figure).read_text() == (HERE / f"{figure}.yaml").read_text()


def test_fig3_after_the_paper_is_not_chained(tmp_path, small_weights, picture_folder):
    options = ("LAYERS=relu2_2", "SETTINGS=paper")
    assert draw("fig3", tmp_path, small_weights, picture_folder, *options) == 0
    record = json.loads((tmp_path / "golden_gate/relu2_2_filter4.json").read_text())
    assert (record["chain"], record["settings"]["preset"]) == (False, "paper")


def test_fig4(tmp_path, small_weights, picture_folder):
    assert draw("fig4", tmp_path, small_weights, picture_folder) == 0
    layers = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")
    check_panels(tmp_path, [f"golden_gate/{n}_draw{i}" for n in layers for i in (0, 1)])
    check_sheet(tmp_path, "fig4", 5 * 4 / (2 * 3 + 1))  # with titles, caption and corner


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
    check_sheet(tmp_path, "fig5", 5 * 4 / (3 * 3))


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
    assert calls == []
    assert files(tmp_path) == before  # copied from the store again
    for change in ("SEED=1", "SETTINGS=paper", "LONG_EDGE=40", "PRECISION=bfloat16"):
        calls.clear()
        if change != "PRECISION=bfloat16" or "avx512bw" in environment.cpu_flags():
            assert draw("fig3", tmp_path, small_weights, picture_folder, *options, change) == 0
            assert calls == [2, 2], change
            assert files(tmp_path) != before
    calls.clear()
    assert draw("fig3", tmp_path, small_weights, picture_folder, *options) == 0
    assert calls == []  # and back
    assert files(tmp_path) == before


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
        ("STYLES=the_scream", "fig3 has no variable STYLES, only fig5"),
        ("ALPHA=3", "fig3 has no variable ALPHA, only fig5"),
        ("TILES=3", "fig3 has no variable TILES, only fig1"),
        ("LAYERS=relu9_9", "layer of VGG-19 'relu9_9'; "),
        ("FILTERS=0,4", "relu1_2 has no filter 4; its filters are numbered 0 to 3"),
        ("FILTERS=first", "filters='first' must be whole numbers, or ranges such as"),
        ("SEED=-1", "seed='-1' must be at least 0"),
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


FIG3 = "figure: fig3\npictures: [golden_gate]\nlayers: [relu1_2]\nfilters: [0]\nchain: false\n"


@pytest.mark.parametrize(
    ("text", "facts"),
    [
        ("figure: fig3\nlayer: relu1_2\n", ["'layer'", "layers"]),
        ("figure: fig3\npictures: [a]\nlayers: [relu1_2]\nchain: false\n", ["'filters'"]),
        ("figure: fig9\n", ["figure", "fig1, fig2"]),
        ("figure: [fig3]\n", ["figure", "fig1, fig2"]),
        ("figure: {a: b}\n", ["figure", "fig1, fig2"]),
        ("figure: .inf\n", ["figure", "fig1, fig2"]),
        ("figure: 2016-08-14\n", ["figure", "fig1, fig2"]),
        ("figure: !!int abc\n", ["cannot be read"]),
        ("figure: [\n", ["cannot be read"]),
        ("- figure\n", ["mapping"]),
        ("", ["mapping"]),
        ("3: 4\n", ["key 3"]),
        ("? [a]\n: b\n", ["cannot be read"]),
        (FIG3 + "filters: [1]\n", ["'filters'", "twice"]),
        (FIG3 + "seed: true\n", ["seed=True"]),
        (FIG3 + "seed: 1.5\n", ["seed=1.5"]),
        (FIG3 + "seed: " + "9" * 5000 + "\n", ["5.*yaml"]),
        (FIG3 + "results:\n", ["'results'", "no value"]),
        (FIG3 + "settings: fats\n", ["settings", "fats", "did you mean fast"]),
        (FIG3 + "weights: 3\n", ["weights=3", "text"]),
        (FIG3 + 'weights: "a\\0b"\n', ["weights=", "null"]),
        (FIG3 + "steps: [3]\n", ["steps=[3]"]),
        (FIG3 + "steps: .nan\n", ["steps=nan"]),
        (FIG3 + "folder: x\n", ["'folder'"]),
        (FIG3.replace("[0]", "[1.5]"), ["filters=1.5"]),
        (FIG3.replace("[0]", "[[1]]"), ["filters=[1]"]),
        (FIG3.replace("[0]", "{a: 1}"), ["filters="]),
        (FIG3.replace("[0]", "true"), ["filters=True"]),
        (FIG3.replace("[0]", "[true]"), ["filters=True"]),
        (FIG3.replace("[0]", "[]"), ["filters=[]"]),
        (FIG3.replace("[relu1_2]", "[]"), ["layers=[]"]),
        (FIG3.replace("[relu1_2]", "[[relu1_2]]"), ["layers="]),
        (FIG3.replace("[golden_gate]", "[]"), ["pictures=[]"]),
        (FIG3.replace("[golden_gate]", "[3]"), ["pictures=3"]),
        (FIG3.replace("[golden_gate]", '["a\\0"]'), ["pictures=", "null"]),
        (FIG3.replace("false", "perhaps"), ["chain='perhaps'"]),
        (FIG3.replace("false", "{code: perhaps}"), ["chain="]),
        (FIG3.replace("false", "{cod: true}"), ["chain="]),
        (FIG3 + "a: " + "[" * 3000 + "\n", ["nested too deeply"]),
        ("x" * (1 << 21), ["too large"]),
    ],
)
def test_what_a_yaml_must_not_contain(tmp_path, text, facts, capsys):
    path = tmp_path / "5.yaml"
    path.write_text(text)
    assert cli.main(["draw", str(path), f"RESULTS={tmp_path}/results"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("fmi: ") and error.count("\n") == 1 and len(error) < 500
    for fact in facts:
        assert fact in error or re.search(fact, error), error
    assert not (tmp_path / "results").exists()


def test_what_is_not_a_yaml_file(tmp_path, capsys):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path in (pipe, tmp_path, tmp_path / "absent.yaml", tmp_path / ("x" * 300), "a\0b"):
        assert cli.main(["draw", str(path)]) == 2
        assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(
    "word",
    [
        "FIGURE=fig4",
        "FOLDER=x",
        "FILTERS=1.5",
        "FILTERS=",
        "FILTERS=0,,1",
        "CHAIN=perhaps",
        "SEED=1.5",
        "SEED=true",
        "MOMENTUM=2",
        "LEARNING_RATE=1e30",
        "CLIP=1e300",
        "LONG_EDGE=999999999999",
        "STEPS=inf",
        "PRECISION=double",
        "LAYERS=relu1_2:a",
        "PICTURES=" + "x" * 5000,
    ],
)
def test_variables_that_cannot_be_used(tmp_path, small_weights, picture_folder, capsys, word):
    results = tmp_path / "results"
    assert draw("fig3", results, small_weights, picture_folder, "FILTERS=0", word) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("fmi: ") and word.partition("=")[0].lower()[:5] in error.lower()
    assert not results.exists()


def test_a_results_folder_that_cannot_be_written(
    tmp_path, small_weights, picture_folder, capsys, monkeypatch
):
    """It is found out before anything is computed."""
    monkeypatch.setattr(descent, "minimise", lambda *_: pytest.fail("computed"))
    (tmp_path / "file").write_text("")
    for wrong in (tmp_path / "file", tmp_path / "file/results", tmp_path / ("x" * 300)):
        for words in (
            ("FILTERS=0",),
            ("FILTERS=0", f"RESULTS={tmp_path}/results", f"STORE={wrong}"),
        ):
            assert draw("fig3", wrong, small_weights, picture_folder, *words) == 2
            error = capsys.readouterr().err.splitlines()[-1]
            assert error.startswith(f"fmi: {str(tmp_path)[:30]}") and "cannot be written" in error
    assert not (tmp_path / "results").exists()


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


@pytest.mark.parametrize(
    ("given", "meant"),
    [("CONTENT", "PICTURES"), ("SIZE", "LONG_EDGE"), ("DEVICE", "CTX"), ("FILTER", "FILTERS")],
)
def test_a_word_that_others_use_is_answered_with_ours(given, meant, capsys):
    assert cli.main(["figure", "fig3", f"{given}=3"]) == 2
    assert f"{given}'; did you mean {meant}" in capsys.readouterr().err


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


@pytest.mark.parametrize("filters, chain", [("all", 0), ("0-11", 1), ("3,5", 1)])
def test_many_filters_of_a_layer_are_wrapped_and_named(tmp_path, monkeypatch, filters, chain):
    blocks = []
    draw = sheets.sheet
    monkeypatch.setattr(sheets, "sheet", lambda b, *rest: draw(blocks.extend(b) or b, *rest))
    words = ["PICTURES=skimage:coffee", "LAYERS=relu2_1", "LONG_EDGE=32", "STEPS=1", "STOP=0"]
    more = ["WEIGHTS=embedded", f"FILTERS={filters}", f"CHAIN={chain}"]
    assert cli.main(["figure", "fig3", *words, *more, f"RESULTS={tmp_path / 'r'}"]) == 0
    (block,) = blocks
    assert block.caption.startswith("Coffee") or block.caption.startswith("coffee")
    assert ("chained" in block.caption) == bool(chain)
    titles = [title for row in block.titles for title in row]
    if filters == "3,5":
        assert list(block.columns) == ["3", "5"] and not titles
        return
    assert max(map(len, block.panels)) <= 10 and "relu2_1" in block.caption
    assert titles == [f"relu2_1:{n}" for n in range(len(titles))] and len(titles) > 10
