"""The store: what a result is named by, that it is never lost, mixed up or computed twice."""

import errno
import json
import multiprocessing
import os
import resource
import shutil
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import smooth_picture
from PIL import Image

import fmi.invert
from fmi import cli, descent, inversion, request
from fmi.device.mxnet import mx
from fmi.errors import InputError
from fmi.inversion import Inversion
from fmi.networks import catalogue
from fmi.runs import store as stores
from fmi.runs.store import Store

QUICK = {"long_edge": 32, "steps": 2, "stop": 0, "progress": False, "ctx": "cpu"}


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "results")


@pytest.fixture
def options(small_weights, store):
    return {**QUICK, "weights": small_weights, "store": store}


def same(one, two):
    assert np.array_equal(one.array, two.array)
    assert np.array_equal(np.asarray(one.image), np.asarray(two.image))
    assert np.array_equal(np.asarray(one.undenoised), np.asarray(two.undenoised))
    assert one.describe() == two.describe()
    assert (one.loss, one.seconds) == (two.loss, two.seconds)


def test_a_stored_result_is_the_computed_one(picture, options, store, descents):
    computed = fmi.invert.feature_map(picture, "relu1_2", [0, 2, 3], **options)
    stored = fmi.invert.feature_map(picture, "relu1_2", [3, 0, 1], **options)
    assert descents == [3, 1]
    same(computed[2], stored[0])
    same(computed[0], stored[1])
    assert [one.record["filter"] for one in stored] == [3, 0, 1]
    folder = store.path(stores.key(stored[0].record))
    names = {path.name for path in folder.iterdir()}
    assert names == {"picture.png", "undenoised.png", "array.npy", "record.json", "manifest.json"}
    with Image.open(folder / "undenoised.png") as image:
        assert np.array_equal(np.asarray(image), np.asarray(computed[2].undenoised))
    with Image.open(folder / "picture.png") as image:
        assert np.array_equal(np.asarray(image), np.asarray(computed[2].image))
    assert not np.array_equal(*(np.asarray(x) for x in (stored[0].image, stored[0].undenoised)))


def test_every_function_uses_the_store(picture, style, options, descents):
    calls = {
        "code": lambda **o: fmi.invert.code(picture, "relu1_1", **o),
        "random": lambda **o: fmi.invert.random(picture, "relu1_1", **o)[0],
        "purposeful": lambda **o: fmi.invert.purposeful(picture, style, **o),
        "gatys": lambda **o: fmi.invert.gatys(picture, style, **o),
        "rank_match": lambda **o: fmi.invert.rank_match(picture, style, "relu1_1", **o),
    }
    for name, call in calls.items():
        first = call(**options)
        assert first.record["function"] == name
        same(first, call(**options))
    assert len(descents) == len(calls)
    fmi.invert.gatys(style, picture, **options)
    assert len(descents) == len(calls) + 1


class Record:
    """A record that is complete, and changes of it."""

    def __init__(self, picture, style, small_weights, tmp_path):
        self.arguments = (picture, style, small_weights)
        self.options = {**QUICK, "weights": small_weights}

    def key(self, **changes):
        picture, style, _ = self.arguments
        options = {**self.options, **changes}
        (record,) = request.gatys(picture, style, options).records
        return stores.key(record)


SHAPING = [
    {"long_edge": 33},
    {"steps": 3},
    {"stop": 0.1},
    {"learning_rate": 0.2},
    {"alpha": 11.0},
    {"style_layers": ["relu1_1"]},
    {"content_layer": "relu2_1"},
    {"settings": "paper"},
    {"seed": 1},
    {"pool": "max"},
    {"pool_rounding": "down"},
    {"init": "content"},
    {"init": np.zeros((24, 32, 3), np.float32)},
    {"denoise": 0.1},
]


def test_the_key_depends_on_all_that_shapes_a_result(picture, style, small_weights, tmp_path):
    base = Record(picture, style, small_weights, tmp_path)
    keys = [base.key(**change) for change in ({}, *SHAPING)]
    keys.append(Record(style, picture, small_weights, tmp_path).key())
    keys.append(Record(picture, 255 - style, small_weights, tmp_path).key())
    assert len(set(keys)) == len(keys)
    assert keys[0] == base.key() == base.key(batch=3) == base.key(callback=print)
    (first,) = request.code(picture, "relu1_1", None, base.options).records
    others = [request.code(picture, "relu1_2", None, base.options).records[0]]
    others += request.random(picture, "relu1_1", 2, 0, None, base.options).records
    others += request.feature_map(picture, "relu1_1", [0, 1], False, None, base.options).records
    others += request.feature_map(picture, "relu1_1", [1, 0], True, None, base.options).records
    assert len({stores.key(record) for record in (first, *others)}) == 8


def counted(first):
    """A network whose relus have the numbers `first` and the next one."""
    mx.random.seed(0)
    network = mx.gluon.nn.HybridSequential()
    for number in (first, first + 1):
        network.add(mx.gluon.nn.Conv2D(4, 3, padding=1, in_channels=4 if len(network) else 3))
        network.add(mx.gluon.nn.Activation("relu", prefix=f"relu{number}_"))
    network.initialize(mx.init.Xavier())
    return catalogue.load(network, input="caffe")


def test_another_layer_of_the_same_name_has_another_key(picture, store):
    one, two = counted(0), counted(1)
    assert one.describe()["sha256"] == two.describe()["sha256"]
    found = [
        fmi.invert.code(picture, "relu1", network=network, store=store, **QUICK)
        for network in (one, two, one)
    ]
    wanted = fmi.invert.code(picture, "relu1", network=two, **QUICK)
    assert np.array_equal(found[1].array, wanted.array)
    assert not np.array_equal(found[1].array, found[0].array)
    same(found[0], found[2])


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("versions", "mxnet"), "1.9.2"),
        (("versions", "numpy"), "1.0"),
        (("versions", "scikit-image"), "1.0"),
        (("versions", "scipy"), "1.0"),
        (("versions", "pillow"), "1.0"),
        (("versions", "fmi_source"), "0"),
        (("precision",), "bfloat16"),
        (("device",), "gpu(0)"),
        (("device_name",), "NVIDIA A10"),
        (("network", "sha256"), "0"),
        (("network", "mean"), [0, 0, 0]),
        (("pictures", "content", "sha256"), "0"),
        (("pictures", "style", "sha256"), "0"),
        (("settings", "content", "factor"), 3.0),
        (("function",), "purposeful"),
        (("layers",), ["relu1_1"]),
    ],
)
def test_changes_of_a_record_change_its_key(picture, style, small_weights, place, value):
    options = {**QUICK, "weights": small_weights}
    (record,) = request.gatys(picture, style, options).records
    before = stores.key(record)
    changed = json.loads(json.dumps(record))
    entry = changed
    for name in place[:-1]:
        entry = entry[name]
    assert entry[place[-1]] != value
    entry[place[-1]] = value
    assert stores.key(changed) != before


@pytest.mark.parametrize(
    "place",
    [
        ("versions", "python"),
        ("versions", "fmi"),
        ("pictures", "content", "name"),
        ("network", "name"),
        ("settings", "preset"),
        ("settings", "batch"),
    ],
)
def test_names_do_not_shape_a_result(picture, style, small_weights, place):
    options = {**QUICK, "weights": small_weights}
    (record,) = request.gatys(picture, style, options).records
    before = stores.key(record)
    entry = record
    for name in place[:-1]:
        entry = entry[name]
    assert place[-1] in entry
    entry[place[-1]] = "another"
    assert stores.key(record) == before


def test_the_source_digest_covers_what_computes_pictures_and_nothing_else(tmp_path):
    package = tmp_path / "fmi"
    shutil.copytree(Path(fmi.__file__).parent, package)
    before = inversion.source_digest(package)
    assert before == inversion.versions()["fmi_source"]
    computing = ("codes", "losses", "descent", "pictures", "call", "request", "settings")
    others = [f"networks/{name}" for name in ("passes", "vgg", "gluon", "base", "canonical")]
    for name in (*computing, *others, "device/mxnet", "sources/formats", "inversion"):
        file = package / f"{name}.py"
        text = file.read_text()
        file.write_text(text + "\n")
        assert inversion.source_digest(package) != before, name
        file.write_text(text)
    for name in ("sheets", "doctor", "cli/draw", "runs/figures", "runs/store", "evidence/panels"):
        file = package / f"{name}.py"
        file.write_text(file.read_text() + "\n")
    assert inversion.source_digest(package) == before


def test_an_array_that_a_full_disk_cuts_short(picture, options, store):
    found = fmi.invert.code(picture, "relu1_1", **{**options, "store": None})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (found.array.nbytes // 2, hard))
    try:
        with pytest.raises(InputError, match=os.strerror(errno.EFBIG)):
            store.add(found)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not [path for path in store.folder.rglob("*") if path.is_file()]
    assert store.intact(store.add(found))


def damage_truncate(folder):
    file = folder / "picture.png"
    file.write_bytes(file.read_bytes()[:50])


def damage_flip(folder):
    file = folder / "array.npy"
    data = bytearray(file.read_bytes())
    data[-7] ^= 1
    file.write_bytes(bytes(data))


def damage_remove(folder):
    (folder / "undenoised.png").unlink()


def damage_record(folder):
    file = folder / "record.json"
    file.write_text(file.read_text().replace('"steps": 2', '"steps": 3', 1))


def damage_manifest(folder):
    (folder / "manifest.json").write_text("[" * 100000)


def damage_seconds(folder):
    file = folder / "manifest.json"
    manifest = json.loads(file.read_text())
    file.write_text(json.dumps({**manifest, "seconds": "long"}))


def damage_file(folder):
    shutil.rmtree(folder)
    folder.write_text("")


def damage_pipe(folder):
    (folder / "array.npy").unlink()
    os.mkfifo(folder / "array.npy")


def damage_device(folder):
    (folder / "manifest.json").unlink()
    (folder / "manifest.json").symlink_to("/dev/zero")


def damage_link(folder):
    shutil.rmtree(folder)
    folder.symlink_to("nowhere")


DAMAGES = [function for name, function in list(globals().items()) if name[:7] == "damage_"]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_result_is_computed_again(picture, options, store, descents, caplog, damage):
    first = fmi.invert.code(picture, "relu1_1", **options)
    name = stores.key(first.record)
    damage(store.path(name))
    assert not store.intact(name)
    assert store.find(name) is None
    again = fmi.invert.code(picture, "relu1_1", **options)
    assert len(descents) == 2
    assert np.array_equal(first.array, again.array)
    assert "damaged" in caplog.text
    assert store.intact(name)
    assert [path.name for path in store.path(name).parent.iterdir()] == [name]


def test_another_results_files_under_a_key_are_noticed(picture, options, store, descents):
    one, two = fmi.invert.feature_map(picture, "relu1_1", [0, 1], **options)
    first, second = (store.path(stores.key(each.record)) for each in (one, two))
    for file in second.iterdir():
        shutil.copy(file, first / file.name)
    again = fmi.invert.feature_map(picture, "relu1_1", [0, 1], **options)
    assert descents == [2, 1]
    assert np.array_equal(again[0].array, one.array)


def test_a_chain_goes_on_from_the_last_filter_that_was_found(picture, options, store, descents):
    whole = fmi.invert.feature_map(picture, "relu1_2", [0, 1, 2], chain=True, **options)
    for one in whole[1:]:
        store.remove(stores.key(one.record))
    descents.clear()
    again = fmi.invert.feature_map(picture, "relu1_2", [0, 1, 2], chain=True, **options)
    assert descents == [1, 1]
    for one, two in zip(whole, again):
        assert np.array_equal(one.array, two.array)
    unstored = {**options, "store": None}
    alone = fmi.invert.feature_map(picture, "relu1_2", [0, 1, 2], chain=True, **unstored)
    assert np.array_equal(alone[2].array, again[2].array)


def interrupted(monkeypatch, step):
    """Interrupt the descent at a step."""
    show, steps = descent._show, []

    def interrupt(*arguments):
        steps.append(None)
        if len(steps) == step:
            raise KeyboardInterrupt
        show(*arguments)

    monkeypatch.setattr(descent, "_show", interrupt)


def second_stops_early(monkeypatch):
    """Let the second picture of a batch stop at the second step."""
    stop = descent._stop

    def early(done, batch, step, settings, began):
        if step == 2:
            change = [0 if row == 1 else value for row, value in enumerate(batch.change)]
            batch, settings = replace(batch, change=change), replace(settings, stop=1e-9)
        return stop(done, batch, step, settings, began)

    monkeypatch.setattr(descent, "_stop", early)


def test_an_interrupted_batch_keeps_the_pictures_that_have_stopped(
    picture, options, store, monkeypatch
):
    """One picture of three stops at the second step, Ctrl-C comes at the fifth."""
    second_stops_early(monkeypatch)
    interrupted(monkeypatch, 5)
    found = fmi.invert.feature_map(picture, "relu1_1", [0, 1, 2], **{**options, "steps": 9})
    assert [one.stopped for one in found] == ["interrupted", "change", "interrupted"]
    assert [store.intact(stores.key(one.record)) for one in found] == [False, True, False]


def test_the_last_picture_of_a_batch_may_have_stopped_before_ctrl_c(picture, options, monkeypatch):
    """The next batch is not begun then."""
    second_stops_early(monkeypatch)
    interrupted(monkeypatch, 5)
    many = {**options, "steps": 9, "batch": 2, "store": None}
    found = fmi.invert.feature_map(picture, "relu1_1", [0, 1, 2, 3], **many)
    assert [one.stopped for one in found] == ["interrupted", "change"]


def test_targets_are_made_for_one_batch_at_a_time(picture, options, monkeypatch):
    most = []
    isolate = fmi.codes.isolate

    def counted(code, filters):
        most.append(len(filters))
        return isolate(code, filters)

    monkeypatch.setattr(fmi.codes, "isolate", counted)
    fmi.invert.feature_map(picture, "relu1_1", [0, 1, 2, 3], **{**options, "batch": 2})
    assert most == [2, 2]


def test_unfinished_results_are_not_stored(picture, options, store):
    found = fmi.invert.code(picture, "relu1_1", **options)
    for stopped in ("interrupted", "diverged"):
        with pytest.raises(InputError, match=stopped):
            store.add(replace(found, stopped=stopped, record={**found.record, "seed": 5}))
    assert len(store.names()) == 1


def made(record, value=0.0):
    array = np.full((4, 5, 3), value, np.float32)
    return Inversion(array, [1.0], 0.1, "steps", dict(record), 0.5)


def records(count):
    common = {
        "function": "code",
        "layers": ["relu1_1"],
        "settings": {"denoise": 0, "preset": "code"},
        "pictures": {"content": {"name": "cat", "sha256": "1"}},
        "network": {"name": "net", "sha256": "2"},
        "seed": 0,
        "precision": "float32",
        "versions": inversion.versions(),
    }
    return [{**common, "filter": n} for n in range(count)]


def work(folder, log, delay):
    """Obtain six results, and note which ones this process has computed."""

    def compute(wanted, keep):
        found = []
        for index in wanted:
            time.sleep(delay)
            with Path(log).open("a") as stream:
                stream.write(f"{index}\n")
            found.append(made(records(6)[index], index))
            keep(index, found[-1])
        return found

    got = Store(folder).obtain(records(6), compute)
    assert [one.array[0, 0, 0] for one in got] == list(range(6))


@pytest.mark.parametrize("kind", ["processes", "threads"])
def test_no_result_is_computed_twice(tmp_path, kind):
    log, folder = tmp_path / "log", tmp_path / "store"
    context = multiprocessing.get_context("fork")
    make = context.Process if kind == "processes" else threading.Thread
    workers = [make(target=work, args=(folder, log, 0.02)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    if kind == "processes":
        assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert sorted(map(int, log.read_text().split())) == list(range(6))
    assert len(Store(folder).names()) == 6


def test_nothing_is_begun_after_an_interruption(store):
    """The first batch was interrupted, so that the computation returns no more."""
    calls = []

    def compute(wanted, keep):
        calls.append(list(wanted))
        first = replace(made(records(6)[wanted[0]]), stopped="interrupted")
        return [first]

    (found,) = store.obtain(records(6), compute)
    assert found.stopped == "interrupted" and calls == [list(range(6))]
    assert store.names() == []


def test_a_result_that_was_not_passed_on_when_it_was_found_is_stored(store):
    """Ctrl-C came in between."""
    (found,) = store.obtain(records(1), lambda wanted, keep: [made(records(1)[0])])
    assert store.intact(stores.key(found.record))


def test_waiting_is_logged_once_and_only_then(store, caplog):
    caplog.set_level("INFO")
    held = store.folder / "locks" / stores.key(records(1)[0])

    def compute(wanted, keep):
        return [made(records(1)[index]) for index in wanted]

    with fmi.files.locked(held, wait=False) as mine:
        assert mine
        worker = threading.Thread(target=store.obtain, args=(records(1), compute))
        worker.start()
        worker.join(0.5)
        assert worker.is_alive()
        assert [r.getMessage() for r in caplog.records] == [
            "waiting for 1 pictures of another process"
        ]
    worker.join(60)
    assert len(caplog.records) == 1 and len(store.names()) == 1
    store.remove(store.names()[0])
    store.obtain(records(1), compute)
    assert len(caplog.records) == 1


def hang(folder, ready):
    def compute(wanted, keep):
        keep(wanted[0], made(records(6)[wanted[0]], wanted[0]))
        ready.set()
        time.sleep(600)

    Store(folder).obtain(records(6), compute)


def test_the_results_of_a_killed_process_are_kept_and_the_rest_is_computed(tmp_path):
    folder, log = tmp_path / "store", tmp_path / "log"
    context = multiprocessing.get_context("fork")
    ready = context.Event()
    process = context.Process(target=hang, args=(folder, ready))
    process.start()
    assert ready.wait(60)
    waiting = context.Process(target=work, args=(folder, log, 0))
    waiting.start()
    waiting.join(1)
    assert waiting.is_alive() and not log.exists()  # it waits for the other one
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    waiting.join(60)
    assert waiting.exitcode == 0
    assert sorted(map(int, log.read_text().split())) == [1, 2, 3, 4, 5]


def test_copies_have_readable_names_and_are_mended(picture, options, store, tmp_path):
    found = fmi.invert.code(picture, "relu1_1", **options)
    stem = tmp_path / "copies/a.b"
    store.export(found, stem)
    folder = store.path(stores.key(found.record))
    names = {".png": "picture.png", "_undenoised.png": "undenoised.png", ".json": "record.json"}
    for suffix, name in names.items():
        copy = stem.with_name(f"a.b{suffix}")
        assert copy.read_bytes() == (folder / name).read_bytes()
        copy.write_bytes(b"edited")
        assert store.intact(folder.name)
    store.export(found, stem)
    assert stem.with_name("a.b.png").read_bytes() == (folder / "picture.png").read_bytes()
    assert len(list(stem.parent.iterdir())) == 3


def test_a_copy_whose_name_is_too_long_is_refused(picture, options, store, tmp_path):
    found = fmi.invert.code(picture, "relu1_1", **options)
    with pytest.raises(InputError, match="a{40}.png cannot be used"):
        store.export(found, tmp_path / ("a" * 300))


def test_the_store_that_is_used(tmp_path, monkeypatch):
    assert stores.open_store().folder == Path(os.environ["FMI_STORE"])
    assert stores.open_store(tmp_path).folder == tmp_path
    monkeypatch.delenv("FMI_STORE")
    assert stores.open_store().folder == Path("results/store")


def run(*words):
    return cli.main(["results", *words])


def test_results_are_listed_and_pruned(picture, options, store, capsys):
    one, two, three = fmi.invert.feature_map(picture, "relu1_1", [0, 1, 2], **options)
    names = [stores.key(each.record) for each in (one, two, three)]
    where = ("--store", str(store.folder))
    assert run("list", *where) == 0
    text = capsys.readouterr().out
    assert all(name[:12] in text for name in names)
    assert "feature_map relu1_1:2" in text and "3 results" in text
    assert run("list", "--json", *where) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {row["key"] for row in rows} == set(names)
    assert {row["record"]["filter"] for row in rows} == {0, 1, 2}

    (store.path(names[0]) / "array.npy").write_bytes(b"")
    assert run("prune", "--dry-run", *where) == 0
    assert "1 of 3 results would be removed" in capsys.readouterr().out
    assert len(store.names()) == 3
    assert run("prune", *where) == 0
    assert names[0][:12] in capsys.readouterr().out
    assert sorted(store.names()) == sorted(names[1:])

    old = replace(three, record={**three.record, "versions": {"numpy": "1.0"}})
    old_name = store.add(old)
    assert run("prune", "--outdated", *where) == 0
    assert sorted(store.names()) == sorted(names[1:]) and old_name not in store.names()
    assert run("prune", "--older-than", "1", *where) == 0
    assert len(store.names()) == 2
    assert run("prune", "--older-than", "0", *where) == 0
    assert store.names() == []
    assert run("prune", "--older-than", "nan", *where) == 2
    assert run("list", "--store", str(store.folder / "absent")) == 0


@pytest.mark.parametrize(
    ("record", "place"),
    [
        ({"layers": ["relu1_1"]}, "relu1_1"),
        ({"layers": ["relu1_1", "relu2_1"], "filter": 3}, "relu1_1,relu2_1:3"),
        ({"layers": ["relu1_1", "relu2_1", "relu3_1"], "draw": 0}, "relu1_1,...,relu3_1 draw 0"),
    ],
)
def test_the_place_of_a_result(record, place):
    assert stores.Entry("abc", record, None, 1.0, 5).place == place


def test_remains_of_killed_processes_are_pruned(picture, options, store, capsys):
    found = fmi.invert.code(picture, "relu1_1", **options)
    parent = store.path(stores.key(found.record)).parent
    (parent / ".abc.part").mkdir()
    (parent / ".abc.part/picture.png").write_bytes(b"half")
    fmi.files.sweep.cache_clear()
    assert run("prune", "--store", str(store.folder)) == 0
    assert len(list(parent.iterdir())) == 1
    assert "0 of 1 results removed" in capsys.readouterr().out


def test_a_store_that_cannot_be_written(picture, options, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        fmi.invert.code(picture, "relu1_1", **{**options, "store": Store(tmp_path / "file/store")})
    for wrong in ("results", 3):
        with pytest.raises(InputError, match="store="):
            fmi.invert.code(picture, "relu1_1", **{**options, "store": wrong})


def test_files_of_others_are_neither_results_nor_damaged(picture, options, tmp_path, capsys):
    kept = Store(tmp_path / "s")
    fmi.invert.code(picture, "relu1_1", **{**options, "store": kept})
    (name,) = kept.names()
    mine = [kept.folder / "05/0512_beach.jpg", kept.path(name).parent / "Thumbs.db"]
    for path in mine:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"mine")
    assert cli.main(["results", "prune", "--store", str(kept.folder)]) == 0
    assert "0 of 1 results removed" in capsys.readouterr().out
    assert all(path.is_file() for path in mine) and kept.names() == [name]


def test_a_result_that_appears_while_others_are_checked_is_kept(
    picture, options, tmp_path, monkeypatch
):
    kept, seen = Store(tmp_path / "s"), []
    fmi.invert.code(picture, "relu1_1", **{**options, "store": kept})
    contents = Store._contents

    def slow(self, name):
        found = contents(self, name)
        if not seen:
            seen.append(name)
            fmi.invert.code(picture, "relu1_2", **{**options, "store": Store(self.folder)})
        return found

    monkeypatch.setattr(Store, "_contents", slow)
    assert cli.main(["results", "prune", "--store", str(kept.folder)]) == 0
    assert len(kept.names()) == 2


def test_a_stored_result_has_the_names_that_are_asked_for(options, tmp_path):
    paths = [tmp_path / "cat.png", tmp_path / "dog.png"]
    for path in paths:
        Image.fromarray(smooth_picture(40, 40)).save(path)
    given = {**options, "store": Store(tmp_path / "s"), "long_edge": 32}
    one, other = (fmi.invert.purposeful(path, [path, paths[0]], **given) for path in paths)
    assert len(given["store"].names()) == 1
    assert one.array.tobytes() == other.array.tobytes()
    for found, name in ((one, "cat"), (other, "dog")):
        assert found.record["pictures"]["content"]["name"] == name
        assert found.record["pictures"]["style"]["name"] == name
        assert found.record["pictures"]["style_2"]["name"] == "cat"
    assert one.record["versions"] == other.record["versions"]
