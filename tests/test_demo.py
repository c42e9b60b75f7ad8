"""The demo chooses its network, says what to look at, and draws three figures."""

import pytest
from PIL import Image

from experiments import demo
from fmi import cli
from fmi.errors import FetchError, InputError
from fmi.sources import fetch


def test_its_network(monkeypatch, capsys):
    fetched = []
    monkeypatch.setattr(fetch, "fetch", lambda source: fetched.append(source.name))
    assert demo.network([]) == "vgg16-hed" and fetched == ["vgg16-hed"]
    assert demo.network(["WEIGHTS=embedded"]) == "embedded" and len(fetched) == 1

    def fails(source):
        raise FetchError(f"{source.name} cannot be fetched")

    monkeypatch.setattr(fetch, "fetch", fails)
    assert demo.network([]) == "embedded"
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "embedded" in error and "vgg16-hed" in error
    for wrong in (["WEIGHTS=vgg19"], ["STEPS=3"], ["WEIGHTS=embedded", "STEPS=3"]):
        with pytest.raises(InputError, match="WEIGHTS=embedded or WEIGHTS=vgg16-hed"):
            demo.network(wrong)
    assert demo.main(["STEPS=3"]) == 2


def test_ctrl_c_while_its_network_is_fetched(monkeypatch, capsys):
    def interrupted(source):
        raise KeyboardInterrupt

    monkeypatch.setattr(fetch, "fetch", interrupted)
    assert demo.main([]) == 130
    assert capsys.readouterr().err.count("\n") == 1


def test_a_figure_that_fails_ends_it(monkeypatch, tmp_path, capsys):
    """With the status of the figure, and without what to look at."""
    drawn = []

    def draw(words):
        drawn.append(words[1])
        return 130 if "fig4" in words[1] else 0

    monkeypatch.setattr(cli, "main", draw)
    assert demo.main(["WEIGHTS=embedded"]) == 130
    assert len(drawn) == 2 and capsys.readouterr().out == ""


def test_the_whole_of_it(monkeypatch, tmp_path, capsys):
    """With fewer steps and smaller pictures than it has."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(demo.LONG_EDGE, "embedded", 32)
    few = {figure: (*words, "STEPS=2") for figure, words in demo.OVERRIDES["embedded"].items()}
    monkeypatch.setitem(demo.OVERRIDES, "embedded", few)
    assert demo.main(["WEIGHTS=embedded"]) == 0
    out = capsys.readouterr().out
    for figure in ("fig3", "fig4", "fig5"):
        file = tmp_path / f"results/demo/{figure}/{figure}.png"
        assert f"{figure}/{figure}.png" in out
        with Image.open(file) as image:
            assert image.width > 500
    assert len(list((tmp_path / "results/demo/fig3/coffee").glob("*_undenoised.png"))) == 25
