"""The plot of a chain, from records of which the numbers are known."""

import json

import numpy as np
import pytest
from PIL import Image

from experiments import chain


def record(folder, layer, number, first=10.0, chained=True, **outcome):
    folder.mkdir(exist_ok=True)
    content = {
        "filter": number,
        "chain": chained,
        "layers": [layer],
        "loss": [first, 1.0],
        "outcome": {"explained": 0.5, "energy_share": 0.25, **outcome},
    }
    (folder / f"{layer}_filter{number}.json").write_text(json.dumps(content))


def test_chains_are_read_in_the_order_of_their_filters(tmp_path):
    for number in (10, 2, 0):
        record(tmp_path, "relu1_2", number, first=float(number))
    record(tmp_path, "relu2_2", 1, explained=0.75, energy_share=0.125)
    record(tmp_path, "relu3_2", 1, chained=False)
    found = chain.chains(tmp_path)
    assert list(found) == ["relu1_2", "relu2_2"]
    assert [(link.filter, link.first) for link in found["relu1_2"]] == [(0, 0), (2, 2), (10, 10)]
    assert found["relu2_2"] == [chain.Link(1, 10.0, 0.75, 0.125)]


def test_the_plot_shows_the_numbers(tmp_path, monkeypatch):
    for number in range(3):
        record(tmp_path, "relu1_2", number, first=10.0**number, explained=number / 4)
    first, explained, share = chain.plot(chain.chains(tmp_path)).axes
    for axes, values in ((first, [1, 10, 100]), (explained, [0, 0.25, 0.5]), (share, [0.25] * 3)):
        (line,) = axes.lines
        assert list(line.get_xdata()) == [0, 1, 2] and list(line.get_ydata()) == values
        assert line.get_label() == "relu1_2"
    monkeypatch.setattr("sys.argv", ["chain", str(tmp_path), str(tmp_path / "plot.png")])
    assert chain.main() == 0
    with Image.open(tmp_path / "plot.png") as image:
        assert image.format == "PNG" and (np.asarray(image.convert("L")) < 128).any()


@pytest.mark.parametrize("content", ["", "{}", '{"outcome": {"explained": null}, "loss": [1]}'])
def test_what_is_no_record_is_refused(tmp_path, monkeypatch, capsys, content):
    monkeypatch.setattr("sys.argv", ["chain", str(tmp_path), str(tmp_path / "plot.png")])
    assert chain.main() == 2
    assert str(tmp_path) in capsys.readouterr().err
    (tmp_path / "relu1_2_filter0.json").write_text(content)
    assert chain.main() == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "relu1_2_filter0.json" in line
    assert not (tmp_path / "plot.png").exists()
