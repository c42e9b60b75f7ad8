"""The comparison with the published Fig. 3, on a sheet made of panels that are known."""

import re

import numpy as np
import pytest
from conftest import smooth_picture
from PIL import Image

from experiments import compare
from fmi import evidence
from fmi.networks import catalogue

# Where the 25 panels of 250 x 187 pixels are on the published sheet of 1440 x 1080.
LEFT = (69, 344, 620, 896, 1172)
TOP = {"relu1_2": 48, "relu2_2": 256, "relu3_2": 463, "relu4_2": 671, "relu5_2": 878}
PLACES = [(layer, index) for layer in TOP for index in range(5)]


def scene(seed):
    """A picture in a light of its own."""
    light = np.random.RandomState(seed).uniform(0.1, 1, 3)
    return (smooth_picture(187, 250, seed) * light).astype(np.uint8)


SCENES = {place: scene(seed) for seed, place in enumerate(PLACES)}


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    sheet = np.full((1080, 1440, 3), 255, np.uint8)
    for (layer, index), panel in SCENES.items():
        top, left = TOP[layer], LEFT[index]
        assert (sheet[top : top + 187, left : left + 250] == 255).all()
        sheet[top : top + 187, left : left + 250] = panel
    path = tmp_path_factory.mktemp("published") / "feature_map_golden_gate.png"
    Image.fromarray(sheet).save(path)
    return path


def ours(folder, places, shown=None):
    """Our panels: 512 pixels wide, a little darker than the published ones."""
    folder.mkdir()
    for place in places:
        panel = SCENES[(shown or {}).get(place, place)]
        image = Image.fromarray((panel * 0.99).astype(np.uint8)).resize((512, 383))
        layer, index = place
        image.save(folder / f"{layer}_filter{index}.png")
        image.save(folder / f"{layer}_filter{index}_undenoised.png")
    return folder


@pytest.fixture
def main(monkeypatch, small_weights, capsys):
    def run(*words, weights=small_weights):
        command = ["compare", *map(str, words), "--weights", str(weights)]
        monkeypatch.setattr("sys.argv", command)
        status = compare.main()
        said = capsys.readouterr()
        lines = re.findall(r"^(\S+) filter (\d): ([\d.]+)( NOT nearest)?$", said.out, re.M)
        found = {(layer, int(i)): (float(d), not far) for layer, i, d, far in lines}
        summary = re.findall(r"(\d+) of (\d+); median ([\d.]+)$", said.out, re.M)
        return status, found, summary and summary[0], said.err

    return run


def test_each_panel_is_nearest_to_its_own(main, tmp_path, published, small_weights):
    folder = ours(tmp_path / "all", PLACES)
    status, found, summary, err = main(folder, published)
    assert status == 0 and list(found) == PLACES
    assert all(nearest for _, nearest in found.values())
    assert summary[:2] == ("25", "25")
    network = catalogue.load(weights=small_weights)
    for place in (("relu1_2", 0), ("relu5_2", 4)):
        with Image.open(folder / "{}_filter{}.png".format(*place)) as image:
            mine = np.asarray(image)
        wanted = evidence.distances([mine], [SCENES[place]], network, ("relu1_1", "relu2_1"))
        assert found[place][0] == pytest.approx(wanted[0, 0], abs=6e-4)
    values = [value for value, _ in found.values()]
    assert float(summary[2]) == pytest.approx(np.median(values), abs=6e-4)


def test_a_permutation_is_noticed(main, tmp_path, published):
    """Two filters of a layer exchanged, and three panels in a circle over two layers."""
    one, two, three = ("relu2_2", 1), ("relu2_2", 4), ("relu3_2", 0)
    for number, shown in enumerate(({one: two, two: one}, {one: two, two: three, three: one})):
        folder = ours(tmp_path / str(number), PLACES, shown)
        status, found, summary, _ = main(folder, published)
        assert status == 0
        assert {place for place, (_, nearest) in found.items() if not nearest} == set(shown)
        assert summary[:2] == (str(25 - len(shown)), "25")
        others = [value for place, (value, _) in found.items() if place not in shown]
        assert min(found[place][0] for place in shown) > max(others)


def test_rivals_are_the_rows_that_are_there(main, tmp_path, published):
    """A panel between its own and one of another row is nearest to the latter if we have that."""
    own, other = ("relu1_2", 2), ("relu4_2", 1)
    row = [place for place in PLACES if place[0] == "relu1_2"]
    between = (0.35 * SCENES[own] + 0.65 * SCENES[other]).astype(np.uint8)
    for places, nearest in ((row, True), ([*row, ("relu4_2", 0)], False)):
        folder = ours(tmp_path / str(nearest), places)
        Image.fromarray(between).save(folder / "relu1_2_filter2.png")
        _, found, _, _ = main(folder, published)
        assert list(found) == places
        assert found[own][1] == nearest
        assert all(near for place, (_, near) in found.items() if place != own)


def test_mistakes_are_one_line_and_status_2(main, tmp_path, published):
    folder = ours(tmp_path / "panels", PLACES[:2])
    other = tmp_path / "other.png"
    Image.fromarray(np.zeros((1080, 1441, 3), np.uint8)).save(other)
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "empty").mkdir()
    for words in (
        (folder, other),
        (folder, tmp_path / "text.png"),
        (folder, tmp_path / "none.png"),
        (folder, folder),
        (tmp_path / "empty", published),
        (tmp_path / "none", published),
    ):
        status, found, summary, err = main(*words)
        assert (status, found, len(summary)) == (2, {}, 0)
        assert err.count("\n") == 1 and any(str(word) in err for word in words)
    (folder / "relu1_2_filter0.png").write_text("no picture")
    status, _, _, err = main(folder, published)
    assert status == 2 and err.count("\n") == 1 and "relu1_2_filter0.png" in err
    status, _, _, err = main(folder, published, weights=tmp_path / "none.npz")
    assert status == 2 and err.count("\n") == 1 and "none.npz" in err
