"""The comparisons of presets and of number formats: their numbers, sheets, and early ends."""

import json

import numpy as np
import pytest
from conftest import ended
from PIL import Image

import fmi.invert
from experiments import precisions, presets
from fmi.device.environment import cpu_flags

PLACES = [("relu1_2", 0), ("relu1_2", 3), ("relu2_1", 0), ("relu2_1", 3)]
SETTINGS = {"long_edge": 48, "steps": 12, "stop": 0, "denoise": 0.05}


def inversion(loss, seconds):
    return fmi.invert.Inversion(np.zeros((4, 4, 3), np.float32), loss, 0.0, "steps", {}, seconds)


@pytest.fixture
def words(small_weights, picture_folder, tmp_path):
    given = [f"{key.upper()}={value}" for key, value in SETTINGS.items()]
    named = [f"WEIGHTS={small_weights}", f"PICTURES={picture_folder}", f"RESULTS={tmp_path}/out"]
    return [*named, *given, "LAYERS=relu1_2,relu2_1", "FILTERS=0,3"]


@pytest.mark.parametrize(
    ("fast", "loss", "reached"),
    [
        ([9.0, 5.0, 4.0, 3.0], 0.75, 3),
        ([9.0, 4.0, 6.0, 8.0], 2.0, 2),  # reached on the way
        ([9.0, 8.0, 7.0, 6.0], 1.5, 0),  # never
    ],
)
def test_shares_by_hand(fast, loss, reached):
    pair = {"code": inversion([10.0, 6.0, 4.0], 8.0), "fast": inversion(fast, 2.0)}
    wanted = {"loss": loss, "seconds": 0.25, "seconds_code": 8.0, "steps_code": 3}
    until = 0.25 * reached / len(fast) if reached else None
    assert presets.shares(pair) == {**wanted, "reached": reached, "until": until}


def test_numbers_are_those_of_the_two_inversions(
    words, small_weights, picture_folder, tmp_path, capsys
):
    assert presets.main(words) == 0
    out = capsys.readouterr().out
    table = json.loads((tmp_path / "out/presets.json").read_text())
    assert [(row["layer"], row["filter"]) for row in table] == PLACES
    picture = picture_folder / "golden_gate.png"
    pictures = {}
    for row in table:
        place = row["layer"], row["filter"]
        code, fast = (
            fmi.invert.feature_map(
                picture, *place, settings=name, weights=small_weights, progress=False, **SETTINGS
            )[0]
            for name in ("code", "fast")
        )
        assert row["loss"] == pytest.approx(fast.loss[-1] / code.loss[-1], rel=1e-6)
        first = next((n for n, loss in enumerate(fast.loss, 1) if loss <= code.loss[-1]), 0)
        assert (row["steps_code"], row["reached"]) == (12, first)
        assert row["seconds"] > 0 and row["seconds_code"] > 0
        assert f"{place[0]} filter {place[1]}: loss {row['loss']:.4f}" in out
        pictures[place] = code.image, fast.image
    until = [row["until"] for row in table if row["reached"]]
    assert f"{len(until)} of 4" in out
    if until:
        assert f"{np.median(until):.2f}" in out and f"{max(until):.2f}" in out
    with Image.open(tmp_path / "out/presets.png") as image:
        sheet = np.asarray(image.convert("RGB"), float)
    check_sheet(sheet, pictures)


def test_bfloat16_is_compared_with_float32(words, tmp_path, capsys):
    if "avx512bw" not in cpu_flags():
        pytest.skip("this CPU has no AVX-512")
    assert presets.main([*words, "FILTERS=3"], precisions.PRECISIONS) == 0
    table = json.loads((tmp_path / "out/precisions.json").read_text())
    assert [(row["layer"], row["filter"]) for row in table] == PLACES[1::2]
    assert all(0 < abs(row["loss"] - 1) < 0.05 for row in table)
    off = max(abs(row["loss"] - 1) for row in table)
    assert f"at most {off:.3%}" in capsys.readouterr().out
    assert (tmp_path / "out/precisions.png").is_file()


def check_sheet(sheet, pictures):
    """Rows: code and fast of each layer; columns: filters. Each panel is the nearest to its own."""
    panels = [
        pictures[layer, f][n] for layer in ("relu1_2", "relu2_1") for n in (0, 1) for f in (0, 3)
    ]
    small = [np.asarray(p.resize((16, 12), Image.Resampling.BOX), float) for p in panels]
    dark = (sheet < 250).any(2)
    columns, rows = (runs(dark.mean(axis) > 0.6) for axis in (0, 1))
    assert (len(columns), len(rows)) == (2, 4)
    for place, (top, left) in enumerate((r, c) for r in rows for c in columns):
        cut = Image.fromarray(sheet[slice(*top), slice(*left)].astype(np.uint8))
        seen = np.asarray(cut.resize((16, 12), Image.Resampling.BOX), float)
        assert np.argmin([np.abs(seen - panel).mean() for panel in small]) == place


def runs(flags):
    """Begin and end of each run of true values that is no mere line."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flags, [0]]).astype(int)))
    return [(a, b) for a, b in zip(edges[::2], edges[1::2]) if b - a > 50]


def test_mistakes_are_one_line_and_status_2(words, tmp_path, capsys):
    for wrong in ("LAYERS=relu9_9", "FILTERS=99", "STEPS=none", "CHAINS=1"):
        assert presets.main([*words, wrong]) == 2
        assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("at", [1, 4])
@pytest.mark.parametrize(("how", "status"), [("interrupted", 130), ("diverged", 2)])
def test_an_inversion_that_was_ended_ends_the_comparison(
    how, status, at, words, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(fmi.invert, "feature_map", ended(fmi.invert.feature_map, how, at))
    assert presets.main(words) == status
    said = capsys.readouterr()
    lines = [line for line in said.err.splitlines() if line.startswith("presets: ")]
    assert len(lines) == 1 and how in lines[0] and "Traceback" not in said.err
    assert not list(tmp_path.glob("out/presets*"))
