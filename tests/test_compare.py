"""The comparison with the published figures, on sheets made of panels that are known."""

import json
import re

import numpy as np
import pytest
from conftest import smooth_picture
from PIL import Image

from experiments import compare
from fmi import evidence
from fmi.networks import catalogue

# Where the panels are on the published sheets: size, size of a panel, left and top of each.
FIG3 = ((1440, 1080), (250, 187), (69, 344, 620, 896, 1172), (48, 256, 463, 671, 878))
FIG4 = ((2052, 720), (396, 296), (12, 420, 828, 1237, 1645), (72, 382))
FIG5 = ((1872, 1152), (351, 263), (423, 785, 1148, 1510), (51, 326, 600, 875))
LAYERS = ("relu1_2", "relu2_2", "relu3_2", "relu4_2", "relu5_2")
FIRST = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")
STYLES = ("frida_kahlo", "seated_nude", "starry_night", "the_scream")
COLUMNS = [(c, m) for c in ("golden_gate", "tubingen") for m in ("gatys", "purposeful")]
NAMES = {
    "fig3": [f"{layer}_filter{i}" for layer in LAYERS for i in range(5)],
    "fig4": [f"{layer}_draw{i}" for i in range(2) for layer in FIRST],
    "fig5": [f"{content}/{style}_{method}" for style in STYLES for content, method in COLUMNS],
}
SHEETS = {"fig3": FIG3, "fig4": FIG4, "fig5": FIG5}


def scene(seed, size=(250, 187)):
    """A picture in a light of its own."""
    light = np.random.RandomState(seed).uniform(0.1, 1, 3)
    return (smooth_picture(size[1], size[0], seed) * light).astype(np.uint8)


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """The published figures, and the panels on them."""
    folder, panels = tmp_path_factory.mktemp("published"), {}
    for figure, (size, panel, lefts, tops) in SHEETS.items():
        sheet = np.full((*size[::-1], 3), 255, np.uint8)
        places = [(left, top) for top in tops for left in lefts]
        for seed, (name, (left, top)) in enumerate(zip(NAMES[figure], places)):
            panels[name] = scene(seed, panel)
            room = sheet[top : top + panel[1], left : left + panel[0]]
            assert (room == 255).all()
            room[:] = panels[name]
        Image.fromarray(sheet).save(folder / f"{figure}.png")
    return folder, panels


def ours(folder, panels, names, shown=None, outcome=None):
    """Our panels: 512 pixels wide, a little darker than the published ones."""
    for name in names:
        panel = panels[(shown or {}).get(name, name)]
        image = Image.fromarray((panel * 0.99).astype(np.uint8)).resize((512, 383))
        path = folder / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path)
        image.save(folder / f"{name}_undenoised.png")
        if outcome:
            path.with_suffix(".json").write_text(json.dumps(outcome))
    return folder


@pytest.fixture
def main(monkeypatch, small_weights, capsys):
    def run(*words, weights=small_weights):
        command = ["compare", *map(str, words), "--weights", str(weights)]
        monkeypatch.setattr("sys.argv", command)
        try:
            status = compare.main()
        except SystemExit as error:  # of argparse
            status = error.code
        said = capsys.readouterr()
        lines = re.findall(r"^(\S+): ([\d.]+)(?: NEARER (\S+))?, SSIM ([-\d.]+)", said.out, re.M)
        found = {name: (float(d), near or name, float(s)) for name, d, near, s in lines}
        return status, found, said.out, said.err

    return run


@pytest.mark.parametrize("figure", ["fig3", "fig5"])
def test_each_panel_is_nearest_to_its_own(main, tmp_path, published, small_weights, figure):
    sheets, panels = published
    folder = ours(tmp_path / "all", panels, NAMES[figure])
    table = tmp_path / "table.json"
    status, found, out, err = main(figure, folder, sheets / f"{figure}.png", "--json", table)
    assert status == 0 and list(found) == NAMES[figure]
    assert all(nearest == name for name, (_, nearest, _) in found.items())
    count = len(NAMES[figure])
    assert f"of {count}: {count} of {count}" in out
    network = catalogue.load(weights=small_weights)
    rows = {row["panel"]: row for row in json.loads(table.read_text())}
    assert list(rows) == NAMES[figure]
    for name in (NAMES[figure][0], NAMES[figure][-1]):
        with Image.open(folder / f"{name}.png") as image:
            mine = np.asarray(image)
        wanted = evidence.distances([mine], [panels[name]], network, ("relu1_1", "relu2_1"))
        assert found[name][0] == pytest.approx(wanted[0, 0], abs=6e-4)
        assert rows[name]["distance"] == pytest.approx(wanted[0, 0])
        assert found[name][2] == pytest.approx(evidence.kept(mine, panels[name]).ssim, abs=6e-3)
        assert rows[name]["nearest"] == name
    middle = np.median([value for value, _, _ in found.values()])
    assert float(re.search(r"median ([\d.]+)$", out, re.M)[1]) == pytest.approx(middle, abs=6e-4)


def test_a_permutation_is_noticed(main, tmp_path, published):
    """Two filters of a layer exchanged, and three panels in a circle over two layers."""
    sheets, panels = published
    one, two, three = "relu2_2_filter1", "relu2_2_filter4", "relu3_2_filter0"
    for number, shown in enumerate(({one: two, two: one}, {one: two, two: three, three: one})):
        folder = ours(tmp_path / str(number), panels, NAMES["fig3"], shown)
        status, found, out, _ = main("fig3", folder, sheets / "fig3.png")
        assert status == 0
        assert {n: near for n, (_, near, _) in found.items() if near != n} == shown
        assert f"of 25: {25 - len(shown)} of 25" in out
        others = [value for name, (value, _, _) in found.items() if name not in shown]
        assert min(found[name][0] for name in shown) > max(others)


def test_all_published_panels_are_rivals(main, tmp_path, published):
    """A panel that is like one of a row that we do not have."""
    sheets, panels = published
    names = NAMES["fig3"][:5]
    folder = ours(tmp_path / "row", panels, names, {names[2]: "relu4_2_filter1"})
    _, found, out, _ = main("fig3", folder, sheets / "fig3.png")
    assert list(found) == names
    assert found[names[2]][1] == "relu4_2_filter1"
    assert "of 25: 4 of 5" in out


def test_what_the_descents_reached_stands_beside(main, tmp_path, published):
    sheets, panels = published
    outcome = {"final_loss": 3.0, "explained": 0.625, "energy_share": 0.25}
    record = {"outcome": outcome, "loss": [12.0, 4.0, 3.0]}
    folder = ours(tmp_path / "one", panels, NAMES["fig3"][:1], outcome=record)
    ours(folder, panels, NAMES["fig3"][1:3])
    (folder / f"{NAMES['fig3'][2]}.json").write_text('{"outcome": {}, "loss": []}')
    table = tmp_path / "table.json"
    _, _, out, _ = main("fig3", folder, sheets / "fig3.png", "--json", table)
    first, *others = out.splitlines()[:3]
    assert first.endswith("loss 3 (25.0%), explained 0.62, 25% of the energy")
    assert all("loss" not in line for line in others)
    one, *rest = (row["reached"] for row in json.loads(table.read_text()))
    wanted = {"loss": 3.0, "of_first": 0.25, "explained": 0.625, "energy_share": 0.25}
    assert one == wanted
    assert rest == [dict.fromkeys(wanted)] * 2


def test_fig4_tells_what_is_kept_of_the_content(main, tmp_path, published):
    sheets, panels = published
    names = NAMES["fig4"]
    content = tmp_path / "content.png"
    Image.fromarray(panels[names[0]]).save(content)
    folder = ours(tmp_path / "panels", panels, names, {names[1]: names[0]})
    table = tmp_path / "table.json"
    words = ("fig4", folder, sheets / "fig4.png", "--content", content, "--json", table)
    status, _, out, _ = main(*words)
    assert status == 0
    rows = {row["panel"]: row for row in json.loads(table.read_text())}
    assert list(rows) == names
    first, second = rows[names[0]], rows[names[1]]
    assert first["published"] == pytest.approx({"ssim": 1, "edges": 1, "colour": 0})
    assert first["ours"] == second["ours"] and first["ours"]["ssim"] > 0.95
    for name in names[1:]:
        assert rows[name]["published"]["ssim"] < 0.9 and rows[name]["published"]["colour"] > 1
    lines = out.splitlines()
    assert [line.split(":")[0] for line in lines[-5:]] == list(FIRST)
    number = np.mean([rows[f"relu2_1_draw{n}"]["ours"]["ssim"] for n in range(2)])
    (line,) = [line for line in lines if line.startswith("relu2_1:")]
    assert f"SSIM {number:.2f}" in line


def test_mistakes_are_one_line_and_status_2(main, tmp_path, published):
    sheets, panels = published
    sheet = sheets / "fig3.png"
    folder = ours(tmp_path / "panels", panels, NAMES["fig3"][:2])
    other = tmp_path / "other.png"
    Image.fromarray(np.zeros((1080, 1441, 3), np.uint8)).save(other)
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "empty").mkdir()
    for words in (
        (folder, other),
        (folder, sheets / "fig5.png"),
        (folder, tmp_path / "text.png"),
        (folder, tmp_path / "none.png"),
        (folder, folder),
        (tmp_path / "empty", sheet),
        (tmp_path / "none", sheet),
        (folder, sheet, "--json", folder),
    ):
        status, found, _, err = main("fig3", *words)
        assert (status, found) == (2, {})
        assert err.count("\n") == 1 and any(str(word) in err for word in words)
    status, _, _, err = main("fig3", folder, sheet, weights=tmp_path / "none.npz")
    assert status == 2 and err.count("\n") == 1 and "none.npz" in err
    (folder / "relu1_2_filter0.png").write_text("no picture")
    status, _, _, err = main("fig3", folder, sheet)
    assert status == 2 and err.count("\n") == 1 and "relu1_2_filter0.png" in err
    four = ours(tmp_path / "four", panels, NAMES["fig4"][:1])
    status, _, _, err = main("fig4", four, sheets / "fig4.png", "--content", tmp_path / "no.png")
    assert status == 2 and err.count("\n") == 1 and "no.png" in err
    status, _, _, err = main("fig2", folder, sheet)
    assert status == 2 and "fig2" in err


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"settings": {"long_edge": 256}}, "long_edge"),
        ({"seed": 1}, "seed"),
        ({"chain": False}, "chain"),
        ({"network": {"sha256": "b"}}, "network"),
        ({"function": "random", "seed": 1}, ""),  # which has its own settings
    ],
)
def test_leftover_panels_of_other_settings_are_refused(main, published, tmp_path, changed, told):
    folder, panels = published
    record = {"function": "feature_map", "settings": {"long_edge": 512}, "seed": 0, "chain": True}
    ours(tmp_path, panels, NAMES["fig3"], outcome={**record, "network": {"sha256": "a"}})
    left = tmp_path / "relu3_2_filter1.json"
    left.write_text(json.dumps({**record, "network": {"sha256": "a"}, **changed}))
    status, found, _, said = main("fig3", tmp_path, folder / "fig3.png")
    if not told:
        assert status == 0 and len(found) == 25
        return
    assert (status, found) == (2, {}) and said.count("\n") == 1
    assert "relu3_2_filter1" in said and f"different {told}:" in said
