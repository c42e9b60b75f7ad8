"""The experiments on why panels differ, on the small network."""

import json

import numpy as np
import pytest
from PIL import Image

import fmi.invert
from experiments import causes
from fmi.networks import catalogue

QUICK = {"precision": "float32", "long_edge": 40, "steps": 4, "stop": 0, "progress": False}


@pytest.fixture
def variants(monkeypatch):
    def quick(variant):
        options = {**QUICK, **{k: v for k, v in variant.options.items() if k == "seed"}}
        return causes.Variant(options, variant.change, variant.back)

    found = {name: quick(variant) for name, variant in causes.VARIANTS.items()}
    monkeypatch.setattr(causes, "VARIANTS", found)
    return found


def test_rounded_kernels_have_256_values_but_one_exact_tap(arrays):
    found = causes.rounded(arrays, (1, 2))
    for name, kernel in arrays.items():
        if name[4] in "345" or name.endswith("bias"):
            assert found[name] is kernel
            continue
        step = (kernel.max() - kernel.min()) / 255
        assert np.abs(found[name] - kernel).max() < 0.51 * step + 2e-3 * np.abs(kernel).max()
        assert (found[name][:, :, 2, 2] == kernel[:, :, 2, 2]).all()
        others = np.delete(found[name].reshape(-1, 9), 8, axis=1)
        assert not np.array_equal(others, np.delete(kernel.reshape(-1, 9), 8, axis=1))
        places = (others - kernel.min()) / step
        assert np.abs(places - np.round(places)).max() < 0.3  # float16


def test_noise_is_as_large_as_the_rounding(arrays):
    rounded, found = causes.rounded(arrays, (4, 5)), causes.noisy(arrays, (4, 5), 0)
    for name in ("conv4_2_weight", "conv5_3_weight"):
        sizes = [np.square(one[name] - arrays[name]).mean() for one in (rounded, found)]
        assert sizes[0] == pytest.approx(sizes[1], rel=0.25)
        assert (found[name][:, :, 2, 2] == arrays[name][:, :, 2, 2]).all()
        assert not np.array_equal(found[name], causes.noisy(arrays, (4, 5), 1)[name])
    assert found["conv1_1_weight"] is arrays["conv1_1_weight"]


def test_the_chain_is_that_of_fig_3_and_one_step_earlier_is_another(
    small_weights, picture_folder, variants
):
    network = catalogue.load(weights=small_weights)
    content = picture_folder / "golden_gate.png"
    found = causes.chain(content, "relu1_2", variants["as drawn"], network, [2, 0])
    wanted = fmi.invert.feature_map(
        content, "relu1_2", [2, 0], chain=True, network=network, **QUICK
    )
    for one, other in zip(found, wanted):
        assert np.array_equal(one.array, other.array)
        assert one.record == other.record
    back = causes.chain(content, "relu1_2", variants["target one step earlier"], network, [2, 0])
    assert np.array_equal(back[0].array, found[0].array)
    assert not np.allclose(back[1].array, found[1].array, atol=1)
    states = []
    fmi.invert.feature_map(
        content, "relu1_2", [2], network=network, **QUICK, callback=states.append
    )
    again = fmi.invert.feature_map(
        states[-2].arrays[0].clip(0, 255).astype(np.uint8), "relu1_2", [0], network=network, **QUICK
    )
    # Rounding to 8 bits, and another white, are all that differs.
    change = np.abs(back[1].array - again[0].array).mean()
    assert change < 0.5 * np.abs(found[1].array - again[0].array).mean()


def test_the_table(small_weights, picture_folder, variants, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("FMI_PICTURES", str(picture_folder))
    sheet = tmp_path / "published.png"
    Image.fromarray(np.zeros((1080, 1440, 3), np.uint8)).save(sheet)
    table = tmp_path / "table.json"
    words = ["causes", "relu1_2", str(sheet), "--weights", str(small_weights)]
    words += ["--filters", "1,0", "--json", str(table), "--only"]
    names = "as drawn,seed 1,noise in blocks 4-5,blocks 1-3 in 8 bits,target one step earlier"
    monkeypatch.setattr("sys.argv", [*words, names])
    assert causes.main() == 0
    lines = capsys.readouterr().out.splitlines()
    rows = json.loads(table.read_text())
    assert len(lines) == 10 and set(rows) == set(names.split(","))
    assert [row["panel"] for row in rows["seed 1"]] == ["relu1_2_filter1", "relu1_2_filter0"]
    explained = {name: [row["reached"]["explained"] for row in rows[name]] for name in rows}
    # Blocks 4 and 5 are not used at relu1_2; everything else changes the result.
    assert explained["as drawn"] == pytest.approx(explained["noise in blocks 4-5"])
    for name in ("seed 1", "blocks 1-3 in 8 bits"):
        assert explained[name][0] != explained["as drawn"][0]
    assert explained["target one step earlier"][0] == pytest.approx(explained["as drawn"][0])
    assert explained["target one step earlier"][1] != explained["as drawn"][1]
    drawn = []
    monkeypatch.setattr(causes, "draw", lambda *given: drawn.append(given))
    for place, wrong in ((2, str(table)), (6, "x")):  # before anything is drawn
        changed = [*words, "as drawn"]
        changed[place] = wrong
        monkeypatch.setattr("sys.argv", changed)
        assert causes.main() == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("causes: ") and wrong in line and drawn == []
    monkeypatch.setattr("sys.argv", [*words, "seed 9"])
    assert causes.main() == 2
    assert capsys.readouterr().err.startswith("causes: unknown variant 'seed 9'; did you mean")
