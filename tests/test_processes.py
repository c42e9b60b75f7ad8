"""Figures by several processes: the same pictures, one log, and nothing left behind."""

import ast
import io
import json
import logging
import multiprocessing.connection
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from conftest import random_arrays
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from fmi import cli, descent
from fmi.device import environment, variables
from fmi.device.mxnet import mx
from fmi.errors import InputError
from fmi.networks import catalogue
from fmi.runs import experiment, figures, panels, plan, worker, workers
from fmi.runs.store import Store

HERE = Path(__file__).parent.parent / "experiments"
FIGURES = {
    "fig3": ("LAYERS=relu1_2,relu2_2", "FILTERS=0,3"),  # chained
    "fig4": ("LAYERS=relu2_1,relu1_1", "DRAWS=3"),
    "fig5": ("STYLES=the_scream",),
}
COARSE = ("LONG_EDGE=48", "STEPS=4", "STOP=0", "LEARNING_RATE=3")
LONG = ("LONG_EDGE=64", "STOP=0", "PICTURES=skimage:coffee", "FILTERS=0,1,2,3", "PROCESSES=2")
SECONDS = 120


def words(figure, folder, small_weights, *more):
    common = (f"WEIGHTS={small_weights}", f"RESULTS={folder}/results", f"STORE={folder}/store")
    return ["draw", str(HERE / f"{figure}.yaml"), *common, *more]


def draw(figure, folder, small_weights, picture_folder, *more):
    options = (f"PICTURES={picture_folder}", *COARSE, *FIGURES[figure], *more)
    return cli.main(words(figure, folder, small_weights, *options))


def start(folder, small_weights, *more):
    """A long figure in two worker processes; wait for its first panel."""
    command = [sys.executable, "-m", "fmi", *words("fig3", folder, small_weights, *LONG, *more)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    wait_for(lambda: list(folder.glob("store/??/*")) or process.poll() is not None)
    return process, psutil.Process(process.pid).children(recursive=True)


def wait_for(condition):
    last = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < last, "too slow"
        time.sleep(0.05)


def left_behind(folder):
    return [*folder.rglob(".*.part"), *folder.glob("store/locks/*")]


# --- the same figure ---


@pytest.mark.parametrize("figure", FIGURES)
def test_the_same_figure_as_by_one_process(tmp_path, small_weights, picture_folder, caplog, figure):
    found, keys = {}, {}
    for number in (1, 2):
        caplog.clear()
        folder = tmp_path / str(number)
        with caplog.at_level("INFO"):
            done = draw(figure, folder, small_weights, picture_folder, f"PROCESSES={number}")
        assert done == 0
        store = Store(folder / "store")
        assert ("2 processes with" in caplog.text) == (number == 2)
        lines = [line for line in caplog.messages if "stopped by" in line]
        assert len(lines) == len(set(lines)) == len(store.names())
        panels_ = sorted(folder.glob("results/*/*.png"))
        assert len(panels_) == 2 * len(store.names())
        found[number] = {name: store.find(name).array for name in store.names()}
        copies = {
            p.parent.name + p.stem: json.loads(p.read_text())["key"]
            for p in folder.glob("results/*/*.json")
        }
        assert copies == keys.setdefault("of the copies", copies)
        assert (folder / f"results/{figure}.png").is_file() and not left_behind(folder)
    assert list(found[1]) == list(found[2])  # the keys
    for name, array in found[1].items():
        np.testing.assert_allclose(found[2][name], array, atol=1e-3)


def test_what_is_there_is_not_computed_again(tmp_path, small_weights, picture_folder, caplog):
    first = ("PROCESSES=1", "FILTERS=0", "LAYERS=relu1_2")
    assert draw("fig3", tmp_path, small_weights, picture_folder, *first) == 0
    store = Store(tmp_path / "store")
    before = {name: store.path(name).stat().st_mtime_ns for name in store.names()}
    assert len(before) == 2
    with caplog.at_level("INFO"):
        assert draw("fig3", tmp_path, small_weights, picture_folder, "PROCESSES=2") == 0
    assert "6 of 8 panels to compute" in caplog.text
    assert {name: store.path(name).stat().st_mtime_ns for name in before} == before
    assert len(store.names()) == 8


# --- a stored panel under another name ---


@pytest.fixture
def twins(tmp_path, picture_folder):
    """Two names of one picture, each in a folder of its own."""
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        shutil.copy(picture_folder / "tubingen.png", tmp_path / name / f"{name}.png")
    return {name: tmp_path / name / f"{name}.png" for name in ("first", "second")}


def parts(folder, name):
    """The JSON of the panels of a picture, and the pixels and texts of their PNGs."""
    found = {}
    for path in sorted(folder.glob(f"{name}/*.*")):
        if path.suffix == ".json":
            found[path.name] = path.read_text()
            continue
        with Image.open(path) as image:
            found[path.name] = (image.mode, image.tobytes(), *sorted(image.text.items()))
    return found


def with_names(found, one, other):
    """The same with another name of the picture; it is that of its style, too."""
    text = repr(found).replace(f'"name": "{one}"', f'"name": "{other}"')
    return ast.literal_eval(text.replace(f"'{one}_", f"'{other}_"))


@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("figure", FIGURES)
def test_copies_of_a_stored_panel_have_the_names_that_were_asked_for(
    tmp_path, small_weights, twins, figure, number
):
    options = [*COARSE, *FIGURES[figure], f"PROCESSES={number}"]

    def draw_to(folder, *names):
        files = ",".join(str(twins[name]) for name in names)
        more = [f"PICTURES={files}", f"RESULTS={tmp_path}/{folder}"]
        more += [f"STYLES={twins[names[0]]}"] * (figure == "fig5")
        assert cli.main(words(figure, tmp_path, small_weights, *options, *more)) == 0

    draw_to("results/1", "first")
    store = {path: path.read_bytes() for path in (tmp_path / "store").rglob("*.*")}
    wanted = with_names(parts(tmp_path / "results/1", "first"), "first", "second")
    assert len(wanted) == {"fig3": 12, "fig4": 18, "fig5": 6}[figure]
    for again in range(2):
        draw_to("results/2", "second")
        assert parts(tmp_path / "results/2", "second") == wanted, again
    draw_to("results/1", "first")
    assert with_names(parts(tmp_path / "results/1", "first"), "first", "second") == wanted
    assert store == {path: path.read_bytes() for path in (tmp_path / "store").rglob("*.*")}
    path = next((tmp_path / "results/2/second").glob("*.json"))
    beside = shutil.copy(path, twins["second"].parent)
    told = ["--weights", str(small_weights), "-o", str(tmp_path / "again.png")]
    assert cli.main(["repeat", beside, *told]) == 0


@pytest.mark.parametrize("number", [1, 2])
def test_one_picture_under_two_names_in_a_figure(tmp_path, small_weights, twins, number):
    options = [*COARSE, *FIGURES["fig3"], "CHAIN=0", f"PROCESSES={number}"]
    files = ",".join(map(str, twins.values()))
    assert cli.main(words("fig3", tmp_path, small_weights, *options, f"PICTURES={files}")) == 0
    first, second = (parts(tmp_path / "results", name) for name in twins)
    assert with_names(first, "first", "second") == second
    for name in twins:
        for path in (tmp_path / "results" / name).glob("*.json"):
            assert json.loads(path.read_text())["pictures"]["content"]["name"] == name


def test_copies_beside_panels_that_diverge_have_the_names_that_were_asked_for(
    tmp_path, small_weights, twins, monkeypatch
):
    options = [*COARSE, *FIGURES["fig3"], "CHAIN=0", "PROCESSES=2"]
    command = words("fig3", tmp_path, small_weights, *options)
    assert cli.main([*command, f"PICTURES={twins['first']}"]) == 0
    wanted = with_names(parts(tmp_path / "results", "first"), "first", "second")
    store = Store(tmp_path / "store")
    for entry in store.entries():
        if entry.record["filter"] == 3:
            store.remove(entry.key)
    stems = {f"second/{layer}_filter3" for layer in ("relu1_2", "relu2_2")}
    monkeypatch.setattr(panels, "fill", lambda *_: workers.Filled(stems, stems))
    assert cli.main([*command, f"PICTURES={twins['second']}"]) == 2
    found = parts(tmp_path / "results", "second")
    assert len(found) == 6
    assert found == {name: part for name, part in wanted.items() if "_filter0" in name}


def test_nothing_is_said_twice(tmp_path, monkeypatch, caplog):
    """Neither which network is used, nor what the workers log."""
    monkeypatch.setenv("FMI_MODELS", str(tmp_path))
    options = ("PICTURES=skimage:coffee", *COARSE, "LAYERS=relu1_1,relu5_1", "DRAWS=1")
    command = words("fig4", tmp_path, "auto", *options, "PROCESSES=2")
    with caplog.at_level("INFO"):
        assert cli.main(command) == 0
    assert len(caplog.messages) == len(set(caplog.messages))
    assert len([line for line in caplog.messages if "not VGG-19" in line]) == 1
    assert any("no positive sum" in line for line in caplog.messages)  # a worker's


# --- the end ---


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupt_ends_all_and_keeps_what_is_finished(tmp_path, small_weights, number, status):
    process, children = start(tmp_path, small_weights, "STEPS=400")
    assert len(children) == 2
    began = time.monotonic()
    process.send_signal(number)
    _, error = process.communicate(timeout=SECONDS)
    assert process.returncode == status and time.monotonic() - began < 2 * workers.PATIENCE
    assert error.splitlines()[-1] == "fmi: interrupted; finished panels are kept, run the" + (
        " command again to resume"
    )
    assert "Traceback" not in error
    assert not any(child.is_running() for child in children)
    assert not left_behind(tmp_path)
    store = Store(tmp_path / "store")
    assert 0 < len(store.names()) < 20 and all(map(store.intact, store.names()))


def test_workers_end_with_the_process_that_draws(tmp_path, small_weights):
    process, children = start(tmp_path, small_weights, "STEPS=400")
    assert len(children) == 2
    process.kill()
    process.communicate()
    _, alive = psutil.wait_procs(children, timeout=20)
    assert not alive
    store = Store(tmp_path / "store")
    assert all(map(store.intact, store.names()))


@pytest.mark.parametrize("number", [1, 2])
def test_workers_that_are_killed(tmp_path, small_weights, number):
    few = ("LAYERS=relu1_2,relu2_2", "STEPS=150")
    process, children = start(tmp_path, small_weights, *few)
    for child in children[:number]:
        child.kill()
    _, error = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, error
    lines = re.findall(r"a worker process has ended \(signal 9.*continuing with (.*)", error)
    assert lines == ["1", "this process alone"][:number]
    assert len(Store(tmp_path / "store").names()) == 8
    assert (tmp_path / "results/fig3.png").is_file()
    assert len(re.findall("stopped by", error)) == 8


@pytest.fixture
def not_here(monkeypatch):
    """Call it to forbid this process to compute panels."""

    def forbid():
        monkeypatch.setattr(descent, "minimise", lambda *_, **__: pytest.fail("not by a worker"))

    return forbid


def test_an_error_of_a_worker_is_that_of_one_process(tmp_path, capsys, not_here):
    np.savez(tmp_path / "huge.npz", **random_arrays(gain=1e4))
    found = {}
    for number in (1, 2):
        if number == 2:
            not_here()
        folder = tmp_path / str(number)
        options = ("PICTURES=skimage:coffee", *COARSE, "FILTERS=0,1", f"PROCESSES={number}")
        options = (*options, "LAYERS=relu3_1,relu3_2")
        assert cli.main(words("fig3", folder, tmp_path / "huge.npz", *options)) == 2
        found[number] = capsys.readouterr().err.splitlines()[-1]
        assert not left_behind(folder)
    assert found[1] == found[2] and "code_weight" in found[1]


def test_the_task_of_a_lost_worker_is_given_to_another(
    tmp_path, small_weights, picture_folder, monkeypatch, caplog, not_here
):
    first = f"import os\ntry: os.mkdir({str(tmp_path / 'first')!r}); os.abort()\n"
    code = first + "except FileExistsError: pass\n" + workers.COMMAND
    monkeypatch.setattr(workers, "COMMAND", code)
    not_here()
    assert draw("fig3", tmp_path, small_weights, picture_folder, "PROCESSES=2") == 0
    assert len([line for line in caplog.messages if "continuing with 1" in line]) == 1
    assert len(Store(tmp_path / "store").names()) == 8


@pytest.mark.parametrize("figure", ["fig3", "fig5"])
def test_panels_that_diverge(tmp_path, small_weights, picture_folder, capsys, not_here, figure):
    found = {}
    for number in (1, 2):
        if number == 2:
            not_here()
        wild = ("LEARNING_RATE=1e5", "CLIP=1e12", "STEPS=30", f"PROCESSES={number}")
        assert draw(figure, tmp_path / str(number), small_weights, picture_folder, *wild) == 2
        error = capsys.readouterr().err.splitlines()[-1]
        found[number] = error.replace(f"{tmp_path}/{number}/", "")
        left = {
            path.name
            for path in (tmp_path / str(number)).rglob("*.png")
            if "store" not in path.parts
        }
        found[number] = (found[number], left)
    assert found[1] == found[2] and "diverged" in found[1][0]


# --- workers that fail; in place of the real one stands a script ---

SCRIPTS = {
    "send(workers.Exhausted('out of memory'))": r"out of memory",
    "raise SystemError('odd')": r"status 1, SystemError: odd",
    "os.abort()": r"signal 6",
    "connection.send('what'), os._exit(3)": r"status 3",
}


@pytest.mark.parametrize("script", SCRIPTS)
def test_workers_that_fail(tmp_path, small_weights, picture_folder, monkeypatch, caplog, script):
    code = (
        "import os, sys; sys.path[:] = {path!r}; from fmi.runs import workers;"
        "from multiprocessing.connection import Connection;"
        "connection = Connection({handle}); send = connection.send; connection.recv();" + script
    )
    monkeypatch.setattr(workers, "COMMAND", code)
    assert draw("fig3", tmp_path, small_weights, picture_folder, "PROCESSES=2") == 0
    lines = [line for line in caplog.messages if "a worker process has ended" in line]
    assert len(lines) == 2 and all(re.search(SCRIPTS[script], line) for line in lines)
    assert len(Store(tmp_path / "store").names()) == 8


def test_a_worker_that_does_not_end_is_killed(tmp_path, small_weights, picture_folder, monkeypatch):
    pids = tmp_path / "pids"
    code = (
        "import os, signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN);"
        f"open({str(pids)!r}, 'a').write(str(os.getpid()) + ' '); {{path}}; time.sleep(600)"
    )
    monkeypatch.setattr(workers, "COMMAND", code)
    monkeypatch.setattr(workers, "PATIENCE", 0.5)

    def interrupted(_):
        wait_for(lambda: pids.exists() and len(pids.read_text().split()) == 2)
        raise KeyboardInterrupt

    monkeypatch.setattr("multiprocessing.connection.wait", interrupted)
    assert draw("fig3", tmp_path, small_weights, picture_folder, "PROCESSES=2") == 130
    assert not any(psutil.pid_exists(int(pid)) for pid in pids.read_text().split())


def test_a_worker_that_finds_other_weights(
    tmp_path, small_weights, picture_folder, monkeypatch, caplog
):
    """They are not computed under the wrong key, and the figure is drawn all the same."""
    popen = subprocess.Popen

    def other(command, **options):
        options["env"] = {**options["env"], "FMI_MODELS": str(tmp_path / "other")}
        return popen(command, **options)

    (tmp_path / "other").mkdir()
    monkeypatch.setenv("FMI_MODELS", str(tmp_path / "none"))
    (tmp_path / "none").mkdir()
    monkeypatch.setattr(figures.Run, "team", lambda run: panels.Team(_reseeded(run.experiment), 2))
    assert draw("fig3", tmp_path, small_weights, picture_folder) == 0
    assert caplog.text.count("another network or other pictures") == 2
    assert len(Store(tmp_path / "store").names()) == 8


def _reseeded(found):
    return found.model_copy(update={"seed": found.seed + 1})


# --- how many ---


@pytest.mark.parametrize("value", ["0", "-1", "1.5", "two", "257", "true", "9" * 50, ""])
def test_numbers_of_processes_that_cannot_be_used(
    tmp_path, small_weights, picture_folder, capsys, value
):
    done = draw("fig3", tmp_path, small_weights, picture_folder, f"PROCESSES={value}")
    error = capsys.readouterr().err.splitlines()
    assert done == 2 and len(error) == 1 and "PROCESSES" in error[0].upper()
    assert not (tmp_path / "results").exists()


def test_a_gpu_is_used_by_one_process(small_weights):
    for number in (None, 1, 2):
        given = () if number is None else (f"PROCESSES={number}",)
        run = figures.Run(experiment.read(HERE / "fig3.yaml", [f"WEIGHTS={small_weights}", *given]))
        run.__dict__["ctx"] = mx.gpu(0)
        if number == 2:
            with pytest.raises(InputError, match="processes=2.*gpu"):
                run.team()
        else:
            assert run.team() is None


def test_the_first_job_tells_how_many(tmp_path, small_weights, picture_folder, monkeypatch, caplog):
    """The cheapest job is computed before, and what is left is divided."""
    asked = []

    def processes(*given):
        asked.append(given)
        return 2

    monkeypatch.setattr(plan, "processes", processes)
    with caplog.at_level("INFO"):
        assert draw("fig4", tmp_path, small_weights, picture_folder) == 0
    ((works, pace, threads, most),) = asked
    assert len(works) == 3 and len(set(works)) == 1  # relu2_1; relu1_1 has been computed
    assert works[0].panels == 1
    assert 0 < pace.seconds(works[0], threads) < SECONDS and most > 1
    assert threads == int(variables.threads())
    assert "2 processes" in caplog.text
    assert "relu1_1" in next(line for line in caplog.messages if "stopped by" in line)
    assert len(Store(tmp_path / "store").names()) == 6


def test_small_figures_are_drawn_by_one_process(
    tmp_path, small_weights, picture_folder, monkeypatch
):
    monkeypatch.setattr(panels, "fill", lambda *_: pytest.fail("several"))
    for figure in FIGURES:
        assert draw(figure, tmp_path, small_weights, picture_folder) == 0


COSTS = st.lists(st.floats(0.1, 100), min_size=1, max_size=20)
PACES = st.builds(plan.Pace, st.floats(0, 100), st.floats(0.001, 100))


@given(COSTS, PACES, st.integers(1, 64), st.integers(-1, 70))
def test_properties_of_the_number(costs, pace, threads, most):
    works = [plan.Work(1, cost) for cost in costs]
    number = plan.processes(works, pace, threads, most)
    assert 1 <= number <= max(1, min(threads, len(costs), most))
    alone = sum(pace.seconds(work, threads) for work in works)
    if number > 1:  # worth it, though no process can do more than its part
        slower = [pace.seconds(work, threads // number) for work in works]
        assert max(sum(slower) / number, max(slower)) + plan.START < alone
    assert plan.processes(works, plan.Pace(0, pace.shared), threads, most) == 1  # nothing to gain


@given(
    st.integers(1, 9),
    st.floats(0.1, 99),
    st.floats(0.1, 999),
    st.floats(0.1, 1),
    st.integers(1, 64),
)
def test_the_pace_is_what_was_measured(panels, cost, seconds, busy, threads):
    work = plan.Work(panels, cost)
    pace = plan.Pace.of(work, seconds, busy, threads)
    assert pace.serial >= 0 and pace.shared >= -1e-9
    assert pace.seconds(work, threads) == pytest.approx(seconds)
    if threads == 1 or busy * threads < 1:  # not even one
        return
    spent = panels * pace.serial + cost * pace.shared
    assert spent == pytest.approx(busy * threads * seconds)


EVEN, UNEVEN = [plan.Work(1, 1)] * 20, [plan.Work(5, 10), plan.Work(5, 1)]


@pytest.mark.parametrize(
    ("works", "pace", "threads", "most", "number"),
    [
        (EVEN, (3, 14), 2, 9, 2),
        (EVEN, (3, 14), 2, 1, 1),  # memory
        (EVEN, (0.03, 0.14), 2, 9, 1),  # done before the others have started
        (EVEN, (0.3, 20), 2, 9, 1),
        (UNEVEN, (3, 14), 2, 9, 1),  # one core would be idle
        ([plan.Work(1, 10)] * 20, (0.3, 2), 2, 9, 1),  # deeper: what is serial matters less
        (EVEN[:16], (100, 400), 16, 99, 16),
        (EVEN[:16], (100, 400), 16, 5, 4),  # four threads each
    ],
)
def test_numbers_of_processes(works, pace, threads, most, number):
    assert plan.processes(works, plan.Pace(*pace), threads, most) == number


@given(COSTS, st.integers(1, 8))
def test_the_busiest_of_several(costs, number):
    found = plan.longest(costs, number)
    assert max(max(costs), sum(costs) / number) <= found * (1 + 1e-9)
    assert found <= (sum(costs) / number + max(costs)) * (1 + 1e-9)
    assert plan.longest(costs, 1) == pytest.approx(sum(costs))


def test_cost_is_that_of_the_convolutions(small_weights):
    network = catalogue.load(None, small_weights)
    found = [plan.cost(network, [f"relu{n}_1"], 64, 48) for n in range(1, 6)]
    assert found == sorted(found)
    assert found[0] == 64 * 48 * 3 * 4
    assert found[1] == 64 * 48 * (3 * 4 + 4 * 4) + 32 * 24 * 4 * 5
    assert plan.cost(network, ["relu1_1", "relu2_1"], 64, 48) == found[1]
    assert plan.cost(network, ["relu2_1"], 128, 96) == 4 * found[1]


def test_measured():
    with plan.measured(2) as found:
        last = time.perf_counter() + 0.3
        while time.perf_counter() < last:
            pass
    assert 0.3 <= found.seconds < 5
    assert found.busy == pytest.approx(0.5, abs=0.1)  # one of two
    seconds = environment.thread_seconds()
    assert seconds[environment.thread_name()] > 0.2
    assert environment.own_memory() > 10_000_000


def test_the_bar_counts_each_panel_once_by_its_cost(monkeypatch):
    shown = io.StringIO()
    shown.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", shown)
    with panels.Bar("fig3", [("a", 1.0), ("b", 3.0), ("a", 1.0)]) as bar:  # one picture twice
        bar.count(["b"])
        assert bar.n == 3
        bar.count(["a", "b", "stored before"])
        assert bar.n == 5
        bar.refresh()
    text = shown.getvalue()
    assert "fig3: 100%" in text and "3 of 3 panels" in text and "<" in text  # the time left


@pytest.mark.parametrize("chain, before", [(1, [0, 1, 2, 3]), (0, [0, 3])])
def test_the_bar_counts_panels_as_soon_as_they_are_there(
    tmp_path, small_weights, picture_folder, monkeypatch, chain, before
):
    counted, begun, minimise = set(), [], descent.minimise

    class Noted(panels.Bar):
        def count(self, names):
            counted.update(names)
            super().count(names)

    def noted(*rest, **more):
        begun.append(len(counted))
        return minimise(*rest, **more)

    monkeypatch.setattr(panels, "Bar", Noted)
    monkeypatch.setattr(descent, "minimise", noted)
    more = ("LAYERS=relu1_2,relu2_2", "FILTERS=0,1,2", "PROCESSES=1", f"CHAIN={chain}")
    pictures = ("PICTURES=skimage:coffee",)
    assert draw("fig3", tmp_path, small_weights, picture_folder, *more, *pictures) == 0
    assert begun[: len(before)] == before and len(counted) == 6


def test_workers_that_do_not_end_in_time_leave_nothing_behind(
    tmp_path, small_weights, picture_folder, monkeypatch
):
    def interrupt(store, name):
        half = tmp_path / "results/coffee/.half.part"  # as of a worker that writes a copy
        half.parent.mkdir(parents=True, exist_ok=True)
        half.touch()
        raise KeyboardInterrupt

    monkeypatch.setattr(workers, "PATIENCE", 0)  # they are killed in the middle of a descent
    monkeypatch.setattr(Store, "tell", interrupt)
    more = (*LONG, "CHAIN=0", "LAYERS=relu1_2,relu2_2")
    assert cli.main(words("fig3", tmp_path, small_weights, *more)) == 130
    assert list(tmp_path.glob("store/??/*")) and left_behind(tmp_path) == []


class _TooLittle(InputError):
    """As in_one_line makes it of MXNet's error."""

    def __init__(self):
        super().__init__("out of main memory: start a new process with a smaller long_edge")
        self.__cause__ = mx.MXNetError("Failed to allocate CPU Memory")


@pytest.mark.parametrize(
    ("error", "begun", "message"),
    [
        (MemoryError(), True, workers.Exhausted("out of memory")),
        (_TooLittle(), True, workers.Exhausted("out of memory")),
        (InputError("needs 9 GB"), False, workers.Exhausted("needs 9 GB")),  # beside the others
        (InputError("reduce alpha"), True, workers.Failed("reduce alpha")),
    ],
)
def test_what_a_worker_says_of_its_errors(small_weights, monkeypatch, error, begun, message):
    def blocks(run):
        run._log.silent = not begun
        raise error

    monkeypatch.setattr(figures, "blocks", blocks)
    monkeypatch.setattr(worker, "_Orders", lambda _: None)
    handlers = list(logging.getLogger().handlers)
    before = signal.getsignal(signal.SIGINT)
    ours, theirs = multiprocessing.connection.Pipe()
    odd = "PICTURES=" + os.fsdecode(b"not\xffutf8")
    given = experiment.read(HERE / "fig3.yaml", [f"WEIGHTS={small_weights}", odd])
    ours.send(workers.Begin(given, logging.getLogger().level))
    try:
        worker.main(os.dup(theirs.fileno()))
    finally:
        logging.getLogger().handlers[:] = handlers
        signal.signal(signal.SIGINT, before)
    assert ours.recv() == message
