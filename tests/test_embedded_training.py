"""The embedded network: its textures, training, folding, export, and the file in the repository."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import ended

import fmi.invert

pytest.importorskip("scipy")

from experiments.embedded import dataset, evaluate, export, network, textures, train  # noqa: E402
from fmi.device.mxnet import mx  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
EMBEDDED = ROOT / "models" / "embedded.npz"
CHANNELS = (4, 4, 6, 8, 8)


@pytest.fixture(scope="module")
def config():
    """A training run of four steps on three classes."""
    whole = train.Config.read(ROOT / "experiments" / "embedded" / "train.yaml")
    active = (-0.5,) * 5  # thresholds at which so narrow a network is active everywhere
    phases = [
        replace(phase, steps=2, crop=32, batch=4, thresholds=active) for phase in whole.phases[:2]
    ]
    return replace(
        whole,
        canvases={"classes": 3, "train": 2, "held_out": 1},
        network={**whole.network, "channels": CHANNELS},
        warm_up=2,
        phases=tuple(phases),
        report={"every": 3, "crop": 32, "pictures": 3},
        calibration={**whole.calibration, "pictures": ["coffee"], "long_edge": 64},
    )


@pytest.fixture(scope="module")
def run(config, tmp_path_factory):
    """A finished run and its folder."""
    folder = tmp_path_factory.mktemp("run")
    return train.train(config, folder), folder


def parameters(finished):
    return {k: v.data().asnumpy() for k, v in finished.net.collect_params().items()}


def test_a_canvas_is_the_same_at_every_call_and_new_for_every_number():
    first = textures.canvas(5, 0)
    assert first.shape == (textures.SIZE, textures.SIZE, 3)
    assert first.dtype == np.uint8
    np.testing.assert_array_equal(first, textures.canvas(5, 0))
    assert (first != textures.canvas(5, 1)).any()


def test_every_family_draws_and_no_two_classes_are_the_same():
    counts = np.cumsum([0] + [n * textures.PALETTES_PER_STRUCTURE for _, n in textures.FAMILIES])
    assert counts[-1] == len(textures.classes())
    pictures = [textures.canvas(int(label), 0) for label in counts[:-1]]
    assert all(picture.std() > 5 for picture in pictures)
    signatures = {picture[::16, ::16].tobytes() for picture in pictures}
    assert len(signatures) == len(pictures)
    settings = {(id(c.structure), c.palette.colours.tobytes()) for c in textures.classes()}
    assert len(settings) == len(textures.classes())


def test_a_batch_depends_on_seed_and_step_alone(config, run):
    canvases = train.all_canvases(config, run[1])
    phase = config.phases[1]
    first = dataset.batch(canvases, phase, 1, 7)
    for a, b in zip(first, dataset.batch(canvases, phase, 1, 7)):
        np.testing.assert_array_equal(a, b)
    assert (first.pictures != dataset.batch(canvases, phase, 1, 8).pictures).any()
    assert (first.pictures != dataset.batch(canvases, phase, 2, 7).pictures).any()


def test_a_batch_ends_with_a_plain_picture_of_no_class(config, run):
    data = dataset.batch(train.all_canvases(config, run[1]), config.phases[1], 1, 0)
    assert data.pictures.shape == (5, 3, 32, 32)
    assert abs(data.pictures[-1] / dataset.SCALE).max() < 6 * dataset.PLAIN_NOISE
    assert data.shares[:, -1].sum() == 0
    assert (data.shares[:, :-1].sum(0) <= 1 + 1e-6).all()


def test_learning_rate_warms_up_and_falls_within_each_phase(config):
    high, low = config.phases[0].rate
    assert config.rate_at(0) == pytest.approx(high / 2)
    assert config.rate_at(1) == pytest.approx(low)
    assert config.rate_at(2) == pytest.approx(config.phases[1].rate[0])


@pytest.mark.parametrize("pause", [1, 3])  # within the first phase and within the second
def test_resumed_run_has_the_parameters_of_an_uninterrupted_one(config, run, tmp_path, pause):
    train.train(config, tmp_path, until=pause)
    assert [path.name for path in train.checkpoints(tmp_path)] == [f"step-{pause:06d}"]
    resumed = train.train(config, tmp_path)
    assert resumed.step == config.steps == 4
    whole = parameters(run[0])
    for name, value in parameters(resumed).items():
        np.testing.assert_array_equal(value, whole[name], err_msg=name)
    history = json.loads((tmp_path / "metrics.json").read_text())
    assert [entry["step"] for entry in history] == sorted({pause, 3, 4})


def test_an_unknown_entry_of_the_yaml_is_refused(tmp_path):
    path = tmp_path / "train.yaml"
    path.write_text((ROOT / "experiments/embedded/train.yaml").read_text() + "\nspeed: 1\n")
    with pytest.raises(TypeError, match="speed"):
        train.Config.read(path)


def test_canvases_of_another_run_are_refused(config, run):
    with pytest.raises(ValueError, match="delete it"):
        dataset.draw_canvases(run[1] / "canvases.npy", 4, 3)


def test_folded_network_computes_what_the_trained_one_does(config):
    net = train.Run(config).net
    net.set_thresholds([-0.5] * 5, [-0.5] * 5)  # all layers active
    for block in net.blocks:  # statistics far from 0 and 1
        for unit in block:
            shape = unit.norm.running_mean.shape
            unit.norm.running_mean.set_data(mx.nd.random.normal(0, 0.1, shape))
            unit.norm.running_var.set_data(mx.nd.random.uniform(0.3, 2, shape))
    pictures = np.random.RandomState(0).normal(0, 1, (2, 3, 32, 48)).astype(np.float32)
    assert export.folding_difference(net, network.fold(net), pictures) < 1e-4


def test_a_phase_sets_the_thresholds_of_first_relus_apart(config):
    run = train.Run(config)
    run.begin(replace(config.phases[0], first_thresholds=(0.1, 0.2, 0.3, 0.4, 0.5)))
    for block, first in zip(run.net.blocks, (0.1, 0.2, 0.3, 0.4, 0.5)):
        found = [unit.norm.beta.data().asnumpy() for unit in block]
        np.testing.assert_allclose(found[0], -first, rtol=1e-6)
        np.testing.assert_array_equal(found[1:], 0.5)


def test_smooth_kernels_are_blind_to_patterns_that_alternate_from_pixel_to_pixel(config):
    first = network.fold(train.Run(config).net)["conv1_1_weight"]
    signs = np.array([1, -1, 1])
    assert abs(first).max() > 0
    np.testing.assert_allclose((first * signs).sum(-1), 0, atol=1e-6)
    np.testing.assert_allclose((first * signs[:, None]).sum(-2), 0, atol=1e-6)


def test_rescaling_sets_mean_activations_and_keeps_the_function():
    pictures = [np.random.RandomState(i).normal(0, 50, (1, 3, 32, 32 + 16 * i)) for i in (0, 1)]
    weights = network.untrained(CHANNELS, 0)
    means = {name: 10.0 + i for i, name in enumerate(network.layer_names())}
    scaled = network.rescale(weights, pictures, means)
    found = network.mean_activations(scaled, pictures)
    assert found == pytest.approx(means, rel=1e-3)
    before, after = (network.codes(w, pictures[0])["conv5_4"] for w in (weights, scaled))
    np.testing.assert_allclose(after / after.mean(), before / before.mean(), rtol=1e-3, atol=1e-3)


def test_reordered_filters_give_the_same_codes_in_another_order():
    pictures = np.random.RandomState(1).normal(0, 50, (6, 3, 32, 32))
    weights = network.untrained(CHANNELS, 0)
    orders = network.distinct_first(weights, pictures)
    assert all(sorted(order) == list(range(len(order))) for order in orders.values())
    before, after = (
        network.codes(w, pictures) for w in (weights, network.permute(weights, orders))
    )
    for name, order in orders.items():
        np.testing.assert_allclose(after[name], before[name][:, order], rtol=1e-3, atol=1e-2)


def test_a_filter_that_only_tells_colours_apart_comes_after_those_that_see_texture():
    rng = np.random.RandomState(0)
    weights = network.untrained(CHANNELS, 0)
    kernels = np.zeros_like(weights["conv1_1_weight"])
    kernels[0, 0, 1, 1] = 1  # red
    kernels[1, :, 1] = (-1, 0, 1)  # vertical edges
    kernels[2, :, :, 1] = (-1, 0, 1)  # horizontal edges
    kernels[3, 2, 1, 1] = 1  # blue
    weights["conv1_1_weight"], weights["conv1_1_bias"] = kernels, np.full(4, 100, np.float32)
    stripes = rng.uniform(0, 60, (12, 1, 1, 1)) * (np.arange(24) // 4 % 2 * 2 - 1)
    stripes = np.broadcast_to(stripes, (12, 1, 24, 24)).copy()
    stripes[::2] = stripes[::2].swapaxes(2, 3)
    pictures = (stripes + rng.uniform(-40, 40, (12, 3, 1, 1))).astype(np.float32)
    order = network.distinct_first(weights, pictures)["conv1_1"]
    assert set(order[:2]) == {1, 2}


def test_export_has_the_right_shapes_and_the_same_bytes_each_time(config, run, tmp_path):
    canvases = train.held_out_canvases(config, run[1])
    weights, differences = export.make(config, run[0], canvases)
    assert differences["float16"] < 0.02
    for name in ("a.npz", "b.npz"):
        export.write_network(tmp_path / name, weights, {"name": "tiny"})
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    with np.load(tmp_path / "a.npz") as file:
        assert len(file.files) == 33
        assert {file[name].dtype for name in file.files if name != "metadata"} == {np.dtype("f2")}
        assert file["conv1_1_weight"].shape == (4, 3, 3, 3)
        assert file["conv5_4_weight"].shape == (8, 8, 3, 3)
    read, metadata = export.read_network(tmp_path / "a.npz")
    assert metadata == {"name": "tiny"}
    assert read["conv5_4_bias"].dtype == np.float32


def test_recorded_metrics_leave_the_weights_alone(tmp_path):
    path = tmp_path / "net.npz"
    export.write_network(path, network.untrained(CHANNELS, 0), {"metrics": {"a": 1}})
    before, _ = export.read_network(path)
    evaluate.record(path, {"b": 2})
    after, metadata = export.read_network(path)
    assert metadata["metrics"] == {"a": 1, "b": 2}
    for name, value in before.items():
        np.testing.assert_array_equal(after[name], value)


def test_never_active_counts_filters_that_are_zero_everywhere():
    weights = network.untrained(CHANNELS, 0)
    weights["conv3_1_weight"][2], weights["conv3_1_bias"][2] = 0, -1
    pictures = [np.random.RandomState(i).normal(0, 50, (1, 3, 32, 32)) for i in (0, 1)]
    assert evaluate.never_active(weights, pictures)["conv3_1"] >= 1


def test_panel_measures():
    grey = np.full((4, 4, 3), 90, np.uint8)
    assert evaluate.contrast(grey) == pytest.approx(0, abs=1e-9)
    half = grey.copy()
    half[:, :2] = 190
    assert evaluate.contrast(half) == pytest.approx(50)
    assert evaluate.chosen_filters(128, 16)[-1] == 120
    assert evaluate.chosen_filters(4, 16) == [0, 1, 2, 3]


@pytest.fixture
def measured(config, run, tmp_path, monkeypatch):
    """The arguments of evaluate for the tiny network, with few and small panels."""
    report = {**config.report, "repeats": 1}
    panels = {"layers": ["relu1_2", "relu2_2"], "pictures": ["coffee", "rocket"], "filters": 2}
    means = dict.fromkeys(network.layer_names(), 50)
    small = replace(
        config,
        report=report,
        panels={**panels, "long_edge": 32},
        calibration={**config.calibration, "means": means},
    )
    monkeypatch.setattr(train.Config, "read", lambda path: small)
    feature_map = fmi.invert.feature_map
    monkeypatch.setattr(
        fmi.invert, "feature_map", lambda *args, **kw: feature_map(*args, **kw, steps=4, stop=0)
    )
    weights, _ = export.make(config, run[0], train.held_out_canvases(config, run[1]))
    export.write_network(tmp_path / "net.npz", weights, {"name": "tiny"})
    names = ("--config", tmp_path, "--run", run[1], "--network", tmp_path / "net.npz")
    return [*map(str, names), "--out", str(tmp_path / "metrics.json"), "--untrained", "--record"]


def test_metrics_are_written_and_recorded(measured, tmp_path):
    assert evaluate.main(measured) == 0
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    for name in ("panels", "panels_untrained"):
        assert list(metrics[name]) == ["relu1_2", "relu2_2"]
        assert all(0 <= row["found_again"] <= 1 for row in metrics[name].values())
    _, metadata = export.read_network(tmp_path / "net.npz")
    assert metadata["metrics"] == metrics


@pytest.mark.parametrize("at", [1, 4, 7])  # the first, the last, and one of the untrained network
@pytest.mark.parametrize(("how", "status"), [("interrupted", 130), ("diverged", 2)])
def test_an_inversion_that_was_ended_ends_the_evaluation(
    how, status, at, measured, tmp_path, monkeypatch, capsys
):
    """Numbers of half a descent are worse than none."""
    before = (tmp_path / "net.npz").read_bytes()
    monkeypatch.setattr(fmi.invert, "feature_map", ended(fmi.invert.feature_map, how, at))
    assert evaluate.main(measured) == status
    said = capsys.readouterr().err
    lines = [line for line in said.splitlines() if line.startswith("evaluate: ")]
    assert len(lines) == 1 and how in lines[0] and "Traceback" not in said
    assert not (tmp_path / "metrics.json").exists()
    assert (tmp_path / "net.npz").read_bytes() == before


def test_an_evaluation_of_what_is_not_there_is_one_line(tmp_path, capsys):
    names = ("--config", tmp_path / "no.yaml", "--run", tmp_path, "--network", tmp_path / "no.npz")
    assert evaluate.main([*map(str, names), "--out", str(tmp_path / "metrics.json")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.skipif(not EMBEDDED.exists(), reason="models/embedded.npz is not there")
def test_the_network_in_the_repository():
    assert EMBEDDED.stat().st_size <= 3 * 2**20
    weights, metadata = export.read_network(EMBEDDED)
    assert metadata["name"] == "embedded"
    assert metadata["licence"] == "Apache-2.0"
    inputs = 3
    for name in network.layer_names():
        outputs = (16, 32, 64, 128, 128)[int(name[4]) - 1]
        assert weights[name + "_weight"].shape == (outputs, inputs, 3, 3)
        assert weights[name + "_bias"].shape == (outputs,)
        assert np.isfinite(weights[name + "_weight"]).all()
        assert np.isfinite(weights[name + "_bias"]).all()
        inputs = outputs
    assert len(weights) == 32
