"""Sweeps: all panels once, whatever ends them, and how far they have come."""

import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import attack_sweep
import numpy as np
import pytest
import yaml
from test_store import DAMAGES

import fmi.invert
from fmi import cli, descent
from fmi.errors import InputError
from fmi.runs import experiment, figures, progress, sweep
from fmi.runs.store import Store

ATLAS = Path(__file__).parent.parent / "experiments" / "atlas.yaml"
TINY = ("LONG_EDGE=32", "STEPS=3", "PRECISION=float32", "PROCESSES=1")
FEW = ("LAYERS=relu1_1,relu2_1:5", "FILTERS=0,1,2")
SECONDS = 120


def run(folder, *words, file=ATLAS):
    return cli.main(["sweep", str(file), f"RESULTS={folder}", *words])


def summary(folder):
    return json.loads((folder / "summary.json").read_text())


# --- what is computed ---


def test_all_filters_of_the_network_are_listed_without_computing_anything(tmp_path, descents):
    found = experiment.read(ATLAS, [f"RESULTS={tmp_path}/a"], {"sweep": sweep.Sweep})
    panels = sweep.panels(figures.Run(found))
    assert len(panels) == 1376 == len({panel.key for panel in panels})
    assert len({panel.layer for panel in panels}) == 16
    assert {p.filter for p in panels if p.layer == "relu1_1"} == set(range(16))
    assert not descents and not (tmp_path / "a").exists()


def test_a_sweep(tmp_path, descents, capsys):
    assert run(tmp_path, *TINY, *FEW) == 0
    assert capsys.readouterr().out == f"{tmp_path}/summary.json\n"
    assert descents == [3, 1]  # one batch for each layer
    found = sweep.read(tmp_path / "sweep.yaml")
    panels = sweep.panels(figures.Run(found))
    places = [(panel.layer, panel.filter, panel.picture) for panel in panels]
    assert places == [*(("relu1_1", n, "coffee") for n in range(3)), ("relu2_1", 5, "coffee")]
    store = Store(tmp_path / "store")
    assert set(store.names()) == {panel.key for panel in panels}
    picture = fmi.pictures.find("skimage:coffee", [])
    given = {"settings": "fast", "weights": "embedded", "denoise": 0.05, "progress": False}
    (one,) = fmi.invert.feature_map(picture, "relu2_1", 5, **given, long_edge=32, steps=3)
    assert store.find(panels[3].key).array.tobytes() == one.array.tobytes()

    lines = (tmp_path / "sweep.log").read_text().splitlines()
    share = f"energy share {one.energy_share:.4f}"
    wanted = rf"\S+ \S+ relu2_1:5 coffee: 3 steps, stopped by steps, {share}, [.\d]+ s, \w{{64}}"
    assert len(lines) == 4 and re.fullmatch(wanted, lines[3])
    content = summary(tmp_path)
    assert (content["panels"], content["finished"], content["diverged"]) == (4, 4, [])
    assert content["layers"]["relu1_1"]["stopped"] == {"steps": 3}
    assert content["layers"]["relu1_1"]["steps"] == {"least": 3, "median": 3, "most": 3}
    row = content["results"][3]
    assert row["key"] == panels[3].key and row["energy_share"] == one.energy_share
    assert row["seconds"] == store.entry(row["key"]).seconds
    assert not attack_sweep.strays(tmp_path)


def test_what_is_finished_is_never_computed_again(tmp_path, descents, caplog):
    assert run(tmp_path, *TINY, *FEW) == 0
    log = (tmp_path / "sweep.log").read_text()
    descents.clear()
    assert run(tmp_path, *TINY, *FEW) == 0 and not descents
    assert run(tmp_path, *TINY, "LAYERS=relu1_1", "FILTERS=1,2,3") == 0
    assert descents == [1]
    (more,) = set((tmp_path / "sweep.log").read_text().splitlines()) - set(log.splitlines())
    assert "relu1_1:3" in more
    moved = tmp_path.with_name("moved")
    shutil.move(tmp_path, moved)
    assert cli.main(["sweep", str(moved / "sweep.yaml")]) == 0
    assert descents == [1] and not tmp_path.exists()
    tmp_path.mkdir()


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_results_are_computed_again(tmp_path, descents, damage):
    words = (*TINY, *FEW, "STEPS=2")
    assert run(tmp_path, *words) == 0
    before = attack_sweep.results(tmp_path)
    store = Store(tmp_path / "store")
    damage(store.path(store.names()[1]))
    descents.clear()
    assert run(tmp_path, *words) == 0
    assert descents == [1] and attack_sweep.results(tmp_path) == before


def test_what_a_killed_process_has_left_is_removed(tmp_path):
    assert run(tmp_path, *TINY, *FEW) == 0
    store = Store(tmp_path / "store")
    (store.folder / "locks").mkdir(exist_ok=True)
    (store.folder / "locks" / store.names()[0]).write_text("")
    store.snapshots.mkdir()
    (store.snapshots / f"{store.names()[1]}.npz").write_text("")
    (store.snapshots / ".abc.part").write_text("")
    (tmp_path / "running").write_text("{}")
    assert run(tmp_path, *TINY, *FEW) == 0
    assert not attack_sweep.strays(tmp_path) and not store.snapshots.exists()


def test_a_log_whose_last_line_is_torn(tmp_path):
    assert run(tmp_path, *TINY, *FEW) == 0
    log = tmp_path / "sweep.log"
    before = log.read_text()
    log.write_text(before[:-40])
    assert run(tmp_path, *TINY, *FEW) == 0
    assert log.read_text() == before


@pytest.mark.parametrize("processes", [1, 2])
def test_a_picture_under_two_names_has_the_lines_of_both(tmp_path, caplog, capsys, processes):
    given = {**yaml.safe_load(ATLAS.read_text()), "pictures": []}
    for name in ("first", "x: 3 steps, stopped by y"):
        given["pictures"].append(str(tmp_path / f"{name}.png"))
        shutil.copy(fmi.pictures.find("skimage:coffee", []), given["pictures"][-1])
    (tmp_path / "both.yaml").write_text(yaml.safe_dump(given))
    del given["pictures"][1]
    (tmp_path / "one.yaml").write_text(yaml.safe_dump(given))
    words = (*TINY, "LAYERS=relu1_1,relu2_1", "FILTERS=0,1", f"PROCESSES={processes}")
    places = [f"{layer}:{n}" for layer in ("relu1_1", "relu2_1") for n in (0, 1)]
    one = [f"{place} first" for place in places]
    both = [*one, *(f"{place} x: 3 steps, stopped by y" for place in places)]

    def told(folder):
        lines = (folder / "sweep.log").read_text().splitlines()
        return sorted(re.sub(r"^\S+ \S+ |: 3 steps, stopped by steps, .*", "", x) for x in lines)

    caplog.set_level("INFO")
    for folder in (tmp_path / "at_once", tmp_path / "later"):
        if folder.name == "later":
            assert run(folder, *words, file=tmp_path / "one.yaml") == 0
            assert told(folder) == sorted(one)
            caplog.clear()
        for _ in range(2):
            assert run(folder, *words, file=tmp_path / "both.yaml") == 0
            assert told(folder) == sorted(both)
        assert len(Store(folder / "store").names()) == 4
        computed = "8" if folder.name == "at_once" else "0"
        assert f"{computed} of 8 panels to compute" in caplog.text
        assert progress.progress(folder).done == 8


def test_filters_of_each_layer(tmp_path, capsys):
    file = attack_sweep.written(tmp_path)
    text = file.read_text().replace("[0, 1, 2, 3, 4, 5, 6, 7]", "{relu1_2: [3, 1], relu3_1: all}")
    file.write_text(text)
    panels = sweep.panels(figures.Run(sweep.read(file)))
    assert [p.filter for p in panels if p.layer == "relu1_2"] == [3, 1]
    assert len(panels) == 2 + 64


def test_a_sweep_by_several_processes_has_the_same_bytes(tmp_path):
    many = ("LAYERS=relu1_1,relu1_2", "BATCH=3", "PICTURES=skimage:coffee,skimage:rocket")
    for number in (1, 2):
        assert run(tmp_path / str(number), *TINY, *many, f"PROCESSES={number}") == 0
        assert not attack_sweep.strays(tmp_path / str(number))
    one, two = (attack_sweep.results(tmp_path / str(number)) for number in (1, 2))
    assert one == two and len(one) == 3 * 64
    logs = [(tmp_path / str(number) / "sweep.log").read_text() for number in (1, 2)]
    panels = [sorted(re.findall(r"relu\S+ \w+: 3 steps", text)) for text in logs]
    assert panels[0] == panels[1] and len(set(panels[0])) == 64


def test_auto_keeps_the_precision_that_was_chosen_before(tmp_path, descents):
    given = [word for word in TINY if "PRECISION" not in word]
    assert run(tmp_path, *given, *FEW, "PRECISION=bfloat16") == 0
    descents.clear()
    assert run(tmp_path, *given, *FEW, "PRECISION=auto") == 0
    assert not descents


def test_panels_that_diverge(tmp_path, capsys, monkeypatch):
    good = descent._good

    def bad(done, batch, values, *rest):
        if len(batch.pictures) > 1 and 1 in batch.pictures:
            values[1, list(batch.pictures).index(1)] = np.nan
        return good(done, batch, values, *rest)

    monkeypatch.setattr(descent, "_good", bad)
    assert run(tmp_path, *TINY, *FEW) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "1 of 4" in error and "relu1_1:1" in error
    assert summary(tmp_path)["diverged"] == ["relu1_1:1 coffee"]
    assert len(Store(tmp_path / "store").names()) == 3
    assert not attack_sweep.strays(tmp_path)


# --- what ends it ---


LONG = pytest.mark.skipif(os.environ.get("FMI_FULL") != "1", reason="FMI_FULL=1 runs it twice")


@pytest.mark.parametrize(
    "stop",
    ["stop: 0.05", pytest.param("stop: 0", marks=LONG)],  # one by one, or all at once
)
def test_kill_9(tmp_path, stop):
    preset = ("settings: code", stop) if stop != "stop: 0" else ("settings: fast",)
    found = attack_sweep.attack(tmp_path, 4, 3, preset)
    assert found.right and found.kills == 4, found


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("processes", [1, 2])
def test_an_interrupt_keeps_what_is_finished(tmp_path, number, status, processes):
    file = attack_sweep.written(tmp_path, "settings: fast")
    folder = tmp_path / "a"
    words = (f"PROCESSES={processes}", "STEPS=40", "BATCH=2", "FILTERS=all")
    process = attack_sweep.start(file, folder, *words)
    wait_for(lambda: process.poll() is not None or list(folder.glob("store/??/*/manifest.json")))
    process.send_signal(number)
    _, error = process.communicate(timeout=SECONDS)
    assert process.returncode == status
    assert error.splitlines()[-1].startswith("fmi: interrupted") and "again" in error
    assert "Traceback" not in error
    store = Store(folder / "store")
    assert 0 < len(store.names()) < 80 and all(map(store.intact, store.names()))
    left = attack_sweep.strays(folder)
    assert all(name.startswith("store/snapshots/") and name.endswith(".npz") for name in left)


def test_an_interrupt_while_the_last_picture_is_stored(tmp_path, monkeypatch):
    """No picture of the batch is left that could be called interrupted."""
    add = Store.add

    def interrupted(store, inversion):
        name = add(store, inversion)
        if inversion.record["filter"] == 2:
            raise KeyboardInterrupt
        return name

    monkeypatch.setattr(Store, "add", interrupted)
    assert run(tmp_path, *TINY, *FEW) == 130
    assert len(Store(tmp_path / "store").names()) == 3  # nothing more is finished


def wait_for(condition):
    last = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < last, "too slow"
        time.sleep(0.05)


@pytest.mark.parametrize("limit", [5, 300, 3_000, 8_000])
def test_a_full_disk(tmp_path, limit, capsys):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        assert run(tmp_path / "a", *TINY, *FEW) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and "too large" in lines[0]  # what the system says of this limit
    store = Store(tmp_path / "a/store")
    assert all(map(store.intact, store.names()))
    assert run(tmp_path / "a", *TINY, *FEW) == 0
    assert run(tmp_path / "b", *TINY, *FEW) == 0
    assert attack_sweep.results(tmp_path / "a") == attack_sweep.results(tmp_path / "b")
    assert not attack_sweep.strays(tmp_path / "a")


@pytest.mark.parametrize("folder", ["file/a", "/proc/a", "/dev/null"])
def test_a_folder_that_cannot_be_written(tmp_path, folder, capsys, descents, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    assert run(folder, *TINY, *FEW) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and "written" in lines[0] and not descents


# --- bad input ---

BAD = {
    "FILTERS=99": "99",
    "FILTERS=-1": "-1",
    "FILTERS=one": "one",
    "FILTERS=1.5": "1.5",
    "LAYERS=relu9_9": "relu9_9",
    "LAYERS=relu1_1,relu1_1": "twice",
    "PICTURES=none.png": "none.png",
    "STEPS=0": "steps",
    "BATCH=many": "batch",
    "BATCH=-1": "batch",
    "CHAIN=1": "CHAIN",
    "WEIGHTS=none.npz": "none.npz",
    "PROCESSES=0": "processes",
    "RESULTS=": "RESULTS=",
}


@pytest.mark.parametrize("word", BAD)
def test_bad_values(tmp_path, capsys, word, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["sweep", str(ATLAS), *TINY[:3], word]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and BAD[word] in lines[0]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("text", "fact"),
    [
        ("[", "cannot be read"),
        ("figure: fig9", "fig9"),
        ("figure: sweep", "pictures"),
        ("figure: sweep\npictures: [skimage:coffee]\nfilters: {relu1_1: x}", "filters"),
        ("figure: sweep\npictures: [skimage:coffee]\nfilters: {relu7_1: [1]}", "relu7_1"),
        ("figure: sweep\npictures: [skimage:coffee]\nfilters: {}", "filters"),
        ("figure: sweep\npictures: [skimage:coffee]\nfilters: {1: [1]}", "filters"),
        ("figure: sweep\npictures: [skimage:coffee]\nfilters: [true]", "filters"),
        ("figure: sweep\npictures: [skimage:coffee]\nlayers: []", "layers"),
        ("figure: sweep\npictures: [skimage:coffee]\nresults: 3", "results"),
        ("figure: sweep\npictures: 5", "pictures"),
    ],
)
def test_bad_files(tmp_path, capsys, text, fact, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "bad.yaml"
    file.write_text(text)
    assert cli.main(["sweep", str(file), "WEIGHTS=embedded"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and fact in lines[0]
    assert list(tmp_path.iterdir()) == [file]


# --- the status ---


def test_the_status_while_it_runs_and_afterwards(tmp_path, capsys):
    file, folder = attack_sweep.written(tmp_path, "settings: fast"), tmp_path / "a"
    process = attack_sweep.start(file, folder, "STEPS=500", "BATCH=1", "PROCESSES=1")
    wait_for(lambda: process.poll() is not None or list(folder.glob("store/??/*/manifest.json")))
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.json")}
    words = [sys.executable, "-m", "fmi", "status", str(folder), "--json"]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert found["running"] and 1 <= found["done"] < found["panels"] == 16
    assert found["per_minute"] > 0 and found["seconds_left"] > 0
    assert found["layers"]["relu1_2"]["panels"] == 8
    assert sum(layer["done"] for layer in found["layers"].values()) == found["done"]
    assert cli.main(["status", str(folder)]) == 0
    text = capsys.readouterr().out
    assert "of 16 panels" in text and "a minute" in text and "left" in text
    assert run(folder, file=file) == 2  # beside the other one
    assert "another process" in capsys.readouterr().err
    process.kill()
    process.communicate()
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())
    assert cli.main(["status", str(folder)]) == 0
    text = capsys.readouterr().out
    assert f"fmi sweep {folder}/sweep.yaml" in text
    found = progress.progress(folder)
    assert not found.running and found.per_minute is None


def test_the_time_left_counts_panels_by_their_cost(tmp_path, monkeypatch):
    panels = [progress.Panel("a", n, "x", f"{n}" * 64) for n in range(4)]
    panels += [progress.Panel("b", 0, "x", "b" * 64)]
    progress.save_panels(tmp_path, tmp_path / "store", panels, {"a": 1.0, "b": 3.0})
    with progress.running(tmp_path):
        began = progress._began(tmp_path)
        monkeypatch.setattr(Store, "when", lambda _, key: began if key[0] in "01" else None)
        time.sleep(0.3)
        found = progress.progress(tmp_path)
    assert found.running and (found.panels, found.done) == (5, 2)
    assert found.seconds_left == pytest.approx(2.5 * 120 / found.per_minute)  # 5 after 2
    assert found.layers == {"a": progress.LayerProgress(4, 2), "b": progress.LayerProgress(1, 0)}
    assert not progress.progress(tmp_path).running


@pytest.mark.parametrize(
    "content", [None, "", "[]", '{"panels": [1]}', '{"panels": [{}]}', "[" * 9**5]
)
def test_folders_without_a_sweep(tmp_path, content, capsys):
    if content is not None:
        (tmp_path / "panels.json").write_text(content)
    assert cli.main(["status", str(tmp_path)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and str(tmp_path) in lines[0]
    with pytest.raises(InputError):
        progress.progress(tmp_path / "nowhere")


def test_the_file_of_a_sweep_is_the_whole_experiment(tmp_path, picture_folder):
    words = (*TINY, *FEW, f"PICTURES={picture_folder}/tubingen.png", "SEED=3", "POOL=max")
    assert run(tmp_path, *words) == 0
    content = yaml.safe_load((tmp_path / "sweep.yaml").read_text())
    assert content["pictures"] == [f"{picture_folder}/tubingen.png"]
    assert content["seed"] == 3 and content["pool"] == "max" and content["settings"] == "fast"
    panels = [
        sweep.panels(figures.Run(sweep.read(file, more)))
        for file, more in ((ATLAS, words), (tmp_path / "sweep.yaml", ()))
    ]
    assert panels[0] == panels[1]


def test_a_file_that_is_called_like_a_sweeps_own(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    text = "# mine\n" + ATLAS.read_text().replace("results/atlas", "elsewhere")
    (tmp_path / "sweep.yaml").write_text(text)
    assert cli.main(["sweep", "sweep.yaml", *TINY, *FEW]) == 0
    assert (tmp_path / "sweep.yaml").read_text() == text
    assert (tmp_path / "elsewhere/summary.json").is_file()


def test_names_that_are_folders_too(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name in ("embedded", "cpu", "skimage:coffee"):
        (tmp_path / name).mkdir()
    assert run("r", *TINY, *FEW, "CTX=cpu") == 0
    assert cli.main(["sweep", "r/sweep.yaml"]) == 0


def test_an_atlas_of_a_sweep_whose_store_is_elsewhere(tmp_path, capsys):
    assert run(tmp_path / "r", *TINY, *FEW, f"STORE={tmp_path / 'elsewhere'}") == 0
    assert cli.main(["atlas", str(tmp_path / "r")]) == 0
    assert (tmp_path / "r/atlas/index.html").is_file()


def test_the_status_of_an_empty_list(tmp_path, capsys):
    (tmp_path / "panels.json").write_text('{"panels": [], "costs": {}, "store": "store"}')
    assert cli.main(["status", str(tmp_path)]) == 2
    assert "damaged" in capsys.readouterr().err
