"""The experiments on why panels differ, on the small network."""

import dataclasses
import json

import numpy as np
import pytest
from PIL import Image

import fmi.invert
from experiments import causes, published
from fmi.call import Call
from fmi.networks import catalogue

QUICK = {"precision": "float32", "long_edge": 40, "steps": 4, "stop": 0, "progress": False}
KEPT = ("seed", "alpha", "beta", "code_weight", "style_layers", "style_size")  # also changed


@pytest.fixture
def quick(monkeypatch):
    """Make all variants quick."""
    for table in (causes.CHAINS, causes.TRANSFERS):
        for name, variant in table.items():
            options = {k: v for k, v in variant.options.items() if k in KEPT}
            changed = causes.Variant(
                {**QUICK, **options}, variant.change, variant.back, variant.anew
            )
            monkeypatch.setitem(table, name, changed)


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


def test_the_target_one_step_earlier(small_weights, picture_folder):
    options = {**QUICK, "network": catalogue.load(weights=small_weights)}
    content = picture_folder / "golden_gate.png"
    found = list(causes.chain(content, "relu1_2", [2, 0], causes.Variant(), options).values())
    wanted = fmi.invert.feature_map(content, "relu1_2", [2, 0], chain=True, **options)
    assert all(np.array_equal(one.array, other.array) for one, other in zip(found, wanted))
    earlier = causes.CHAINS["target one step earlier"]
    back = list(causes.chain(content, "relu1_2", [2, 0], earlier, options).values())
    assert np.array_equal(back[0].array, found[0].array)
    assert not np.allclose(back[1].array, found[1].array, atol=1)
    states = []
    fmi.invert.feature_map(content, "relu1_2", [2], **options, callback=states.append)
    before = states[-2].arrays[0].clip(0, 255).astype(np.uint8)
    again = fmi.invert.feature_map(before, "relu1_2", [0], **options)
    # Rounding to 8 bits, and another white, are all that differs.
    change = np.abs(back[1].array - again[0].array).mean()
    assert change < 0.5 * np.abs(found[1].array - again[0].array).mean()


@pytest.mark.parametrize("kind", ["anew", "earlier", "gatys"])
def test_ctrl_c_ends_a_variant_at_once(small_weights, picture_folder, kind, monkeypatch):
    begun = []
    invert = Call.invert

    def interrupted(call, *given, **more):
        begun.append(call)
        call.options = dataclasses.replace(call.options, callback=stop)
        return invert(call, *given, **more)

    def stop(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(Call, "invert", interrupted)
    options = {**QUICK, "network": catalogue.load(weights=small_weights)}
    content, style = (picture_folder / f"{n}.png" for n in ("tubingen", "starry_night"))
    variant = causes.Variant(back=kind == "earlier", anew=[0])
    with pytest.raises(KeyboardInterrupt):
        if kind == "gatys":
            causes.transfers(content, {"one": style, "two": content}, variant, options)
        else:
            causes.chain(content, "relu1_2", [2, 0], variant, options)
    assert len(begun) == 1


def blank(folder, figure):
    """A published figure without anything on it."""
    sheet = folder / "published.png"
    Image.new("RGB", published.SHEETS[figure].size).save(sheet)
    return sheet


def run(monkeypatch, *words):
    monkeypatch.setattr("sys.argv", ["causes", *map(str, words)])
    return causes.main()


def test_the_table(small_weights, picture_folder, quick, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("FMI_PICTURES", str(picture_folder))
    monkeypatch.setenv("FMI_STORE", str(tmp_path / "store"))
    sheet = blank(tmp_path, "fig3")
    table = tmp_path / "table.json"
    words = ["relu1_2", sheet, "--weights", small_weights, "--filters", "1,0", "--json", table]
    assert run(monkeypatch, *words) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = json.loads(table.read_text())
    assert set(rows) == set(causes.CHAINS) and len(lines) == 2 * len(rows)
    assert [row["panel"] for row in rows["seed 1"]] == ["relu1_2_filter1", "relu1_2_filter0"]
    explained = {name: [row["reached"]["explained"] for row in rows[name]] for name in rows}
    # Blocks 4 and 5 are not used at relu1_2; everything else changes the result.
    assert explained["as drawn"] == pytest.approx(explained["noise in blocks 4-5"])
    for name in ("seed 1", "blocks 1-3 in 8 bits"):
        assert explained[name][0] != explained["as drawn"][0]
    assert explained["target one step earlier"][0] == pytest.approx(explained["as drawn"][0])
    assert explained["target one step earlier"][1] != explained["as drawn"][1]
    alone = fmi.invert.feature_map(
        picture_folder / "golden_gate.png", "relu1_2", [1, 0], weights=small_weights, **QUICK
    )
    assert explained["chain begun anew at 2"] == pytest.approx(explained["as drawn"])
    assert explained["no chain (Eq. 2)"] == pytest.approx([one.explained for one in alone])
    assert explained["no chain (Eq. 2)"][1] != explained["as drawn"][1]


def test_gatys(small_weights, picture_folder, quick, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("FMI_PICTURES", str(picture_folder))
    monkeypatch.setenv("FMI_STORE", str(tmp_path / "store"))
    sheet = blank(tmp_path, "fig5")
    table = tmp_path / "table.json"
    names = ["as drawn", "three style layers", "a tenth of the content weight"]
    words = ["gatys", sheet, "--weights", small_weights, "--styles", "starry_night"]
    words += ["--json", table, "--picture", "tubingen", "--only", ",".join(names)]
    assert run(monkeypatch, *words) == 0
    rows = json.loads(table.read_text())
    assert set(rows) == set(names) and len(capsys.readouterr().out.splitlines()) == 3
    found = [row for (row,) in (rows[name] for name in names)]
    assert {row["panel"] for row in found} == {"tubingen/starry_night_gatys"}
    content, style = (picture_folder / f"{name}.png" for name in ("tubingen", "starry_night"))
    wanted = fmi.invert.gatys(content, style, weights=small_weights, **QUICK)
    losses = [row["reached"]["loss"] for row in found]
    assert losses[0] == pytest.approx(wanted.loss[-1]) and len(set(losses)) == 3


def test_wrong_words_are_refused_before_anything_is_drawn(
    small_weights, picture_folder, monkeypatch, tmp_path, capsys
):
    monkeypatch.setenv("FMI_PICTURES", str(picture_folder))
    sheet = blank(tmp_path, "fig3")
    words = ["relu1_2", sheet, "--weights", small_weights, "--only"]
    drawn = []
    monkeypatch.setattr(causes, "rows_of", lambda *given: drawn.append(given))
    gatys = ["gatys", sheet, "--weights", small_weights]  # Fig. 3 in place of Fig. 5
    for wrong, given in (
        (str(small_weights), ["relu1_2", small_weights, *words[2:], "as drawn"]),
        ("x", [*words, "as drawn", "--filters", "x"]),
        ("nowhere", [*words, "as drawn", "--picture", "nowhere"]),
        ("relu9_9", ["relu9_9", *words[1:], "as drawn"]),
        ("seed 9", [*words, "as drawn,seed 9"]),
        ("published.png", gatys),
    ):
        assert run(monkeypatch, *given) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("causes: ") and wrong in line and drawn == []
