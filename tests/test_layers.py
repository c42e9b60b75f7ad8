"""`fmi layers`: what it prints of a network."""

import json

import pytest

from fmi import cli


def run(capsys, *words):
    status = cli.main(["layers", *words])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_table(capsys):
    status, out, _ = run(capsys, "embedded", "--size", "100")
    lines = out.splitlines()
    assert status == 0 and len(lines) == 1 + 36
    row = next(line.split() for line in lines if line.startswith("relu3_2 "))
    assert row == ["relu3_2", "activation", "64", "4", "32", "25", "x", "25", "from", "0"]
    row = next(line.split() for line in lines if line.startswith("conv5_1 "))
    assert row == ["conv5_1", "convolution", "128", "16", "156", "7", "x", "7", "any"]
    status, out, _ = run(capsys, "embedded", "--size", "8")
    assert out.splitlines()[-1].split()[-4:] == ["too", "small", "from", "0"]


def test_json_of_a_model_zoo_network_without_its_parameters(capsys):
    status, out, _ = run(capsys, "resnet18_v1", "--json")
    found = json.loads(out)
    assert status == 0 and found["network"]["name"] == "resnet18_v1"
    (layer,) = [entry for entry in found["layers"] if entry["name"] == "stage2_relu0"]
    assert layer == {
        "name": "stage2_relu0",
        "kind": "activation",
        "channels": 128,
        "stride": 8,
        "receptive_field": 51,
        "negative": False,
        "size": [28, 28],
    }


@pytest.mark.parametrize("depth", [11, 13, 16, 19])
def test_the_family_without_weights(capsys, monkeypatch, tmp_path, depth):
    monkeypatch.setenv("FMI_MODELS", str(tmp_path))
    status, out, _ = run(capsys, f"vgg{depth}")
    assert status == 0 and out.count("convolution") == depth - 3
    assert out.splitlines()[-1].split()[:3] == [
        f"relu5_{(depth - 7) // 3 if depth > 11 else 2}",
        "activation",
        "512",
    ]


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["resnet18"], ("'resnet18'", "resnet18_v1")),
        (["embedded", "--size", "0"], ("--size 0", "1")),
        (["embedded", "--weights", "x.npz"], ("embedded", "weights=")),
        (["x-symbol.json"], ("x-symbol.json",)),
    ],
)
def test_mistakes(capsys, words, parts):
    status, out, err = run(capsys, *words)
    assert status == 2 and out == "" and err.startswith("fmi: ") and err.count("\n") == 1
    assert all(part in err for part in parts)
