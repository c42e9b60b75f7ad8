"""The benchmark: its arithmetic, its tables, its processes, and a quick run; no times."""

import io
import json
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from conftest import FILTERS
from PIL import Image

from experiments import bench, contenders
from fmi import descent, losses, settings
from fmi.device.mxnet import mx
from fmi.errors import InputError
from fmi.networks import vgg
from fmi.networks.topology import VGG19

HERE = Path(__file__).parent.parent
try:
    import importlib.metadata

    importlib.metadata.version("torch")
    TORCH = True
except importlib.metadata.PackageNotFoundError:
    TORCH = False


def run(*arguments):
    command = [sys.executable, "-m", "experiments.bench", *map(str, arguments)]
    return subprocess.run(command, cwd=HERE, capture_output=True, text=True, check=False)


# --- arithmetic ---


def test_flops_by_hand():
    work = bench.job("", "relu2_1", 64, (2, 3, 4, 4, 4), batch=5)
    assert (work.height, work.width) == (47, 64)
    first = 9 * 3 * 2 * 47 * 64
    second = 9 * 2 * 2 * 47 * 64
    third = 9 * 2 * 3 * 23 * 32  # after pooling, the size rounded down
    assert bench.flops(work) == 5 * 2 * 2 * (first + second + third)


def test_sizes_are_those_of_the_2016_code():
    assert bench.size(512) == (383, 512)


def test_exponent_of_a_power():
    amounts = [1e3, 2e3, 5e3, 1e4]
    assert bench.exponent(amounts, [3 * a**1.3 for a in amounts]) == pytest.approx(1.3)
    assert bench.exponent([1e3], [1]) is None
    assert bench.exponent([1e3, 1e3], [1, 2]) is None


def test_ratio_of_what_was_not_measured():
    assert bench.ratio(6, 3) == 2
    assert bench.ratio(None, 3) is None
    assert bench.ratio(6, None) is None


def test_peak_is_the_best_product_of_the_number_format():
    rates = {"NumPy float32": 5.0, "MXNet float32": 7.0, "PyTorch bfloat16": 9.0}
    products = {name: {"gflops": rate} for name, rate in rates.items()}
    assert bench.best_product(products, "float32") == {"by": "MXNet float32", "gflops": 7.0}
    assert bench.best_product({}, "bfloat16") is None


def test_summary():
    memory = {"base_mb": 10}
    turns = [
        {"seconds": [3, 1], "cpu_seconds": [6, 2], "peak_mb": 20, **memory},
        {"seconds": [2], "cpu_seconds": [1], "peak_mb": 21, **memory},
    ]
    outcome = {"median": 2, "min": 1, "max": 3, "cores": 1.5, "peak_mb": 21, "base_mb": 10}
    assert bench.summary(turns) == {"seconds": [3, 1, 2], **outcome}


# --- tables ---


def test_table_is_aligned():
    assert bench.aligned([("", "ms"), ("fmi", "12.5")]) == ["       ms", "fmi  12.5"]


def test_busy_machine_is_said():
    facts = {"cpu": "a CPU", "cores": 2, "flags": ["avx2"], "versions": {"numpy": "1.26.4"}}
    line = "a CPU, 2 cores, no instructions for bfloat16; numpy 1.26.4"
    assert bench.machine_lines({**facts, "load_before": 0.1}) == [line]
    assert "load 3.5" in bench.machine_lines({**facts, "load_before": 3.5})[1]
    facts["flags"] = ["avx512f", "avx512_bf16", "amx_bf16"]
    line = "a CPU, 2 cores, avx512_bf16, amx_bf16; numpy 1.26.4"
    assert bench.machine_lines({**facts, "load_before": 0.1}) == [line]


def test_the_rival_is_the_better_layout():
    medians = {
        "fmi float32": 2.0,
        "PyTorch float32, contiguous": 3.0,
        "PyTorch float32, channels_last": 2.5,
        "fmi bfloat16": 1.0,
    }
    found = {name: {"median": median} for name, median in medians.items()}
    line = "PyTorch float32, channels_last takes 1.25 times as long as fmi float32"
    assert bench.rival_lines(found) == [line]
    assert bench.rival_lines({"PyTorch bfloat16, contiguous": {"median": 1.0}}) == []


def result(median, share):
    return {"median": median, "share_of_peak": share}


def test_targets():
    found = {
        "fmi float32": result(1.0, 0.8),
        "fmi float32, network alone": result(0.99, 0.81),
        "fmi bfloat16": result(0.25, 0.3),
        "2016 loop": result(1.5, 0.5),
        "PyTorch float32, contiguous": result(1.4, 0.6),
        "PyTorch float32, channels_last": result(1.2, 0.7),
    }
    growth = {
        "float32": {
            "time_exponent": 1.01,
            "memory_exponent": None,
            "batch": [{"batch": 1, "per_picture": 2.0}, {"batch": 5, "per_picture": 1.0}],
        }
    }
    table = {"layer": "relu3_2", "contenders": found}
    rows = bench.targets([table], growth, apply=True, amx=True)
    values = {row["what"]: (row["value"], row["met"]) for row in rows}
    assert values == {
        "PyTorch float32, channels_last / fmi": (1.2, True),
        "PyTorch bfloat16 / fmi": (None, None),
        "2016 loop / fmi bfloat16": (6.0, True),
        "fmi float32, of peak": (0.8, True),
        "fmi bfloat16, of peak": (0.3, False),
        "fmi float32, outside the network": (pytest.approx(0.01), True),
        "fmi bfloat16, outside the network": (None, None),
        "exponent of time against pixels": (1.01, True),
        "exponent of memory against pixels": (None, None),
        "a picture in a batch of 5 / alone": (0.5, True),
    }
    slower = {**table, "contenders": {**found, "2016 loop": result(0.7, 0.5)}}
    for amx, met in ((True, False), (False, True)):
        others = bench.targets([slower], growth, apply=True, amx=amx)
        assert [r["met"] for r in others if r["what"] == "2016 loop / fmi bfloat16"] == [met]
    lines = bench.target_lines(rows, bench.FULL)
    assert lines[0].split() == ["target", "measured", "wanted"]
    assert any("2016 loop / fmi bfloat16" in x and x.endswith("  met") for x in lines)
    assert any("fmi bfloat16, of peak" in x and x.endswith("NOT met") for x in lines)
    assert not bench.target_lines([], bench.FULL)


def test_targets_are_not_for_a_quick_run():
    found = {"fmi float32": result(1.0, 0.1)}
    rows = bench.targets([{"layer": "relu5_1", "contenders": found}], {}, apply=False, amx=True)
    assert {row["met"] for row in rows} == {None}
    lines = bench.target_lines(rows, bench.QUICK)
    assert lines[0].startswith("The targets are for 512 x 383 pixels and full width, not for")
    assert not any("met" in line for line in lines)


# --- processes ---


def test_turns_count_all_steps_but_the_first():
    answers = io.StringIO()
    turns = contenders.Turns(1, io.StringIO("2\n3\n"), answers)
    made = []
    with pytest.raises(contenders.Finished):
        turns.begin()
        turns.repeat(lambda: made.append(1))
    replies = [json.loads(line) for line in answers.getvalue().splitlines()]
    assert [len(reply["seconds"]) for reply in replies] == [0, 2, 3]
    assert len(made) == 1 + 3 + 4
    assert all(reply["peak_mb"] >= reply["base_mb"] > 1 for reply in replies)


def test_waiting_for_a_turn_is_not_timed(monkeypatch):
    now = [0.0]
    clock = types.SimpleNamespace(perf_counter=lambda: now[0], process_time=lambda: now[0])
    monkeypatch.setattr(contenders, "time", clock)

    class Slow(io.StringIO):
        def readline(self):
            now[0] += 100
            return super().readline()

    def step():
        now[0] += 1

    answers = io.StringIO()
    turns = contenders.Turns(1, Slow("1\n1\n"), answers)
    with pytest.raises(contenders.Finished):
        turns.begin()
        turns.repeat(step)
    seconds = [s for line in answers.getvalue().splitlines() for s in json.loads(line)["seconds"]]
    assert seconds == [1, 1]


def test_job_survives_the_command_line():
    work = bench.job("fmi float32", "relu2_1", 64, FILTERS, batch=3)
    assert contenders.Job.from_json(work.to_json()) == work
    assert work.layer == "relu2_1"


def small(contender):
    return bench.job(contender, "relu2_1", 48, FILTERS, side=16)


def test_who_cannot_run_is_left_out_with_the_reason(monkeypatch, tmp_path):
    (tmp_path / "torch.py").write_text("raise ImportError('no such thing')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    jobs = {name: small(name) for name in ("PyTorch float32", "NumPy float32")}
    found, left_out = bench.race(jobs, rounds=1, steps=2)
    assert list(found) == ["NumPy float32"]
    assert len(found["NumPy float32"]["seconds"]) == 2
    assert left_out["PyTorch float32"].startswith("PyTorch is not here (no such thing): pip instal")


def test_who_dies_is_left_out(monkeypatch, tmp_path):
    (tmp_path / "torch.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    found, left_out = bench.race({"x": small("PyTorch float32")}, rounds=1, steps=1)
    assert not found
    assert left_out == {"x": "was killed by signal 9"}


def test_children_end_with_the_parent():
    with pytest.raises(KeyboardInterrupt), bench.children() as running:
        running["x"] = child = bench.Child(small("NumPy float32"))
        child.answer()
        raise KeyboardInterrupt
    assert child._process.poll() is not None


PICTURE_AFTER = """
import inspect, sys
import numpy as np
from experiments import contenders

class Turns:
    def begin(self):
        pass
    def repeat(self, step):
        for _ in range(12):
            step()
        image = inspect.getclosurevars(step).nonlocals["image"]
        np.save(sys.argv[2], image.detach().numpy() if "torch" in sys.modules else image.asnumpy())

job = contenders.Job.from_json(sys.argv[1])
contenders.CONTENDERS[job.contender](job, Turns())
"""


@pytest.mark.parametrize(
    "contender", ["2016 loop", "PyTorch float32, contiguous", "PyTorch float32, channels_last"]
)
def test_contenders_descend_as_fmi_does(contender, tmp_path):
    if "PyTorch" in contender and not TORCH:
        pytest.skip("PyTorch is not installed: make bench installs it")
    work, file = small(contender), tmp_path / "picture.npy"
    command = [sys.executable, "-c", PICTURE_AFTER, work.to_json(), str(file)]
    subprocess.run(command, cwd=HERE, check=True, capture_output=True)
    arrays = contenders.random_arrays(work.layers, work.filters)
    network = vgg.truncated(VGG19, arrays, [work.layer], "avg", "down", mx.cpu())
    target = network(mx.nd.array(contenders.content(work)))[work.layer]
    loss = losses.code(work.layer, target, settings.CODE.code_weight)
    values = settings.override(settings.CODE, {"steps": 12, "stop": 0})
    start = contenders.first(work)
    (found,) = descent.minimise(network, loss, mx.nd.array(start), values, progress=False)
    assert np.abs(found.image - start[0]).max() > 5  # it has moved
    assert np.abs(np.load(file)[0] - found.image).max() < 0.05


# --- a run ---


def test_quick_run(tmp_path):
    widths = ",".join(map(str, FILTERS))
    done = run("--quick", "--filters", widths, "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "bench.json").read_text())
    (table,) = record["layers"]
    names = set(contenders.CONTENDERS)
    assert set(table["contenders"]) | set(table["left_out"]) >= names
    there = names if TORCH else {name for name in names if "PyTorch" not in name}
    if "avx512bw" in Path("/proc/cpuinfo").read_text():
        assert set(table["contenders"]) == there
    if not TORCH:
        assert "pip install" in table["left_out"]["PyTorch float32, contiguous"]
    for name, found in table["contenders"].items():
        assert len(found["seconds"]) == 4
        assert 0 < found["min"] <= found["median"] <= found["max"]
        assert found["share_of_peak"] > 0
        assert found["peak_mb"] > 20
        assert found["cores"] > 0
        assert f"\n{name} " in done.stdout
    for name, reason in table["left_out"].items():
        assert f"left out: {name}: {reason}" in done.stdout
    assert f"on {table['cpu']}\n" in done.stdout and table["cpu"] == record["machine"]["cpu"]
    fmi = table["contenders"]["fmi float32"]
    rate = bench.flops(bench.job("", "relu2_2", 64, FILTERS)) / fmi["median"] / 1e9
    assert fmi["share_of_peak"] == pytest.approx(rate / table["peaks"]["float32"]["gflops"])
    growth = record["growth"]["float32"]
    assert [point["pixels"] for point in growth["pixels"]] == [64 * 47, 96 * 71]
    assert [point["batch"] for point in growth["batch"]] == [1, 2]
    assert [point["layer"] for point in growth["layers"]] == ["relu1_2"]
    assert all(len(point["seconds"]) == 4 for point in growth["pixels"])
    assert record["machine"]["cores"] >= 1
    with Image.open(tmp_path / "bench.png") as image:
        assert image.format == "PNG" and min(image.size) > 500
        assert len(np.unique(np.asarray(image.convert("L")))) > 10


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--layers", "relu3_9"], "unknown layer 'relu3_9'; did you mean relu3_"),
        (["--layers", ","], "--layers names no layer, such as relu3_2"),
        (["--filters", "4,4"], "--filters should have 5 numbers, one for each block"),
        (["--layers", "relu5_1", "--long-edge", "16"], "16 x 11 pixels is too small for relu5_1"),
        (["--out", "setup.py/bench"], "--out setup.py/bench: Not a directory"),
    ],
)
def test_mistakes_are_one_line_and_status_2(arguments, message):
    done = run(*arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("bench: ") and message in line


def test_numbers_on_the_command_line():
    done = run("--rounds", "0")
    assert done.returncode == 2
    assert "argument --rounds: '0' should be a whole number above 0" in done.stderr


def test_plan_from_the_command_line():
    chosen = bench.parsed(["--layers", "relu1_2,relu2_1", "--steps", "7", "--no-growth"])
    plan = bench.planned(chosen)
    assert plan.layers == ("relu1_2", "relu2_1")
    assert (plan.steps, plan.rounds, plan.growth) == (7, bench.FULL.rounds, None)


def test_the_full_plan_is_sound():
    jobs = [
        work
        for form in bench.FORMATS
        for works in bench.growth_jobs(bench.FULL, form).values()
        for work in works
    ]
    assert len(jobs) == 2 * (7 + 6 + 5)
    assert bench.FULL.rounds * bench.FULL.steps >= 10
    with pytest.raises(InputError):
        bench.job("", "relu5_1", 8, FILTERS)
