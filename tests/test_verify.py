"""The panels whose numbers are expected: computed, compared, and written."""

import json

import numpy as np
import pytest
from conftest import ended

import fmi.invert
from experiments import verify
from fmi import evidence, pictures
from fmi.networks import catalogue
from fmi.sources import table


@pytest.fixture
def expected(monkeypatch, tmp_path):
    """A copy of the expected numbers."""
    for path in verify.EXPECTED.glob("*.json"):
        (tmp_path / path.name).write_text(path.read_text())
    monkeypatch.setattr(verify, "EXPECTED", tmp_path)
    return tmp_path


@pytest.fixture
def quick(monkeypatch):
    """Few panels, in few steps."""
    monkeypatch.setattr(verify, "SMALL", {**verify.SMALL, "steps": 3, "long_edge": 48})
    monkeypatch.setattr(verify, "PANELS", verify.PANELS[:3])


def test_this_machine_computes_the_expected_numbers(capsys):
    assert verify.main(["embedded"]) == 0
    out = capsys.readouterr().out
    names = [line.split(": ")[0] for line in out.splitlines()[:-1]]
    assert len(names) == 10 and {name.split()[1] for name in names} == {
        "fig1",
        "fig3",
        "fig4",
        "fig5",
    }
    assert out.endswith("1 networks verified, 0 numbers differ\n")


@pytest.mark.parametrize("name", verify.NETWORKS)
def test_expected_numbers_are_complete(name):
    expected = json.loads((verify.EXPECTED / f"{name}.json").read_text())
    assert set(expected["tolerances"]) == {"distance", "loss", "explained", "energy_share"}
    assert {"cpu", "precision", "versions"} == set(expected["made_with"])
    wanted = sum(not panels.deep or verify.NETWORKS[name] for panels in verify.PANELS)
    assert len(expected["panels"]) == wanted + 2  # two filters in a chain, two draws
    for panel, numbers in expected["panels"].items():
        shares = numbers["energy_share"] is not None
        assert shares == panel.startswith(("fig1", "fig3"))
        assert panel.startswith("fig1") or None not in [
            numbers[key] for key in ("distance", "loss", "explained")
        ]


def test_numbers_are_those_of_the_panel():
    network = catalogue.load(weights="embedded")
    coffee = pictures.find("skimage:coffee", [])
    small = {**verify.SMALL, "steps": 3, "long_edge": 48, "network": network}
    (found,) = fmi.invert.feature_map(coffee, "relu1_2", 1, **small)
    numbers = verify.numbers(found, network)
    panels = [np.asarray(found.image)], [pictures.read(coffee).pixels]
    distance = evidence.distances(*panels, network, ("relu1_1", "relu2_1"))
    assert numbers == {
        "distance": distance[0, 0],
        "loss": found.loss[-1],
        "explained": found.explained,
        "energy_share": found.energy_share,
    }


def test_what_is_written_is_found_again_and_a_change_is_noticed(expected, quick, capsys):
    assert verify.main(["embedded", "--write"]) == 0
    assert str(expected / "embedded.json") in capsys.readouterr().out
    assert verify.main(["embedded"]) == 0
    path = expected / "embedded.json"
    content = json.loads(path.read_text())
    assert content["made_with"]["precision"] == "float32"
    name = "fig3 feature_map relu1_2:1"
    assert list(content["panels"]) == [
        "fig1 activations relu2_2:1",
        "fig3 feature_map relu1_2:0",
        name,
        "fig3 feature_map relu3_2:2",
    ]
    for key, value in content["panels"][name].items():
        step = content["tolerances"][key] * (value if key == "loss" else 1)
        for other, status in ((value + 0.9 * step, 0), (value - 1.1 * step, 1), (None, 1)):
            changed = {**content["panels"], name: {**content["panels"][name], key: other}}
            path.write_text(json.dumps({**content, "panels": changed}))
            capsys.readouterr()
            assert verify.main(["embedded"]) == status, (key, other)
            out = capsys.readouterr().out
            assert (f"DIFFERS: embedded {name}: {key} is" in out) == bool(status)


def test_panels_that_are_missing_or_not_expected_differ():
    tolerances = dict.fromkeys(("distance", "loss"), 0.1)
    numbers = {"distance": 1.0, "loss": 2.0}
    assert verify.differences({"a": numbers}, {"a": numbers}, tolerances) == []
    assert verify.differences({"a": numbers, "b": numbers}, {"a": numbers}, tolerances)
    assert verify.differences({}, {"a": numbers}, tolerances)
    nan = {"distance": float("nan"), "loss": 2.0}
    assert verify.differences({"a": nan}, {"a": numbers}, tolerances)


def test_a_network_that_is_not_here(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(table, "folders", lambda kind: [tmp_path])
    assert verify.main(["vgg16-hed"]) == 2
    assert "vgg16-hed is not verified" in capsys.readouterr().err
    assert verify.main(["vgg17"]) == 2
    assert capsys.readouterr().err.startswith("verify: unknown network 'vgg17'; did you mean vgg1")


def test_panels_that_diverge_are_no_numbers(expected, quick, monkeypatch, capsys):
    """An interruption would be said otherwise."""
    monkeypatch.setattr(fmi.invert, "feature_map", ended(fmi.invert.feature_map, "diverged", 1))
    assert verify.main(["embedded"]) == 2
    assert "diverged" in capsys.readouterr().err


def test_an_interrupt_writes_nothing(expected, monkeypatch, capsys):
    def interrupt(*arguments, **options):
        raise KeyboardInterrupt

    before = (expected / "embedded.json").read_text()
    monkeypatch.setattr(verify, "compute", interrupt)
    assert verify.main(["embedded", "--write"]) == 130
    assert capsys.readouterr().err == "verify: interrupted\n"
    assert (expected / "embedded.json").read_text() == before
