"""The claims: what is measured on constructed data with a known answer, and the whole way."""

import csv
import json
import logging
import subprocess
import sys
import xml.etree.ElementTree

import numpy as np
import pytest
from conftest import smooth_picture
from PIL import Image
from scipy.stats import beta, spearmanr

from experiments.claims import (
    __main__,
    arrangement,
    controls,
    design,
    drives,
    fading,
    intricacy,
    oneness,
    panels,
    paths,
    prediction,
    sameness,
    specificity,
    study,
    style,
    table,
)
from experiments.claims.drives import Drive
from experiments.claims.question import MISSING, Rows, exceeds, geometric, of_layers
from experiments.claims.study import Study
from experiments.claims.table import Row, Verdict
from fmi.errors import InputError
from fmi.evidence import crops
from fmi.evidence.intervals import Estimate
from fmi.networks import catalogue
from fmi.pictures import read

SMALL = ["N=3", "K=3", "STARTS=2", "CONTROL_STARTS=1", "LONG_EDGE=48", "STEPS=3", "DRAWS=2"]


@pytest.fixture
def small(tmp_path):
    """The design of a small study on the embedded network."""
    layers = "LAYERS=relu1_2,relu2_2"
    return [*SMALL, layers, f"RESULTS={tmp_path / 'claims'}", "PRECISION=float32"]


# --- the design ---


def test_filters_are_drawn_with_the_seed_and_are_not_the_first_ones():
    one = design.drawn("relu3_2", 256, 16, seed=0)
    assert len(set(one.tolist())) == 16 and one.max() > 100
    np.testing.assert_array_equal(one, design.drawn("relu3_2", 256, 16, seed=0))
    assert one.tolist() != design.drawn("relu3_2", 256, 16, seed=1).tolist()
    assert one.tolist() != design.drawn("relu4_2", 256, 16, seed=0).tolist()
    assert design.drawn("relu1_2", 16, 99, seed=0).tolist() == list(range(16))


@pytest.mark.parametrize(
    "words, fact",
    [
        (["N=0"], "N|n"),
        (["K=9"], "9"),
        (["CLAIMS=12"], "12"),
        (["CLAIMS=x"], "x"),
        (["STARTS=-1"], "-1"),
        (["TEXTURE=dir"], "TEXTURES"),
        (["LAYERS=relu9_9"], "relu9_9"),
        (["LAYERS=relu1_2,conv2_2"], "conv2_2 is no activation"),
        (["LAYERS=relu1_2:3"], "N of them"),
        (["PHOTOS=/nowhere", "CLAIMS=5"], "/nowhere"),
        (["TEXTURES=/nowhere", "CLAIMS=6"], "/nowhere"),
    ],
)
def test_a_mistake_is_told_in_one_line(words, fact, small, capsys):
    names = {word.partition("=")[0] for word in words}
    kept = [word for word in small if word.partition("=")[0] not in names]
    assert __main__.main([*kept, *words]) == 2
    error = capsys.readouterr().err
    assert fact.split("|")[0] in error or fact.split("|")[-1] in error
    assert error.splitlines()[-1].startswith("claims: ") and "Traceback" not in error


# --- the untrained network ---


def test_untrained_weights_have_the_trained_mean_activations(tmp_path):
    network = catalogue.load(weights="embedded")
    scenes = [read(smooth_picture(48, 64, seed)) for seed in (1, 2)]
    found = controls.untrained(network, scenes, 64, tmp_path / "untrained.npz")
    wanted = controls.mean_activations(network, scenes, 64)
    for name, mean in controls.mean_activations(found, scenes, 64).items():
        assert mean == pytest.approx(wanted[name], rel=0.02)
    kernel = found.weights.arrays["conv3_2_weight"]
    assert kernel.shape == network.weights.arrays["conv3_2_weight"].shape
    assert np.corrcoef(kernel.ravel(), network.weights.arrays["conv3_2_weight"].ravel())[0, 1] < 0.1
    assert not found.weights.arrays["conv3_2_bias"].any()
    again = controls.untrained(network, scenes, 64, tmp_path / "again.npz")
    assert again.weights.sha256 == found.weights.sha256


def test_he_has_the_variance_of_he():
    arrays = {"conv1_1_weight": np.zeros((400, 8, 3, 3)), "conv1_1_bias": np.ones(400)}
    found = controls.he(arrays, seed=0)
    assert found["conv1_1_weight"].std() == pytest.approx(np.sqrt(2 / 72), rel=0.02)
    assert not found["conv1_1_bias"].any()


# --- mathematics of the claims ---


def test_shares_of_the_own_feature_map():
    means = np.array([[[[1.0, 3.0, 0.0]]], [[[0.0, 0.0, 0.0]]]])  # (2, 1, 1, 3)
    found = specificity.own_shares(means, np.array([1, 2]))
    assert found[0, 0, 0] == 0.75 and np.isnan(found[1, 0, 0])
    assert specificity.undriven(np.array([4, 7]), np.array([0.2, 0.1]), np.array([0.1, 0.1])) == (
        "not driven: 7"
    )


def test_doublings():
    found = geometric(np.array([4.0, 1.0, 0.0]), np.array([1.0, 0.0, 1.0]))
    assert found[0] == 2 and np.isnan(found[1:]).all()


def test_what_is_left_of_an_answer():
    drive = Drive(
        rows=np.eye(2),
        answers_to_all=np.array([[1.0, 3.0, 2.0], [0.0, 0.0, 0.0]]),
        crops=np.array([[1, 2], [-1, -1]]),
        answers=np.array([[3.0, 2.0], [np.nan, np.nan]]),
    )
    assert drive.mean.tolist() == [2, 0]
    changed = drive.at(np.array([[2.5, 0.0], [2.0, 9.0]]), np.array([1, 2]))
    np.testing.assert_array_equal(changed[0], [2.5, 2.0])
    assert np.isnan(changed[1]).all()
    found = arrangement.left(changed, drive)
    assert found[0] == pytest.approx(0.5)  # (.5 + 0) of (1 + 0)
    assert np.isnan(found[1])
    assert arrangement.left(drive.answers, drive)[0] == 1
    assert drive.first(1).crops.tolist() == [[1], [-1]]
    only = drive.at(np.array([[2.5, 0.0]]), np.array([1]))  # crop 2 was not changed
    assert only[0, 0] == 2.5 and np.isnan(only[0, 1])


def test_pairs_of_crops():
    answers = np.linspace(0, 1, 40)[None].repeat(2, axis=0)
    drive = Drive(np.eye(2), answers, np.array([[39, 38, -1], [5, 4, 3]]), np.zeros((2, 3)))
    strong, weak = prediction.pairs(drive, seed=0)
    assert strong.tolist() == drive.crops.tolist()
    assert (weak <= 19).all() and (weak >= 0).all()
    assert not set(weak[1]) & {3, 4, 5}
    assert all(len(set(row)) == 3 for row in weak.tolist())


def test_other_top_crops_are_of_other_photographs():
    natural = crops.cut([smooth_picture(40, 40, seed) for seed in range(3)], 20, 20)
    distances = np.arange(144.0).reshape(12, 12)
    distances += distances.T
    top = np.array([[0, 1, 4, 8]])
    drive = Drive(np.eye(1), np.zeros((1, 12)), top, np.zeros((1, 4)))
    right, wrong = prediction.other_crops(
        distances, drive, natural, np.array([[0, 4]]), np.array([[9, -1]])
    )
    # The alternatives 0 and 9 are of photographs 0 and 2, so that crop 4 alone can be asked.
    assert right[0, 0] == distances[4, 0] and wrong[0, 0] == distances[4, 9]
    assert np.isnan(right[0, 1])


def test_rank_correlations_against_scipy():
    random = np.random.RandomState(0)
    one, other = random.rand(3, 20).round(1), random.rand(2, 20).round(1)
    found = paths.rank_correlations(one, other)
    for i, j in np.ndindex(3, 2):
        assert found[i, j] == pytest.approx(spearmanr(one[i], other[j])[0])
    assert np.isnan(paths.rank_correlations(np.zeros((1, 5)), random.rand(1, 5))).all()


def test_principal_components_keep_distances_and_leave_out_what_does_not_vary():
    random = np.random.RandomState(0)
    values = np.concatenate([random.normal(0, 1, (30, 3)), np.full((30, 1), 7.0)], axis=1)
    standard = (values[:, :3] - values[:, :3].mean(0)) / values[:, :3].std(0)
    found = oneness.principal(values, 3)
    for i, j in [(0, 1), (5, 20)]:
        wanted = np.linalg.norm(standard[i] - standard[j])
        assert np.linalg.norm(found[i] - found[j]) == pytest.approx(wanted)
    assert found[:, 0].std() >= found[:, 1].std() >= found[:, 2].std()


def test_textures_of_a_folder(tmp_path):
    for label, seed in (("wood", 1), ("stone", 2)):
        (tmp_path / label).mkdir()
        for number in range(2):
            pixels = smooth_picture(150 + number, 200, seed)
            Image.fromarray(pixels).save(tmp_path / label / f"{number}.png")
    (tmp_path / "notes.txt").write_text("no texture")
    found = style.of_folder(tmp_path)
    assert found.labels == ["stone", "stone", "wood", "wood"]
    assert {pixels.shape for pixels in found.pixels} == {(128, 128, 3)}
    (tmp_path / "wood" / "1.png").unlink()
    with pytest.raises(InputError, match="two classes"):
        style.of_folder(tmp_path)


def test_procedural_textures_have_classes_and_are_not_those_of_the_training():
    found = style.drawn(0)
    assert len(found.labels) == 200 and len(set(found.labels)) == 40
    assert style.HELD_OUT >= 14  # train.yaml: canvases.train + canvases.held_out
    small = style.harder(0)
    assert {pixels.shape for pixels in small.pixels} == {(64, 64, 3)}
    assert all(
        (p[..., 0] == p[..., 1]).all() and (p[..., 0] == p[..., 2]).all() for p in small.pixels
    )


# --- verdicts ---


@pytest.mark.parametrize(
    "holds, also, wanted",
    [
        ([True, True], [True], Verdict.HOLDS),
        ([True, True], [False], Verdict.IN_PART),
        ([True, False], [], Verdict.IN_PART),
        ([False, False], [True], Verdict.FAILS),
    ],
)
def test_verdicts(holds, also, wanted):
    known = [Estimate(1, 0, 2), MISSING]
    assert of_layers(holds, [known], also) is wanted
    assert of_layers(holds, [known, [MISSING, MISSING]], also) is Verdict.UNMEASURED


@pytest.mark.parametrize("number", [n for n in __main__.QUESTIONS if n != "6"])
def test_what_could_not_be_measured_does_not_fail(number):
    """Claim 6 has three parts, of which one may be missing; it does not depend on N and K."""
    question, layers = __main__.QUESTIONS[number], ["relu1_2", "relu2_2"]
    names = {
        "2": [sameness.AUC, sameness.AGAIN, *(f"{sameness.VARIANCE} {p}" for p in sameness.PARTS)],
        "9": [paths.quantity(layers[-1])],
    }
    rows = [
        Row(number, quantity, layer, "filters", MISSING)
        for quantity in names.get(number, ["quantity"])
        for layer in layers
    ]
    verdict, finding = question.answer(rows, layers)
    assert verdict is Verdict.UNMEASURED and "nan" not in finding


def test_an_interval_exceeds_a_limit_only_as_a_whole():
    assert exceeds(Estimate(2, 1.5, 3), 1) and not exceeds(Estimate(2, 0.5, 3), 1)
    assert not exceeds(Estimate(np.nan, np.nan, np.nan), 1)


def rows_with(question, values, layers):
    """Rows of a claim in which every number is the same."""
    return [
        Row(question.number, quantity, layer, subject, Estimate(value, value, value))
        for (quantity, subject), value in values.items()
        for layer in layers
    ]


def test_the_answer_follows_the_numbers():
    layers = ["relu1_2", "relu2_2"]
    question = specificity.QUESTION

    def verdict(gain, first):
        names = {
            (specificity.GAIN, "filters"): gain,
            (specificity.FIRST, "filters"): first,
            (specificity.FIRST, panels.UNTRAINED): 0.1,
            (specificity.SHARE, "filters"): 0.2,
        }
        return question.answer(rows_with(question, names, layers), layers)[0]

    assert verdict(1.5, 0.9) is Verdict.HOLDS
    assert verdict(0.9, 0.9) is Verdict.FAILS
    assert verdict(1.5, 0.4) is Verdict.FAILS


def test_shares_have_exact_intervals_where_all_are_equal():
    """Those of Clopper and Pearson, from the beta distribution, and of what is known alone."""
    rows = Rows("5")
    none = np.zeros((16, 1))
    none[:6] = np.nan
    for name, array in {"none": none, "all": np.ones((4, 3)), "one picture": none.T}.items():
        rows.mean(name, table.ALL, "filters", array, binary=True)
    found = {row.quantity: row for row in rows.found}
    wanted = beta.ppf([0.025, 0.975], [4, 1], [1, 10])  # of 4 rows, and of 10 that are known
    assert found["all"].estimate == Estimate(1, pytest.approx(wanted[0]), 1)
    assert found["none"].estimate == Estimate(0, 0, pytest.approx(wanted[1]))
    assert found["one picture"].estimate == found["none"].estimate
    assert [row.number for row in rows.found] == [10, 4, 10]


# --- the whole way ---


def test_layers_come_in_the_order_of_computation_each_once(small):
    """Else a trend over depth would be one over the words of the command."""
    words = [word for word in small if not word.startswith("LAYERS")]
    found = Study(design.read([*words, "LAYERS=relu2_2,relu1_2,relu2_2"]))
    assert found.layers == ["relu1_2", "relu2_2"]


@pytest.mark.parametrize("words, known", [("N=2 K=1", True), ("N=1 K=2", False)])
def test_one_picture_or_one_filter_is_measured_as_far_as_it_goes(small, tmp_path, words, known):
    settings = [*small, *words.split(), "STARTS=1", "CLAIMS=1", "LAYERS=relu1_2"]
    kept = {word.partition("=")[0]: word for word in [*settings, f"STORE={tmp_path / 'store'}"]}
    assert __main__.main(list(kept.values())) == 0
    (claim,) = table.read(tmp_path / "claims" / "claims.json").claims
    first = next(row for row in claim.rows if row.quantity == specificity.FIRST)
    assert np.isfinite(first.estimate.value) == known
    assert (claim.verdict is Verdict.UNMEASURED) != known


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """All claims, measured in small on the embedded network."""
    folder, photographs = (tmp_path_factory.mktemp(name) for name in ("claims", "photographs"))
    for seed in range(6):
        Image.fromarray(smooth_picture(200, 264, seed)).save(photographs / f"{seed}.png")
    words = [*SMALL, "LAYERS=relu1_2,relu2_2", f"RESULTS={folder}", "PRECISION=float32"]
    words += [f"STORE={folder / 'store'}", f"PHOTOS={photographs}"]
    patch = pytest.MonkeyPatch()
    patch.setattr(study, "OTHERS", ())  # whatever is here
    patch.setattr(style, "CLASSES", 6)
    patch.setattr(style, "SYNTHESES", 2)
    try:
        assert __main__.main(words) == 0
    finally:
        patch.undo()
    return folder, words


def test_every_claim_is_measured_and_written(measured):
    folder, _ = measured
    report = table.read(folder / "claims.json")
    assert [claim.number for claim in report.claims] == list("123456789")
    for claim in report.claims:
        assert claim.rows and claim.verdict in tuple(Verdict)[:3] and claim.finding
        assert np.isfinite([row.estimate.value for row in claim.rows]).mean() > 0.5
        subjects = {row.subject for row in claim.rows}
        assert len(subjects) > 1, "no control"
        Image.open(folder / f"claim_{claim.number}.png").verify()
        xml.etree.ElementTree.parse(folder / f"claim_{claim.number}.svg")
    with (folder / "claims.csv").open(newline="") as file:
        assert sum(1 for _ in csv.reader(file)) > sum(len(claim.rows) for claim in report.claims)
    facts = json.loads((folder / "claims.json").read_text())["facts"]
    assert facts["seed"] == 0 and facts["starts"] == 2
    chosen = {"settings": "fast", "denoise": 0.05, "steps": "3", "control_starts": 1, "draws": 2}
    assert {**facts["variables"], **chosen} == facts["variables"]
    assert "CONTROL_STARTS=1 DENOISE=0.05 DRAWS=2" in (folder / "claims.txt").read_text()
    for claim in report.claims:
        for name in ("claims.txt", "claims.md"):
            assert claim.title in (folder / name).read_text()


def test_intervals_have_no_impossible_ends(measured):
    """Few filters and pictures give wide intervals, which leave the range of a number."""
    report, seen = table.read(measured[0] / "claims.json"), set()
    ranges = {
        specificity.SHARE: (0, 1),
        specificity.EXPLAINED: (-np.inf, 1),
        oneness.NUMBER: (1, 5),
        fading.SSIM: (-1, 1),
        "rank correlation with the top": (-1, 1),
        **dict.fromkeys(intricacy.QUANTITIES, (0, np.inf)),
    }
    for row in (row for claim in report.claims for row in claim.rows):
        for name, (least, most) in ranges.items():
            if row.quantity.startswith(name) and np.isfinite(row.estimate.value):
                seen.add(name)
                assert least <= row.estimate.low <= row.estimate.high <= most, row
        if row.quantity == oneness.ONE and np.isfinite(row.estimate.value):
            assert row.estimate.low < row.estimate.high, row
    assert seen == set(ranges)


def test_nothing_is_computed_twice(measured, caplog, monkeypatch):
    folder, words = measured
    before = {path: path.stat().st_mtime_ns for path in (folder / "store").rglob("array.npy")}
    assert len(before) > 50
    first = table.read(folder / "claims.json")
    assert __main__.main([*words, "CLAIMS=1,8"]) == 0
    after = {path: path.stat().st_mtime_ns for path in (folder / "store").rglob("array.npy")}
    assert after == before
    again = table.read(folder / "claims.json")
    for claim in again.claims:
        (same,) = [one for one in first.claims if one.number == claim.number]
        assert claim.rows == same.rows and claim.finding == same.finding


def test_filters_that_are_copies_and_the_direction_of_a_filter(tmp_path, small):
    """Copies give equal panels, which count as equally excited; a direction is a filter."""
    small_study = Study(design.read([*small, "CLAIMS=1"]))
    found = small_study.panels(panels.FILTERS, "relu1_2")
    assert found.inversions.shape == (3, 3, 2)
    assert len(found.pictures) == 18
    rows = drives.rows_of(small_study, panels.FILTERS, "relu1_2")
    assert rows.argmax(axis=1).tolist() == small_study.filters("relu1_2").tolist()
    directions = drives.rows_of(small_study, panels.DIRECTIONS, "relu1_2")
    np.testing.assert_allclose(np.linalg.norm(directions, axis=1), 1)
    made = small_study.panels(panels.DIRECTIONS, "relu1_2")
    for row, one in zip(directions, made.inversions[:, 0, 0]):
        np.testing.assert_allclose(one.record["direction"], row)
    maximised = small_study.panels(panels.MAXIMISED, "relu1_2")
    assert maximised.inversions.shape == (3, 3, 1)
    seeds = [one.record["seed"] for one in maximised.inversions[0, :, 0]]
    assert seeds == [0, 1, 2]


def test_an_interrupted_run_tells_so_and_goes_on(tmp_path, small, monkeypatch, capsys):
    function = fmi_feature_map = __main__.Study.panels

    def stop(self, kind, layer, count=None):
        if kind == panels.UNTRAINED:
            raise KeyboardInterrupt
        return fmi_feature_map(self, kind, layer, count)

    monkeypatch.setattr(__main__.Study, "panels", stop)
    words = [*small, "CLAIMS=1", f"STORE={tmp_path / 'store'}"]
    assert __main__.main(words) == 130
    assert "interrupted" in capsys.readouterr().err
    kept = list((tmp_path / "store").rglob("array.npy"))
    assert len(kept) == 36
    monkeypatch.setattr(__main__.Study, "panels", function)
    assert __main__.main(words) == 0
    assert set(kept) < set((tmp_path / "store").rglob("array.npy"))


def test_a_page_and_a_summary_of_reports(measured, tmp_path, capsys):
    folder, _ = measured
    out = tmp_path / "page.md"
    assert __main__.main(["page", str(out), str(folder / "claims.json")]) == 0
    assert "criterion" in out.read_text().lower() or "It holds" in out.read_text()
    assert list((tmp_path / "page").glob("*.png"))
    capsys.readouterr()
    assert __main__.main(["summary", str(folder / "claims.json")]) == 0
    assert len(capsys.readouterr().out.strip().splitlines()) <= 11
    assert __main__.main(["page", str(out), str(folder / "claims.csv")]) == 2


def test_make_claims_is_a_command(tmp_path):
    logging.getLogger().handlers.clear()
    done = subprocess.run(
        [sys.executable, "-m", "experiments.claims", "CLAIMS=77"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and "77" in done.stderr and "Traceback" not in done.stderr


def test_fmi_claims_is_for_a_clone(tmp_path, monkeypatch, capsys):
    from fmi import cli

    assert cli.main(["claims", "CLAIMS=77"]) == 2
    assert "77" in capsys.readouterr().err
    monkeypatch.chdir(tmp_path)
    assert cli.main(["claims"]) == 2
    assert "clone" in capsys.readouterr().err
