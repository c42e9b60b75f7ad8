"""The table of one process beside several."""

from types import SimpleNamespace

import pytest

from experiments import processes
from experiments.processes import Row
from fmi.device import environment


def test_the_whole_of_it(capfd, monkeypatch):
    """A small picture, and a network that is not here."""
    monkeypatch.setenv("FMI_MODELS", "/nowhere")
    monkeypatch.chdir("/")
    assert processes.main(["--quick", "--networks", "embedded,vgg13", "--rounds", "1"]) == 0
    out = capfd.readouterr().out.splitlines()
    rows = [line.split() for line in out if line.startswith("embedded")]
    assert [row[1:4] for row in rows] == [[c.layer, "48", c.precision] for c in processes.QUICK]
    for row in rows:
        one, several, ratio = map(float, row[4:7])
        assert one > 0 and several / one == pytest.approx(ratio, rel=0.02)
    assert any(line.startswith("left out: vgg13") for line in out)


def test_a_turn_counts_steps_after_the_first(monkeypatch):
    clock = iter(range(1000))
    monkeypatch.setattr(processes, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    *found, busy = processes.turn("embedded", processes.QUICK[0], 3)
    assert found == [3, 3] and 0 < busy <= 1


def test_ratios_are_of_neighbouring_turns(monkeypatch):
    rates = iter([(rate, rate / 100) for rate in (0, 0, 1, 2, 10, 30)])
    monkeypatch.setattr(processes, "rate", lambda *_: next(rates))
    monkeypatch.setattr(processes, "children", lambda *_: pytest.MonkeyPatch.context())
    (row,) = processes.rows("embedded", processes.QUICK[:1], 2)
    assert (row.one, row.several) == (5.5, 16) and (row.ratio, row.low, row.high) == (2.5, 2, 3)
    assert row.busy == pytest.approx(0.055)
    assert isinstance(row, Row) and str(environment.cores()) in processes.lines([row])[0]
