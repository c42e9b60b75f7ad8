"""precision="auto": what it chooses, why, and how the result of the benchmark is kept."""

import json
import multiprocessing
import os
import subprocess
import sys
import time
import types
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import fmi.invert
from fmi import doctor, files, request
from fmi.device import benchmark, environment, precision
from fmi.device.benchmark import Times
from fmi.device.mxnet import mx
from fmi.device.precision import Machine, Precision
from fmi.errors import InputError
from fmi.runs import store as stores

CPU = mx.cpu()
GPU = types.SimpleNamespace(device_type="gpu")  # nothing is computed on it
AVX512 = {"avx512f", "avx512bw"}
NATIVE = AVX512 | {"avx512_bf16"}
FAST, SLOW = Times(0.05, 0.026), Times(0.05, 0.13)
QUICK = {"long_edge": 48, "steps": 2, "stop": 0, "progress": False}


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    """An empty cache, and a process that has not chosen yet."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    precision.automatic.cache_clear()
    yield tmp_path / "cache/fmi"
    precision.automatic.cache_clear()


@pytest.fixture
def pretend(monkeypatch):
    """Set what the CPU has, and what a benchmark would give; return the list of benchmarks."""
    made = []

    def measure(times):
        made.append(times)
        if isinstance(times, Exception):
            raise times
        return times

    def set_up(flags=NATIVE, times=FAST, amx=False):
        monkeypatch.setattr(environment, "cpu_flags", lambda: frozenset(flags))
        monkeypatch.setattr(precision, "AMX", amx)
        monkeypatch.setattr(benchmark, "measure", lambda: measure(times))
        precision.automatic.cache_clear()
        return made

    return set_up


def kept(cache):
    return sorted(cache.glob("*")) if cache.exists() else []


# --- the choice ---


@pytest.mark.parametrize(
    ("flags", "amx", "times", "chosen"),
    [
        (NATIVE, False, FAST, "bfloat16"),
        (NATIVE, False, SLOW, "float32"),
        (NATIVE, False, Times(1, 0.99), "float32"),  # by chance
        (AVX512 | {"amx_bf16"}, True, FAST, "bfloat16"),
        (AVX512 | {"amx_bf16"}, True, SLOW, "float32"),
        (NATIVE | {"amx_bf16"}, False, FAST, "bfloat16"),  # FMI_AMX=0: what is left
    ],
)
def test_instructions_for_bfloat16_are_tried(pretend, flags, amx, times, chosen, caplog):
    caplog.set_level("INFO")
    made = pretend(flags, times, amx)
    found = precision.choose("auto", CPU)
    assert made == [times]
    assert found.name == chosen
    assert f"{times.bfloat16 / times.float32:.2f}" in found.reason
    (line,) = [record.getMessage() for record in caplog.records if "auto" in record.getMessage()]
    assert found.name in line and found.reason in line
    precision.choose("auto", CPU)
    assert made == [times]


@pytest.mark.parametrize(
    "flags",
    [
        set(),
        {"avx2"},
        AVX512,  # MXNet emulates bfloat16
        AVX512 | {"amx_bf16"},  # FMI_AMX=0, and nothing is left
        {"avx512_bf16"},  # a virtual machine that hides the rest
    ],
)
def test_other_cpus_are_not_tried(pretend, flags):
    made = pretend(flags)
    found = precision.choose("auto", CPU)
    assert (found.name, made) == ("float32", [])
    assert "no instructions for bfloat16" in found.reason


def test_a_benchmark_that_fails_is_told_and_not_kept(pretend, cache):
    pretend(times=mx.MXNetError("could not create a primitive\nstack trace"))
    found = precision.choose("auto", CPU)
    assert found.name == "float32"
    assert "could not create a primitive" in found.reason and "\n" not in found.reason
    assert not kept(cache)


def test_gpus_and_explicit_precisions_need_no_benchmark(pretend):
    made = pretend(AVX512)
    assert precision.choose("auto", GPU).name == "float32"
    assert precision.choose("float16", GPU) == Precision("float16")
    for name in ("float32", "bfloat16"):
        assert precision.choose(name, CPU) == Precision(name)
    before = Precision("bfloat16", "for some reason")
    assert precision.choose(before, CPU) is before
    assert not made


@pytest.mark.parametrize(
    ("flags", "given", "ctx", "words"),
    [
        ({"avx2"}, "bfloat16", CPU, "needs a CPU with AVX-512"),
        (NATIVE, "bfloat16", GPU, "needs a CPU with AVX-512"),
        (NATIVE, "float16", CPU, "needs a GPU"),
        (NATIVE, Precision("float16", "chosen elsewhere"), CPU, "needs a GPU"),
        (NATIVE, "bfloat", CPU, "did you mean bfloat16"),
        (NATIVE, [], CPU, "unknown precision"),
    ],
)
def test_impossible_precisions(pretend, flags, given, ctx, words):
    pretend(flags)
    with pytest.raises(InputError, match=words):
        precision.choose(given, ctx)


# --- the cache ---


def test_the_next_process_finds_the_result(pretend, cache):
    pretend(times=FAST)
    first = precision.choose("auto", CPU)
    (path,) = kept(cache)  # no lock is left
    assert json.loads(path.read_text())["times"] == asdict(FAST)
    made = pretend(times=SLOW)
    assert precision.choose("auto", CPU) == first
    assert made == [FAST]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("cpu", "another model"),
        ("flags", "avx512bw"),
        ("amx", True),
        ("threads", "77"),
        ("variables", {"DNNL_MAX_CPU_ISA": "AVX512_CORE"}),
        ("mxnet", "mxnet 1.9.2"),
        ("benchmark", "0"),
    ],
)
def test_another_machine_or_version_is_tried_again(pretend, cache, monkeypatch, name, value):
    made = pretend(times=FAST)
    assert precision.automatic().name == "bfloat16"
    here = Machine.here()
    assert getattr(here, name) != value
    monkeypatch.setattr(Machine, "here", lambda: replace(here, **{name: value}))
    pretend(times=SLOW)
    assert precision.automatic().name == "float32"
    assert made == [FAST, SLOW]
    assert len(kept(cache)) == 2  # each has its own


def test_what_the_machine_is(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.setenv("DNNL_MAX_CPU_ISA", "AVX2")
    monkeypatch.setenv("HOME_OF_MINE", "x")
    here = Machine.here()
    assert here.threads == "3"
    assert here.variables["DNNL_MAX_CPU_ISA"] == "AVX2" and "HOME_OF_MINE" not in here.variables
    assert set(here.flags.split()) == environment.cpu_flags()
    source = Path(benchmark.__file__)
    assert here.benchmark == files.file_digest(source, "sha256")


DAMAGED = {
    "empty": b"",
    "cut": b'{"machine": {"cpu": "x',
    "binary": bytes(range(256)),
    "deep": b"[" * 100_000,
    "another kind": b"[1, 2]",
    "nothing": b"null",
}
TIMES = [
    '{"float32": NaN, "bfloat16": 1}',
    '{"float32": 1, "bfloat16": Infinity}',
    '{"float32": 1, "bfloat16": -1}',
    '{"float32": 0, "bfloat16": 1}',
    '{"float32": 1}',
    '{"float32": "soon", "bfloat16": 1}',
    '{"float32": 1, "bfloat16": 1' + "0" * 5000 + "}",
]


def check_it_is_replaced(pretend, path, caplog):
    caplog.set_level("INFO")
    made = pretend(times=FAST)
    made.clear()
    assert precision.automatic().name == "bfloat16"
    assert made == [FAST]
    assert any(str(path) in message for message in caplog.messages)
    precision.automatic.cache_clear()
    assert precision.automatic().name == "bfloat16"
    assert made == [FAST]  # it is intact now


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_file_is_replaced(pretend, cache, content, caplog):
    pretend()
    cache.mkdir(parents=True)
    path = cache / Machine.here().file
    path.write_bytes(content)
    check_it_is_replaced(pretend, path, caplog)


@pytest.mark.parametrize("times", TIMES)
def test_impossible_times_are_replaced(pretend, cache, times, caplog):
    pretend(times=SLOW)
    precision.automatic()
    (path,) = kept(cache)
    whole = json.loads(path.read_text())
    path.write_text(json.dumps({**whole, "times": "HERE"}).replace('"HERE"', times))
    check_it_is_replaced(pretend, path, caplog)


def test_a_file_is_not_read_without_end(pretend, cache, caplog):
    pretend(times=SLOW)
    precision.automatic()
    (path,) = kept(cache)
    path.write_text(" " * precision.LARGEST + path.read_text())
    check_it_is_replaced(pretend, path, caplog)


def test_a_file_of_another_machine_is_replaced(pretend, cache, caplog):
    pretend(times=SLOW)
    precision.automatic()
    (path,) = kept(cache)
    path.write_text(path.read_text().replace('"amx": false', '"amx": true'))
    check_it_is_replaced(pretend, path, caplog)


@given(content=st.binary(max_size=60))
def test_no_bytes_raise(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("bytes") / "file"
    path.write_bytes(content)
    assert precision._read(path, Machine.here()) is None


@pytest.mark.parametrize("kind", ["folder", "pipe", "loop"])
def test_what_is_no_file_is_left_alone(pretend, cache, kind):
    made = pretend(times=FAST)
    cache.mkdir(parents=True)
    path = cache / Machine.here().file
    if kind == "folder":
        (path / "inside").mkdir(parents=True)
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to(path)
    assert precision.automatic().name == "bfloat16"
    assert made == [FAST]
    assert kind != "folder" or (path / "inside").is_dir()


@pytest.mark.parametrize("home", ["a file", "none"])
def test_without_a_cache_the_benchmark_is_run_in_each_process(pretend, monkeypatch, home, caplog):
    caplog.set_level("INFO")
    if home == "none":
        monkeypatch.setattr(files, "user_cache", lambda: None)
    else:
        monkeypatch.setenv("XDG_CACHE_HOME", str(Path(__file__)))
    made = pretend(times=FAST)
    for count in (1, 2):
        precision.automatic.cache_clear()
        caplog.clear()
        assert precision.automatic().name == "bfloat16"
        assert len(made) == count
        assert any("benchmark" in message for message in caplog.messages)


# --- several processes ---


def choose_and_note(log):
    def measure():
        with log.open("a") as stream:
            stream.write(f"{os.getpid()}\n")
        time.sleep(0.3)
        return FAST

    benchmark.measure = measure
    assert precision.automatic().name == "bfloat16"


def test_processes_wait_for_one_benchmark(pretend, tmp_path):
    pretend()
    context = multiprocessing.get_context("fork")
    log = tmp_path / "log"
    workers = [context.Process(target=choose_and_note, args=(log,)) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0] * 4
    assert len(log.read_text().split()) == 1


def test_a_process_that_hangs_is_not_waited_for(pretend, cache, monkeypatch):
    made = pretend(times=FAST)
    monkeypatch.setattr(precision, "PATIENCE", 0.2)
    lock = (cache / Machine.here().file).with_suffix(".lock")
    with files.locked(lock, wait=False) as held:
        assert held
        assert precision.automatic().name == "bfloat16"
    assert made == [FAST]


# --- the benchmark ---


def test_turns_alternate_and_end(monkeypatch):
    """With a clock that only the convolutions move: float32 takes 3 and bfloat16 2 of its units."""
    now, turns = [0.0], []

    class Stack:
        def __init__(self, shape, dtype):
            self.name = "float32" if "float32" in str(dtype) else "bfloat16"

        def compute(self):
            turns.append(self.name)
            now[0] += {"float32": 3, "bfloat16": 2}[self.name]
            return types.SimpleNamespace(wait_to_read=lambda: None)

    monkeypatch.setattr(benchmark, "_Stack", Stack)
    monkeypatch.setattr(benchmark, "SHAPES", [(1, 1, 1)])
    monkeypatch.setattr(benchmark, "time", types.SimpleNamespace(perf_counter=lambda: now[0]))
    for duration, count in [(0, benchmark.FEWEST), (50, 10)]:
        turns.clear()
        monkeypatch.setattr(benchmark, "DURATION", duration)
        assert benchmark.measure() == Times(3, 2)
        assert turns == ["float32", "bfloat16"] * (1 + count)  # the first does not count


def test_a_real_benchmark():
    if "avx512bw" not in environment.cpu_flags():
        pytest.skip("this CPU has no AVX-512")
    mx.random.seed(7)
    wanted = mx.nd.random.uniform(shape=4).asnumpy().tolist()  # the state is the user's
    mx.random.seed(7)
    began = time.perf_counter()
    found = benchmark.measure()
    assert time.perf_counter() - began < 5  # about 1.2 s; other processes may be busy
    assert mx.nd.random.uniform(shape=4).asnumpy().tolist() == wanted
    assert 0.1 < found.ratio < 10


def test_importing_fmi_runs_no_benchmark(cache):
    code = "import fmi.invert, sys; print(fmi.device.precision.automatic.cache_info().currsize)"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "0"
    assert not kept(cache)


# --- where it is told ---


def test_the_record_tells_why_and_the_key_does_not_depend_on_it(
    pretend, picture, small_weights, tmp_path, caplog
):
    if "avx512bw" not in environment.cpu_flags():
        pytest.skip("this CPU has no AVX-512")
    pretend(times=FAST)
    store = stores.Store(tmp_path / "store")
    options = {**QUICK, "weights": small_weights, "store": store}
    auto = fmi.invert.code(picture, "relu1_2", precision="auto", **options)
    assert auto.record["precision"] == "bfloat16"
    assert "0.52" in auto.record["precision_reason"]
    (named,) = request.code(picture, "relu1_2", None, {**options, "precision": "bfloat16"}).records
    assert "precision_reason" not in named
    assert stores.key(named) == stores.key(auto.record)
    other = {**auto.record, "precision_reason": "another"}
    assert stores.key(other) == stores.key(auto.record)
    again = fmi.invert.code(picture, "relu1_2", precision="bfloat16", **options)
    assert again.record == auto.record and len(store.names()) == 1
    auto.save(tmp_path / "x.png")
    assert "0.52" in json.loads((tmp_path / "x.json").read_text())["precision_reason"]


def test_panels_of_a_figure_tell_why(pretend, small_weights, picture_folder, tmp_path):
    if "avx512bw" not in environment.cpu_flags():
        pytest.skip("this CPU has no AVX-512")
    from fmi.runs import figures
    from fmi.runs.experiment import read

    pretend(times=FAST)
    words = [f"WEIGHTS={small_weights}", f"PICTURES={picture_folder}/golden_gate.png"]
    words += ["LAYERS=relu1_2", "FILTERS=0", "LONG_EDGE=48", "STEPS=2", "STOP=0"]
    figures.draw(
        read(
            Path(__file__).parent.parent / "experiments/fig3.yaml",
            [*words, "PRECISION=auto", f"RESULTS={tmp_path}"],
        )
    )
    (record,) = (json.loads(path.read_text()) for path in tmp_path.rglob("relu1_2_filter0.json"))
    assert record["precision"] == "bfloat16" and "0.52" in record["precision_reason"]


def test_a_network_with_one_precision_is_not_tried(pretend, picture):
    made = pretend()
    net = mx.gluon.nn.HybridSequential()
    net.add(mx.gluon.nn.Conv2D(4, 3, activation="relu"))
    net.initialize()
    net.hybridize()
    found = fmi.invert.code(picture, "relu", network=net, precision="auto", **QUICK)
    assert found.record["precision"] == "float32" and not made
    assert "only precision" in found.record["precision_reason"]


@pytest.mark.parametrize("amx", ["0", "1"])
def test_the_doctor(cache, amx):
    command = [sys.executable, "-m", "fmi", "doctor", "--json"]
    environ = {**os.environ, "FMI_CTX": "cpu", "FMI_AMX": amx}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environ)
    report = json.loads(done.stdout)
    auto = report["precision_auto"]
    assert auto["name"] in ("float32", "bfloat16")
    assert auto["reason"]
    if "float32's time" in auto["reason"]:
        (path,) = kept(cache)
        times = json.loads(path.read_text())["times"]
        ratio = times["bfloat16"] / times["float32"]
        assert f"{ratio:.2f}" in auto["reason"]
        assert (auto["name"] == "bfloat16") == (ratio < precision.FASTER)
    (line,) = (x for x in doctor.text(report).splitlines() if x.startswith("auto "))
    assert auto["name"] in line and auto["reason"] in line
