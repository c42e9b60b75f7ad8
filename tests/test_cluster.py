"""Sweeps by the workers of dask.distributed: the same bytes, whatever is killed."""

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import attack_sweep
import psutil
import pytest
from attack import environment
from test_sweep import ATLAS, FEW, SECONDS, TINY, run, wait_for

from fmi import cli
from fmi.device.environment import pip_install
from fmi.errors import InputError
from fmi.runs import cluster, sweep
from fmi.runs.cluster import Cluster, Site
from fmi.runs.store import FILES, MANIFEST, Store

distributed = pytest.importorskip("distributed")

# They start processes that wait for each other: on busy cores, dask's own time-outs end some.
pytestmark = pytest.mark.skipif(
    not os.environ.get("FMI_FULL"), reason="FMI_FULL=1 runs sweeps on dask's workers"
)

MANY = ("LAYERS=relu1_1,relu1_2", "FILTERS=0,1,2,3,4,5", "BATCH=1")
SERVE = """
import time, distributed
if __name__ == "__main__":
    made = distributed.LocalCluster(
        n_workers=1, threads_per_worker=1, memory_limit=0, dashboard_address=":0"
    )
    print(made.scheduler_address, flush=True)
    time.sleep(600)
"""


@pytest.fixture(scope="module")
def workers():
    """Two workers with a thread each, which many sweeps use."""
    made = distributed.LocalCluster(
        n_workers=2,
        threads_per_worker=1,
        processes=True,
        memory_limit=0,
        env={"OMP_NUM_THREADS": "1"},
        dashboard_address=":0",
    )
    yield made
    made.close()


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """The results of sweeps without a cluster."""
    folder = tmp_path_factory.mktemp("plain")
    assert run(folder / "few", *TINY, *FEW) == 0
    assert run(folder / "many", *TINY, *MANY) == 0
    return {name: attack_sweep.results(folder / name) for name in ("few", "many")}


def on(address, folder, *words):
    return cli.main(
        ["sweep", str(ATLAS), f"RESULTS={folder}", "--scheduler", str(address), *TINY, *words]
    )


def times(folder):
    return {path: path.stat().st_mtime_ns for path in folder.glob("store/??/*/manifest.json")}


def test_the_results_are_those_of_a_plain_sweep(tmp_path, workers, plain, capsys):
    assert on(workers.scheduler_address, tmp_path, *FEW) == 0
    assert capsys.readouterr().out == f"{tmp_path}/summary.json\n"
    assert attack_sweep.results(tmp_path) == plain["few"]
    assert len((tmp_path / "sweep.log").read_text().splitlines()) == 4
    assert not attack_sweep.strays(tmp_path)
    before = times(tmp_path)
    assert on("tcp://127.0.0.1:1", tmp_path, *FEW) == 0  # nothing is missing
    assert times(tmp_path) == before
    assert on(workers.scheduler_address, tmp_path, "LAYERS=relu1_1", "FILTERS=1,2,3") == 0
    assert len(times(tmp_path)) == 5 and before.items() < times(tmp_path).items()


def test_workers_of_this_machine(tmp_path, plain, caplog):
    caplog.set_level("INFO")
    words = ["sweep", str(ATLAS), f"RESULTS={tmp_path}", "--workers", "1", *TINY, *FEW]
    assert cli.main(words) == 0
    assert "a worker with" in caplog.text
    assert attack_sweep.results(tmp_path) == plain["few"]
    assert not attack_sweep.strays(tmp_path)


def test_each_worker_has_its_share_of_the_threads(tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "6")
    found = {}
    monkeypatch.setattr(distributed, "LocalCluster", lambda **given: found.update(given))
    experiment = sweep.read(ATLAS, [f"RESULTS={tmp_path}", "CTX=cpu"])
    cluster._local(distributed, 3, sweep.Run(experiment))
    assert found["env"] == {"OMP_NUM_THREADS": "2"} and found["n_workers"] == 3


def test_results_come_back_from_workers_that_do_not_see_the_folder(
    tmp_path, workers, plain, monkeypatch
):
    elsewhere = {"folder": Path("/nowhere"), "store": Path("/nowhere/store")}
    register = cluster._registered
    monkeypatch.setattr(
        cluster, "_registered", lambda *given: register(*given[:2], replace(given[2], **elsewhere))
    )
    assert on(workers.scheduler_address, tmp_path, *FEW) == 0
    assert attack_sweep.results(tmp_path) == plain["few"]
    assert not attack_sweep.strays(tmp_path) and not Path("/nowhere").exists()


@pytest.mark.parametrize("token", ["", "of another sweep"])
def test_a_folder_of_the_same_name_is_not_taken_for_the_shared_one(tmp_path, token):
    (tmp_path / "running").write_text("this")
    site = Site("", None, None, {}, tmp_path, tmp_path / "store", "this")
    assert site.shared
    (tmp_path / "running").write_text(token)
    assert not site.shared
    (tmp_path / "running").unlink()
    assert not site.shared
    (tmp_path / "running").write_text("this")
    outside = tmp_path.with_name("elsewhere")
    assert not Site("", None, None, {}, tmp_path, outside, "this").shared


def test_packed_results_are_unpacked_with_the_same_bytes(tmp_path, plain):
    assert run(tmp_path, *TINY, "LAYERS=relu1_1", "FILTERS=0") == 0
    store, other = Store(tmp_path / "store"), Store(tmp_path / "other")
    (name,) = store.names()
    other.unpack(name, store.packed(name))
    assert other.intact(name) and store.entry(name) == other.entry(name)
    for file in FILES:
        assert (store.path(name) / file).read_bytes() == (other.path(name) / file).read_bytes()
    (other.path(name) / MANIFEST).write_text("{}")
    assert other.packed(name) is None
    other.unpack(name, store.packed(name))  # what is damaged is replaced
    assert other.intact(name)


# --- what is lost ---


def first_told(monkeypatch, action):
    """Do something when the first panel is told of; return the times of what was there then."""
    tell, found = Store.tell, {}

    def told(store, name):
        tell(store, name)
        if not found:
            found.update(times(store.folder.parent))
            action()

    monkeypatch.setattr(Store, "tell", told)
    return found


def test_a_worker_that_is_killed(tmp_path, workers, plain, monkeypatch):
    begun = [worker.process.pid for worker in workers.workers.values()]
    before = first_told(monkeypatch, lambda: os.kill(begun[0], signal.SIGKILL))
    assert on(workers.scheduler_address, tmp_path, *MANY) == 0
    assert not psutil.pid_exists(begun[0]) or psutil.Process(begun[0]).status() == "zombie"
    assert attack_sweep.results(tmp_path) == plain["many"]
    assert 0 < len(before) < 12 and before.items() <= times(tmp_path).items()
    assert len((tmp_path / "sweep.log").read_text().splitlines()) == 12
    assert not attack_sweep.strays(tmp_path)


def test_a_scheduler_that_dies(tmp_path, plain, monkeypatch, capsys):
    monkeypatch.setattr(cluster, "PATIENCE", 2.0)
    words = [sys.executable, "-c", SERVE]
    with subprocess.Popen(words, env=environment(), stdout=subprocess.PIPE, text=True) as process:
        before = first_told(monkeypatch, process.kill)
        address = process.stdout.readline().strip()
        assert on(address, tmp_path, *MANY) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and address in lines[0]
    store = Store(tmp_path / "store")
    assert 0 < len(store.names()) < 12 and all(map(store.intact, store.names()))
    assert run(tmp_path, *TINY, *MANY) == 0
    assert attack_sweep.results(tmp_path) == plain["many"]
    assert before.items() <= times(tmp_path).items()
    assert not attack_sweep.strays(tmp_path)


def test_an_interrupt_ends_the_workers_and_keeps_what_is_finished(tmp_path):
    file = attack_sweep.written(tmp_path, "settings: fast")
    folder = tmp_path / "a"
    process = attack_sweep.start(file, folder, "--workers", "1", "BATCH=1", "FILTERS=all")
    wait_for(lambda: process.poll() is not None or times(folder))
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=SECONDS)
    assert process.returncode == 130 and "Traceback" not in error
    assert error.splitlines()[-1].startswith("fmi: interrupted")
    assert children and not psutil.wait_procs(children, timeout=SECONDS)[1]
    store = Store(folder / "store")
    assert 0 < len(store.names()) < 80 and all(map(store.intact, store.names()))
    kinds = ("store/snapshots/", "store/locks/")  # of the descents that were ended
    assert all(name.startswith(kinds) for name in attack_sweep.strays(folder))


# --- bad input ---


@pytest.mark.parametrize(
    "address",
    ["tcp://127.0.0.1:1", "nothing://127.0.0.1:1", "tcp://127.0.0.1:x", "", "fmi.invalid:8786"],
)
def test_a_scheduler_that_is_not_there(tmp_path, address, monkeypatch, capsys):
    monkeypatch.setattr(cluster, "PATIENCE", 0.5)
    assert on(address, tmp_path, *FEW) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and "scheduler=" in lines[0] and address in lines[0]
    assert not attack_sweep.strays(tmp_path)


@pytest.mark.parametrize("word", ["0", "-1", "1.5", "two", "100000"])
def test_bad_numbers_of_workers(tmp_path, word, capsys):
    try:
        status = cli.main(["sweep", str(ATLAS), f"RESULTS={tmp_path}", "--workers", word])
    except SystemExit as error:  # argparse
        status = error.code
    assert status == 2 and word in capsys.readouterr().err.splitlines()[-1]
    assert not list(tmp_path.iterdir())


def test_one_of_both_is_given():
    for given in ((), ("tcp://127.0.0.1:1", 2)):
        with pytest.raises(InputError):
            Cluster(*given)


def test_without_the_package(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "distributed", None)
    assert on("tcp://127.0.0.1:1", tmp_path, *FEW) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and pip_install("cluster") in lines[0]


def test_a_worker_that_would_compute_other_pictures(tmp_path, workers, monkeypatch, capsys):
    batch = sweep.Batch
    monkeypatch.setattr(
        sweep, "Batch", lambda *given: batch(*given[:3], tuple("0" * 64 for _ in given[3]), 1.0)
    )
    assert on(workers.scheduler_address, tmp_path, *FEW) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and "relu" in lines[0] and "same versions" in lines[0]
    assert not Store(tmp_path / "store").names()


def test_workers_that_cannot_begin(tmp_path, monkeypatch, capsys):
    def fail(**_):
        raise RuntimeError("Nanny failed to start.")  # as if it was killed at this moment

    monkeypatch.setattr(distributed, "LocalCluster", fail)
    assert run(tmp_path, *TINY, *FEW, "--workers", "2") == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and "cannot begin" in lines[0] and "Nanny" in lines[0]
