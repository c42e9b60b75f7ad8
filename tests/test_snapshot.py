"""Snapshots: a descent that was killed goes on, and gives the same bytes as one that was not."""

import io
import json
import os
import pickle
import resource
import signal
import subprocess
import sys
import time
import zipfile

import numpy as np
import pytest

import fmi.invert
from fmi import descent, files, optimisers, snapshots
from fmi.errors import InputError
from fmi.runs import store as stores
from fmi.runs.store import Store

QUICK = {"long_edge": 32, "progress": False, "ctx": "cpu", "weights": "embedded"}


@pytest.fixture(autouse=True)
def at_every_step(monkeypatch):
    monkeypatch.setattr(snapshots, "SECONDS", 0.0)
    monkeypatch.setattr(snapshots, "SHARE", float("inf"))


class Killed(BaseException):
    """Stands for kill -9: nothing is done afterwards."""


def killed_at(step):
    """A callback that ends the descent in a step, of which no snapshot is written."""

    def callback(state):
        if state.step == step:
            raise Killed

    return callback


CALLS = {
    "momentum": (
        lambda picture, _style, **o: fmi.invert.feature_map(picture, "relu2_1", [0, 3, 5], **o),
        {"steps": 12, "stop": 0},
    ),
    "bfloat16": (
        lambda picture, _style, **o: fmi.invert.feature_map(picture, "relu2_1", [0, 3], **o),
        {"steps": 12, "stop": 0, "precision": "bfloat16"},
    ),
    "stops": (  # the pictures stop at different steps
        lambda picture, _style, **o: fmi.invert.feature_map(picture, "relu1_2", [0, 1, 2, 3], **o),
        {"steps": 60, "stop": 0.03},
    ),
    "fast": (
        lambda picture, _style, **o: fmi.invert.feature_map(picture, "relu3_1", [1, 2], **o),
        {"steps": 12, "settings": "fast"},
    ),
    "fast, bfloat16": (
        lambda picture, _style, **o: fmi.invert.feature_map(picture, "relu3_1", [1, 2], **o),
        {"steps": 12, "settings": "fast", "precision": "bfloat16"},
    ),
    "lbfgs": (
        lambda picture, style, **o: [fmi.invert.gatys(picture, style, **o)],
        {"steps": 30, "settings": "fast"},
    ),
    "lbfgs, bfloat16": (
        lambda picture, style, **o: [fmi.invert.purposeful(picture, style, **o)],
        {"steps": 30, "settings": "fast", "precision": "bfloat16"},
    ),
    "lbfgs, a batch": (
        lambda picture, _style, **o: fmi.invert.feature_map(picture, "relu2_1", [4, 5, 6], **o),
        {"steps": 14, "settings": "fast", "descent": "lbfgs", "stop": 0.02},
    ),
    "chain": (
        lambda picture, _style, **o: fmi.invert.feature_map(
            picture, "relu1_2", [0, 2, 4], chain=True, **o
        ),
        {"steps": 9, "stop": 0},
    ),
    "random": (
        lambda picture, _style, **o: fmi.invert.random(picture, "relu2_1", draws=2, **o),
        {"steps": 9, "stop": 0},
    ),
    "batches": (
        lambda picture, _style, **o: fmi.invert.feature_map(picture, "relu2_1", range(5), **o),
        {"steps": 9, "stop": 0, "batch": 2},
    ),
    "maximise": (
        lambda picture, _style, **o: fmi.invert.maximise(picture, "relu2_1", [0, 1], **o),
        {"steps": 9, "settings": "fast"},
    ),
}


def same(found, wanted):
    assert len(found) == len(wanted)
    for one, other in zip(found, wanted):
        assert one.array.tobytes() == other.array.tobytes()
        assert np.array_equal(np.asarray(one.image), np.asarray(other.image))
        assert stores.key(one.record) == stores.key(other.record)
        assert one.describe()["outcome"] == other.describe()["outcome"]
        assert one.loss == other.loss


@pytest.fixture
def steps(monkeypatch):
    """The steps that are computed: the number of gradients."""
    moved = []
    for kind in (optimisers.Momentum, optimisers.LBFGS):
        move = kind.move

        def counted(self, *arguments, move=move):
            moved.append(arguments[-1])
            return move(self, *arguments)

        monkeypatch.setattr(kind, "move", counted)
    return moved


@pytest.mark.parametrize("kept", ["file", "store"])
@pytest.mark.parametrize("name", CALLS)
def test_a_killed_descent_goes_on_with_the_same_bytes(picture, style, tmp_path, steps, name, kept):
    call, given = CALLS[name]
    options = {**QUICK, **given}
    wanted = call(picture, style, **options)
    whole = len(steps)
    steps.clear()
    store = Store(tmp_path / "store")
    where = {"snapshot": tmp_path / "file"} if kept == "file" else {"store": store}
    for step in (2, 5, 8, 8):  # the last one twice: in another link of a chain, or another batch
        with pytest.raises(Killed):
            call(picture, style, **options, **where, callback=killed_at(step))
        assert any(path.is_file() for path in tmp_path.rglob("*"))
    found = call(picture, style, **options, **where)
    same(found, wanted)
    assert whole <= len(steps) <= whole + 4  # each kill lost one step
    left = [path for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".part"]
    assert all(kept == "store" and path.parent.parent.parent == store.folder for path in left)


def test_pictures_that_have_stopped_are_not_computed_again(picture, tmp_path, steps):
    """Two of four have stopped when the process is killed."""
    call, given = CALLS["stops"]
    wanted = call(picture, None, **QUICK, **given)
    ends = sorted(one.steps for one in wanted)
    assert ends[0] < ends[2]
    whole, _ = len(steps), steps.clear()
    for where in ({"snapshot": tmp_path / "file"}, {"store": Store(tmp_path / "store")}):
        steps.clear()
        with pytest.raises(Killed):
            call(picture, None, **QUICK, **given, **where, callback=killed_at(ends[2]))
        same(call(picture, None, **QUICK, **given, **where), wanted)
        assert len(steps) == whole + 1


def test_the_pictures_of_a_batch_go_on_in_smaller_ones(picture, tmp_path, steps):
    call, given = CALLS["momentum"]
    wanted = call(picture, None, **QUICK, **given)
    file = tmp_path / "file"
    with pytest.raises(Killed):
        call(picture, None, **QUICK, **given, snapshot=file, callback=killed_at(8))
    steps.clear()
    same(call(picture, None, **QUICK, **given, snapshot=file, batch=2), wanted)
    assert len(steps) == 10  # steps 8 to 12, for two pictures and for one
    assert not file.exists()


def test_pictures_that_were_not_begun_are_computed_after_the_others(picture, tmp_path, steps):
    _, given = CALLS["momentum"]
    file = tmp_path / "file"

    def call(filters, **more):
        return fmi.invert.feature_map(picture, "relu2_1", filters, **QUICK, **given, **more)

    wanted = call([0, 3, 5, 6])
    with pytest.raises(Killed):
        call([0, 3], snapshot=file, callback=killed_at(8))
    steps.clear()
    same(call([0, 3, 5, 6], snapshot=file), wanted)
    assert len(steps) == 5 + 12


def test_a_diverged_picture_stays_as_it_was(picture, tmp_path, monkeypatch):
    call, given = CALLS["momentum"]
    options = {**QUICK, **given, "snapshot": tmp_path / "file"}
    good = descent._good

    def bad(done, batch, values, step, *rest):
        if step == 3 and 1 in batch.pictures:
            values[1, batch.pictures.index(1)] = np.nan
        return good(done, batch, values, step, *rest)

    monkeypatch.setattr(descent, "_good", bad)
    wanted = call(picture, None, **{**options, "snapshot": None})
    with pytest.raises(Killed):
        call(picture, None, **options, callback=killed_at(8))
    found = call(picture, None, **options)
    same(found, wanted)
    assert [one.stopped for one in found] == ["steps", "diverged", "steps"]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "change",
    [{"learning_rate": 0.2}, {"seed": 1}, {"long_edge": 33}, {"start": 1.0}, {"steps": 11}],
)
def test_a_snapshot_of_other_settings_is_ignored(picture, tmp_path, caplog, change, steps):
    call, given = CALLS["momentum"]
    options, file = {**QUICK, **given}, tmp_path / "file"
    with pytest.raises(Killed):
        call(picture, None, **options, snapshot=file, callback=killed_at(6))
    wanted = call(picture, None, **{**options, **change})
    steps.clear()
    found = call(picture, None, **{**options, **change}, snapshot=file)
    same(found, wanted)
    assert len(steps) == {**options, **change}["steps"]
    assert len([line for line in caplog.messages if "other pictures or settings" in line]) == 1
    assert not file.exists()


# --- files that are no snapshot, or damaged ---


@pytest.fixture
def snapshot(picture, tmp_path):
    """A snapshot after step 5."""
    call, given = CALLS["momentum"]
    file = tmp_path / "file"
    with pytest.raises(Killed):
        call(picture, None, **QUICK, **given, snapshot=file, callback=killed_at(6))
    return file


def rewritten(file, change):
    """Change the arrays of a snapshot, in a file that is otherwise whole."""
    with np.load(file) as archive:
        arrays = {name: archive[name] for name in archive.files}
    head = json.loads(arrays.pop(snapshots.HEAD).tobytes())
    change(head, arrays)
    data = np.frombuffer(json.dumps(head).encode(), np.uint8)
    with file.open("wb") as stream:
        np.savez(stream, **{snapshots.HEAD: data}, **arrays)


def pickled(head, arrays):
    arrays["rows/velocity"] = np.array([Evil()], dtype=object)


class Evil:
    """Unpickled, it would run a command."""

    def __reduce__(self):
        return os.mkdir, ("EVIL",)


def bare_pickle(file):
    file.write_bytes(file.read_bytes()[: 30 + len(snapshots.HEAD)] + pickle.dumps(Evil()))


def without(name):
    return lambda file: rewritten(file, lambda head, arrays: arrays.pop(name))


def shaped(name, shape):
    def change(head, arrays):
        arrays[name] = np.zeros(shape, np.float32)

    return lambda file: rewritten(file, change)


def headed(**entries):
    return lambda file: rewritten(file, lambda head, arrays: head.update(entries))


def flipped(place):
    def change(file):
        data = bytearray(file.read_bytes())
        data[int(place * len(data))] ^= 16
        file.write_bytes(bytes(data))

    return change


def cut(share):
    return lambda file: file.write_bytes(file.read_bytes()[: int(share * file.stat().st_size)])


def all_of_another_size(head, arrays):
    for name in ("image", "before", "velocity"):
        arrays[f"rows/{name}"] = np.zeros((3, 3, 8, 8), np.float32)


DAMAGE = {
    "empty": lambda file: file.write_bytes(b""),
    "cut": cut(0.5),
    "cut at the end": cut(0.99),
    "cut in the head": cut(0.02),
    "flipped": flipped(0.6),
    "flipped head": flipped(0.003),
    "pickled array": lambda file: rewritten(file, pickled),
    "pickle": bare_pickle,
    "no velocity": without("rows/velocity"),
    "no image": without("rows/image"),
    "velocity of numbers": shaped("rows/velocity", (3,)),
    "one row": shaped("rows/velocity", (1, 3, 24, 32)),
    "odd image": shaped("rows/image", (3, 2)),
    "another size": lambda file: rewritten(file, all_of_another_size),
    "step is text": headed(step="six"),
    "step is negative": headed(step=-4),
    "no losses": headed(losses=[]),
    "running is a number": headed(running=3),
    "stopped is odd": headed(stopped=[{"key": 1}]),
    "arrays is odd": headed(arrays=[["x"]]),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_snapshot_is_ignored(picture, snapshot, damage, caplog, steps, monkeypatch):
    monkeypatch.chdir(snapshot.parent)
    call, given = CALLS["momentum"]
    wanted = call(picture, None, **QUICK, **given)
    DAMAGE[damage](snapshot)
    steps.clear()
    caplog.clear()
    same(call(picture, None, **QUICK, **given, snapshot=snapshot), wanted)
    assert len(steps) == 12
    ignored = [line for line in caplog.messages if "ignored" in line]
    assert len(ignored) == 1
    assert not list(snapshot.parent.iterdir())  # nor EVIL


def test_random_damage_never_crashes(picture, snapshot):
    call, given = CALLS["momentum"]
    wanted = call(picture, None, **QUICK, **given)
    data = snapshot.read_bytes()
    random = np.random.RandomState(0)
    for _ in range(40):
        spoilt = bytearray(data)
        for place in random.randint(0, len(data), 3):
            spoilt[place] = random.randint(256)
        snapshot.write_bytes(bytes(spoilt[: random.randint(1, len(data) + 1)]))
        snapshots._read(snapshot)
    snapshot.write_bytes(bytes(spoilt))
    same(call(picture, None, **QUICK, **given, snapshot=snapshot), wanted)


@pytest.mark.parametrize("content", [b"my holidays", b"PK\x03\x04" + b"x" * 100])
def test_files_that_are_no_snapshots_are_left_alone(picture, tmp_path, content, caplog):
    file = tmp_path / "holidays.npz"
    file.write_bytes(content)
    call, given = CALLS["momentum"]
    wanted = call(picture, None, **QUICK, **given)
    same(call(picture, None, **QUICK, **given, snapshot=file), wanted)
    assert file.read_bytes() == content
    assert len([line for line in caplog.messages if "not a snapshot" in line]) == 1


@pytest.mark.parametrize("value", ["", 3, ".", "a\0b", "/dev/null/x", "n" * 300, ["x"]])
def test_values_that_are_no_paths(picture, tmp_path, monkeypatch, value):
    monkeypatch.chdir(tmp_path)
    call, given = CALLS["momentum"]
    with pytest.raises(InputError) as caught:
        call(picture, None, **QUICK, **given, snapshot=value)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_full_disk_does_not_end_the_descent(picture, tmp_path, caplog):
    call, given = CALLS["momentum"]
    wanted = call(picture, None, **QUICK, **given)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    for limit in (10, 500, 20_000, 60_000):
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
        try:
            found = call(picture, None, **QUICK, **given, snapshot=tmp_path / "file")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        same(found, wanted)
        assert not list(tmp_path.iterdir())
    assert "goes on without" in caplog.text


def test_snapshots_are_rare(picture, tmp_path, monkeypatch):
    """Not before SECONDS have passed, and with at most SHARE of the time."""
    written, clock = [], [0.0]
    monkeypatch.setattr(snapshots, "SECONDS", 20.0)
    monkeypatch.setattr(snapshots, "SHARE", 0.02)
    monkeypatch.setattr(snapshots.time, "monotonic", lambda: clock[0])
    write = files.write_whole

    def slow(path, how):
        written.append(clock[0])
        clock[0] += 1.5
        write(path, how)

    monkeypatch.setattr(snapshots.files, "write_whole", slow)

    def tick(_state):
        clock[0] += 1.0

    call, given = CALLS["momentum"]
    options = {**QUICK, **given, "steps": 200, "callback": tick}
    call(picture, None, **options, snapshot=tmp_path / "file")
    assert written[0] == 20.0
    assert np.diff(written) == pytest.approx(np.full(len(written) - 1, 1.5 + 75), abs=1)
    assert len(written) == 3


def test_ctrl_c_keeps_the_snapshot(picture, tmp_path, steps):
    call, given = CALLS["momentum"]
    wanted = call(picture, None, **QUICK, **given)

    def interrupt(state):
        if state.step == 7:
            raise KeyboardInterrupt

    file = tmp_path / "file"
    found = call(picture, None, **QUICK, **given, snapshot=file, callback=interrupt)
    assert [one.stopped for one in found] == ["interrupted"] * 3
    assert file.exists()
    steps.clear()
    same(call(picture, None, **QUICK, **given, snapshot=file), wanted)
    assert steps[0] == 7


SCRIPT = """
import sys, numpy as np
from fmi import snapshots
snapshots.SECONDS, snapshots.SHARE = 0.0, float("inf")
import fmi.invert
picture = np.load(sys.argv[1])
print("begins", flush=True)
found = fmi.invert.feature_map(picture, "relu2_1", [0, 1, 2], weights="embedded", long_edge=48,
    steps=250, stop=0, progress=False, ctx="cpu", snapshot=sys.argv[2])
np.save(sys.argv[3], np.stack([one.array for one in found]))
print([one.loss for one in found])
"""


def test_kill_9(picture, tmp_path):
    """At random moments of a process, in the middle of a step or of a snapshot."""
    np.save(tmp_path / "picture.npy", picture)
    folder = tmp_path / "snapshots"

    def run(name, seconds=None):
        words = [sys.executable, "-c", SCRIPT, tmp_path / "picture.npy", folder / name]
        process = subprocess.Popen([*words, tmp_path / f"{name}.npy"], stdout=subprocess.PIPE)
        assert process.stdout.readline() == b"begins\n"
        began.append(time.perf_counter())
        try:
            return process.communicate(timeout=seconds)[0]
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            return process.communicate()[0]

    began = []
    wanted, random = run("whole"), np.random.RandomState(1)
    whole = time.perf_counter() - began[0]
    assert wanted
    kills, out = 0, b""
    while not out and kills < 60:
        out = run("killed", random.uniform(0.2, 0.7) * whole)
        kills += not out
    assert kills and out == wanted
    assert (tmp_path / "killed.npy").read_bytes() == (tmp_path / "whole.npy").read_bytes()
    assert not list(folder.iterdir())


def test_prune_removes_snapshots(picture, tmp_path, capsys):
    from fmi import cli

    call, given = CALLS["momentum"]
    store = Store(tmp_path / "store")
    with pytest.raises(Killed):
        call(picture, None, **QUICK, **given, store=store, callback=killed_at(6))
    (file,) = store.snapshots.iterdir()
    with files.locked(store.folder / "locks" / file.stem, wait=False):
        assert cli.main(["results", "prune", "--store", str(store.folder)]) == 0
        assert file.exists()  # another process continues from it
    assert cli.main(["results", "prune", "--store", str(store.folder)]) == 0
    assert not store.snapshots.exists()


def test_a_snapshot_is_an_archive_of_plain_arrays(snapshot):
    """Which other programs can read."""
    with zipfile.ZipFile(snapshot) as archive:
        names = archive.namelist()
        assert archive.testzip() is None
    assert names[0] == f"{snapshots.HEAD}.npy"
    with np.load(io.BytesIO(snapshot.read_bytes()), allow_pickle=False) as arrays:
        head = json.loads(arrays[snapshots.HEAD].tobytes())
        assert arrays["rows/image"].shape == arrays["rows/velocity"].shape == (3, 3, 24, 32)
    assert head["step"] == 5 and len(head["running"]) == 3
    assert all(len(key) == 64 for key in head["running"])
