"""The README's pictures: each JPEG is made from its own figure, every sheet can be drawn."""

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from experiments import gallery, presets
from fmi.runs import experiment

ROOT = Path(gallery.__file__).parent
COMMON = ("PICTURES=skimage:coffee", "LONG_EDGE=32", "STEPS=2", "STOP=0")


@pytest.fixture
def main(monkeypatch, tmp_path, small_weights, capsys):
    """The script with three small sheets, in folders of its own."""
    (tmp_path / "here/gallery").mkdir(parents=True)
    for figure in ("fig3", "fig4"):
        shutil.copy(ROOT / f"{figure}.yaml", tmp_path / "here")
    common = (*COMMON, f"WEIGHTS={small_weights}")
    three = (*common, "LAYERS=relu1_2,relu2_2", "FILTERS=0,1")
    sheets = {
        "three": gallery.Sheet("fig3", three, 300),
        "four": gallery.Sheet("fig4", (*common, "LAYERS=relu1_1", "DRAWS=3"), 200),
        "both": gallery.Sheet("fig3", three, 250, draw=presets.compare),
        "broken": gallery.Sheet("fig3", (*common, "LAYERS=relu9_9")),
    }
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(gallery, "HERE", tmp_path / "here")
    monkeypatch.setattr(gallery, "SHEETS", sheets)

    def run(*names):
        monkeypatch.setattr(sys, "argv", ["gallery", *names])
        return gallery.main(), capsys.readouterr()

    return run


def test_each_jpeg_is_made_from_its_own_figure(main, tmp_path):
    status, said = main("three", "four", "both")
    assert status == 0
    files = {name: tmp_path / f"here/gallery/{name}.jpg" for name in ("three", "four", "both")}
    assert [n for n in said.out.split() if ".jpg" in n] == [str(file) for file in files.values()]
    figures = {"three": "fig3", "four": "fig4", "both": "presets"}
    widths = {"three": 300, "four": 200, "both": 250}
    for name, figure in figures.items():
        with Image.open(files[name]) as image:
            assert (image.format, image.mode, image.width) == ("JPEG", "RGB", widths[name])
            found = np.asarray(image, float)
        with Image.open(tmp_path / f"results/gallery/{name}/{figure}.png") as sheet:
            assert abs(found.shape[0] - sheet.height * widths[name] / sheet.width) <= 0.5
            wanted = np.asarray(sheet.convert("RGB").resize(found.shape[1::-1]), float)
        assert wanted.std() > 20
        assert np.abs(found - wanted).mean() < 8
    assert {path.suffix for path in (tmp_path / "here/gallery").iterdir()} == {".jpg"}


def test_mistakes_are_one_line_and_the_others_are_drawn(main, tmp_path):
    for name in ("broken", "thre"):
        status, said = main(name, "four")
        assert status == 2
        (line,) = (line for line in said.err.splitlines() if line.startswith(f"{name}: "))
        assert "relu9_9" in line if name == "broken" else "did you mean three" in line
        assert "Traceback" not in said.err
        assert [path.name for path in (tmp_path / "here/gallery").iterdir()] == ["four.jpg"]


def test_an_interrupted_sheet_ends_the_script(main, tmp_path, monkeypatch):
    def draw(run):
        raise KeyboardInterrupt

    gallery.SHEETS["three"] = gallery.Sheet("fig3", gallery.SHEETS["three"].overrides, draw=draw)
    status, said = main("three", "four")
    assert status == 130 and "Traceback" not in said.err
    assert not list((tmp_path / "here/gallery").iterdir())


@pytest.mark.parametrize("name", gallery.SHEETS)
def test_every_sheet_can_be_asked_for(name):
    sheet = gallery.SHEETS[name]
    experiment.read(ROOT / f"{sheet.experiment}.yaml", sheet.overrides)
    assert (ROOT / f"gallery/{name}.jpg").is_file()
