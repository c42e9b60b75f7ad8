"""What MXNet would abort, hang or crash with; a home, drivers and names that there are not."""

import logging
import os
import pwd
import subprocess
import sys
from pathlib import Path

import pytest

from fmi import cli, doctor
from fmi.device import driver as _driver
from fmi.device import environment, gpus, variables
from fmi.device import mxnet as _mxnet
from fmi.errors import InputError, SetupError
from fmi.networks import catalogue, weights
from fmi.sources import fetch, table

HERE = Path(__file__).resolve().parent.parent


def fmi(*words, **environ):
    return subprocess.run(
        [sys.executable, "-m", "fmi", *words],
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        check=False,
        cwd=HERE,
        timeout=60,
    )


# --- what to install ---


def test_extras_are_installed_from_the_clone(monkeypatch, tmp_path):
    assert environment.pip_install("cluster") == f"pip install -e '{HERE}[cluster]'"
    again = f"pip install -e '{HERE}[cu112]' --force-reinstall"
    assert environment.pip_install("cu112", "--force-reinstall") == again
    monkeypatch.setattr(environment, "__file__", str(tmp_path / "fmi/device/environment.py"))
    error = environment.lacking("video", "--mp4 needs imageio-ffmpeg")
    assert isinstance(error, SetupError)
    advice = "pip install -e '.[video]' in the folder of fmi's clone"
    assert str(error) == f"--mp4 needs imageio-ffmpeg: {advice}"
    advice = "pip install -e '.[cu112]' --force-reinstall in the folder of fmi's clone"
    assert environment.pip_install("cu112", "--force-reinstall") == advice
    assert environment.pip_install("cpu") == "pip install 'mxnet==1.9.1'"


@pytest.mark.parametrize(
    ("package", "words", "extra"),
    [
        ("shtab", ["completion", "bash"], "completion"),
        ("imageio_ffmpeg", ["code", "skimage:coffee", "--layer", "relu1_1", "--mp4"], "video"),
    ],
)
def test_a_missing_package_is_told_with_its_extra(package, words, extra, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, package, None)
    assert cli.main(words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith(environment.pip_install(extra))


def test_no_text_advises_what_is_on_no_index():
    texts = [*HERE.glob("*.md"), *HERE.glob("docs/**/*.md")]
    texts += [path for folder in ("fmi", "experiments") for path in HERE.glob(f"{folder}/**/*.py")]
    for path in texts:
        assert "install 'fmi[" not in path.read_text(encoding="utf-8"), path


# --- variables ---


@pytest.mark.parametrize(
    ("name", "value", "takes"),
    [
        ("OMP_NUM_THREADS", "abc", "from 1 to 1024"),
        ("OMP_NUM_THREADS", "1000000", "from 1 to 1024"),  # a segmentation fault
        ("MXNET_CPU_WORKER_NTHREADS", "0", "from 1 to 1024"),  # hangs
        ("MXNET_EXEC_BULK_EXEC_TRAIN", "abc", "0 or 1"),
        ("MXNET_ENGINE_TYPE", "abc", "NaiveEngine"),
        ("DMLC_ROLE", "server", "worker"),
        ("FMI_AMX", "abc", "0 or 1"),
    ],
)
def test_a_value_that_mxnet_does_not_survive(name, value, takes):
    done = fmi("layers", "embedded", **{name: value})
    (line,) = done.stderr.splitlines()
    assert done.returncode == 2 and done.stdout == ""
    assert line.startswith("fmi: ") and f"{name}={value!r}" in line and takes in line


NUMBERS = ["abc", "1.5", "0x2", "1_000", "1,2", "١", "2147483648", "9" * 5000, "1 2", "--1", " "]


@pytest.mark.parametrize("name", sorted(variables.BOUNDS))
def test_whole_numbers(name):
    low, high = variables.BOUNDS[name]
    for value in (low, high, f" {low}", f"+{high} ", ""):
        variables.check({name: str(value)})
    for value in (*NUMBERS, low - 1, high + 1):
        with pytest.raises(SetupError) as error:
            variables.check({"OTHER": "abc", name: str(value)})
        text = str(error.value)
        assert f"variable {name}=" in text and f"unset {name}" in text and "\n" not in text
        assert "a whole number" in text and len(text) < 300
        if (low, high) != variables.ANY:
            assert f"from {low} to {high}" in text


def test_counts_of_threads_are_not_zero():
    for name in ("CPU_WORKER_NTHREADS", "CPU_PRIORITY_NTHREADS", "CPU_TEMP_COPY"):
        for value in ("0", "-5", "1000000000"):
            with pytest.raises(SetupError):
                variables.check({f"MXNET_{name}": value})


@pytest.mark.parametrize("name", sorted(variables.SWITCHES))
def test_switches(name):
    for value in ("0", "1", "true", "False", ""):
        variables.check({name: value})
    for value in ("abc", "2", "-5", "yes", "01"):
        with pytest.raises(SetupError, match=f"{name}='{value}'.* 0 or 1"):
            variables.check({name: value})


@pytest.mark.parametrize("name", sorted(variables.CHOICES))
def test_choices(name):
    for value in variables.CHOICES[name]:
        variables.check({name: value})
    with pytest.raises(SetupError) as error:
        variables.check({name: "abc"})
    assert all(word in str(error.value) for word in variables.CHOICES[name])


def test_no_choice_where_mxnet_takes_none():
    for name in ("MXNET_ENGINE_TYPE", "MXNET_ENABLE_CYTHON", "DMLC_ROLE"):
        with pytest.raises(SetupError, match=f"{name}=''"):
            variables.check({name: ""})


def test_a_number():
    for value in ("1", "2.5", "-1e3", "1."):
        variables.check({variables.WEIGHT_SCALE: value})
    for value in ("abc", "1,5", "e3", "nan"):
        with pytest.raises(SetupError, match="a number"):
            variables.check({variables.WEIGHT_SCALE: value})


def test_variables_that_are_not_mxnets_are_left_alone(monkeypatch):
    monkeypatch.setenv("MXNET_HOME", "abc")
    monkeypatch.setenv("FMI_OFFLINE", "abc")
    variables.check()
    monkeypatch.setenv("MXNET_MKLDNN_DEBUG", "abc")
    with pytest.raises(SetupError, match="MXNET_MKLDNN_DEBUG"):
        variables.check()


def test_threads(monkeypatch):
    cores = str(environment.cores())
    for value, expected in (("", cores), (" ", cores), ("3", "3"), (" 3 ", "3"), ("4,2", "4")):
        assert variables.threads({"OMP_NUM_THREADS": value}) == expected
    assert variables.threads({}) == cores
    for value in ("1.5", "0", "-1", "1025", "2,", ",2", "2,0", "2 3"):
        with pytest.raises(SetupError, match="OMP_NUM_THREADS"):
            variables.threads({"OMP_NUM_THREADS": value})
        with pytest.raises(SetupError, match="OMP_NUM_THREADS"):
            variables.check({"OMP_NUM_THREADS": value})
    monkeypatch.setenv("OMP_NUM_THREADS", "7,7")
    assert variables.threads() == "7"


def test_a_list_of_threads_is_legal_for_openmp():
    code = (
        "import ctypes, os, fmi.device.mxnet as m; m.mx.nd.ones((2, 2)).asnumpy();"
        "print(ctypes.CDLL('libgomp.so.1').omp_get_max_threads(), os.environ['OMP_NUM_THREADS'])"
    )
    environ = {**os.environ, "OMP_NUM_THREADS": "1,2"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "1 1,2\n"), done.stderr


def test_a_variable_is_set_for_a_while(monkeypatch):
    monkeypatch.setenv("FMI_TEST", "before")
    with pytest.raises(KeyError), environment.variable("FMI_TEST", "inside"):
        assert os.environ["FMI_TEST"] == "inside"
        raise KeyError
    assert os.environ["FMI_TEST"] == "before"
    monkeypatch.delenv("FMI_TEST")
    with environment.variable("FMI_TEST", "inside"):
        assert os.environ["FMI_TEST"] == "inside"
    assert "FMI_TEST" not in os.environ


def test_an_mxnet_that_breaks_down_is_told_in_one_line(tmp_path):
    if environment.installed_wheel() != "mxnet":
        pytest.skip("the CPU wheel is not installed")
    (tmp_path / "mxnet").mkdir()
    (tmp_path / "mxnet/__init__.py").write_text("raise ValueError('Traceback\\n half is gone ')\n")
    done = fmi("layers", "embedded", PYTHONPATH=f"{tmp_path}{os.pathsep}{HERE}")
    (line,) = done.stderr.splitlines()
    assert done.returncode == 2
    assert line.startswith("fmi: mxnet cannot be imported (ValueError: half is gone): pip install")


# --- devices ---


@pytest.mark.parametrize(
    "ctx",
    ["cpu(7)", "cpu(1)", "cpu(-1)", "cuda", "", " ", "gpu(1.0)", "gpu()", "gpu(٣)", 3, b"cpu", 1.5]
    + ["gpu(" + "9" * 5000 + ")", "gpu(999999999)", ["cpu"], {}, True, "cpu\0", "x" * 10**6],
)
def test_devices_that_there_are_not(ctx):
    with pytest.raises(InputError) as error:
        _mxnet.context(ctx)
    text = str(error.value)
    assert "ctx" in text or "device" in text
    assert "\n" not in text and "\0" not in text and len(text) < 500


def test_the_cpu_is_one_device():
    for ctx in ("cpu", "cpu(0)", " cpu(00) ", _mxnet.mx.cpu()):
        assert str(_mxnet.context(ctx)) == "cpu(0)"
    for ctx in ("cpu(7)", _mxnet.mx.cpu(7)):
        with pytest.raises(InputError, match=r"ctx='cpu\(7\)'.*'cpu'"):
            _mxnet.context(ctx)


@pytest.mark.parametrize("value", ["cpu(7)", "abc"])
def test_a_device_of_the_environment(value, monkeypatch):
    monkeypatch.setenv("FMI_CTX", value)
    with pytest.raises(InputError) as error:
        _mxnet.context()
    assert "FMI_CTX" in str(error.value) and value in str(error.value)
    done = fmi("doctor")
    assert done.returncode == 2
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("- FMI_CTX"))
    assert value in line and "unset FMI_CTX" in line


def silent(*words, timeout=None, **options):
    raise subprocess.TimeoutExpired(words[0], timeout)


@pytest.fixture
def fresh_driver():
    _driver.driver.cache_clear()
    yield
    _driver.driver.cache_clear()


def test_a_driver_that_does_not_answer(monkeypatch, fresh_driver):
    monkeypatch.setattr(_driver.subprocess, "run", silent)
    found = _driver.driver()
    assert f"{_driver.PATIENCE} s" in found.problem() and "restart" in found.problem()
    assert "\n" not in found.problem()
    assert (found.wheel(), found.gpus) == ("cpu", ())


@pytest.mark.parametrize("answer", ["", "libcuda: hello\n", "[]", "{}", '{"gpus": 1}', "\n\n"])
def test_a_driver_that_answers_in_riddles(monkeypatch, fresh_driver, answer):
    done = subprocess.CompletedProcess([], 0, answer, "")
    monkeypatch.setattr(_driver.subprocess, "run", lambda *a, **k: done)
    assert "cannot be read" in _driver.driver().problem()


def test_lines_that_the_driver_prints_are_passed_over(monkeypatch, fresh_driver):
    done = subprocess.CompletedProcess([], 0, 'hello\n{"gpus": [], "path": "x"}\n', "")
    monkeypatch.setattr(_driver.subprocess, "run", lambda *a, **k: done)
    assert _driver.driver() == _driver.Driver(path="x")


@pytest.mark.parametrize("answer", ["", "hello", "[]", "{}", "3"])
def test_a_trial_without_a_result(monkeypatch, answer):
    gpu = _driver.Gpu(0, "NVIDIA A10", (8, 6), 1)
    done = subprocess.CompletedProcess([], 0, answer, "")
    monkeypatch.setattr(gpus, "driver", lambda: _driver.Driver(gpus=(gpu,)))
    monkeypatch.setattr(gpus.subprocess, "run", lambda *a, **k: done)
    gpus.trial.cache_clear()
    try:
        assert "NVIDIA A10" in gpus.trial(0).problem and "doctor" in gpus.trial(0).problem
    finally:
        gpus.trial.cache_clear()


def test_the_doctor_does_not_wait_for_ever(monkeypatch):
    monkeypatch.setattr(doctor.subprocess, "run", silent)
    error = doctor._mxnet()["error"]
    assert f"{doctor.PATIENCE} s" in error and "pip install" in error and "\n" not in error


# --- folders and files ---

LONG = "x" * 300  # longer than file systems take
DEEP = "/".join(["y" * 200] * 30)  # each part is short enough, the whole is not


@pytest.fixture
def no_home(monkeypatch):
    def nobody(_):
        raise KeyError("getpwuid(): uid not found")

    for name in ("HOME", "XDG_CACHE_HOME", "FMI_MODELS", "FMI_PICTURES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", nobody)
    table._warn.cache_clear()


def test_without_a_home_there_is_no_cache(no_home, monkeypatch, tmp_path):
    checkout = [HERE / "models"]
    assert table.folders("models") == checkout
    monkeypatch.setattr(table, "_checkout", lambda kind: None)
    monkeypatch.chdir(tmp_path)
    assert table.folders("models") == []
    with pytest.raises(InputError, match="--folder"):
        table.destination("models")
    with pytest.raises(InputError, match="--folder"):
        fetch.fetch(table.models()["vgg19"])
    assert list(tmp_path.iterdir()) == []  # in particular no folder named "~"


def test_a_folder_in_a_home_that_is_not_there(no_home, monkeypatch, tmp_path, caplog):
    monkeypatch.setenv("FMI_MODELS", f"~/weights{os.pathsep}{tmp_path}")
    for _ in range(2):
        assert table.named_folders("models") == [tmp_path]
    (message,) = caplog.messages
    assert "FMI_MODELS" in message and "~/weights" in message and "home" in message
    caplog.clear()
    monkeypatch.setenv("FMI_PICTURES", "~nobody_of_this_name/x")
    assert table.named_folders("pictures") == []
    assert "FMI_PICTURES" in caplog.text


@pytest.mark.parametrize("name", [LONG, "/" + DEEP])
def test_a_folder_whose_name_is_too_long(name, monkeypatch, tmp_path, caplog):
    table._warn.cache_clear()
    monkeypatch.setenv("FMI_MODELS", f"{name}{os.pathsep}{tmp_path}{os.pathsep}")
    assert table.named_folders("models") == [tmp_path]
    (message,) = caplog.messages
    assert "FMI_MODELS" in message and "too long" in message and len(message) < 200
    assert caplog.records[0].levelno == logging.WARNING
    source = table.models()["vgg19"]
    (tmp_path / source.file).write_bytes(b"")
    assert table.find(source) == table.candidates()[0] == tmp_path / source.file


def test_a_file_whose_name_becomes_too_long(tmp_path):
    folder = tmp_path / Path(DEEP[: 4090 - len(str(tmp_path))])
    assert not table.is_file(folder / "vgg19.params")
    assert not table.is_file(Path("a\0b"))
    assert table.is_file(Path(__file__))


def test_a_file_that_may_not_be_read(tmp_path, monkeypatch):
    source = table.models()["vgg19"]
    (tmp_path / source.file).write_bytes(b"")
    monkeypatch.setattr(table, "folders", lambda kind: [tmp_path])

    def refuse(path, kind):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(table.files, "file_digest", refuse)
    (found,) = table.survey({"vgg19": source})
    assert found.path == tmp_path / source.file and "Permission denied" in found.state


@pytest.mark.parametrize("name", [f"{LONG}.npz", f"{DEEP}.npz", "a\0b.npz"])
def test_names_of_weights_that_no_file_can_have(name):
    for given in (name, Path(name)):
        for load in (weights.read, weights.load, catalogue.load):
            with pytest.raises(InputError) as error:
                load(given)
            assert "\n" not in str(error.value)
    with pytest.raises(InputError):
        catalogue.load("resnet18_v1", name)
    with pytest.raises(InputError):
        catalogue.load(_mxnet.mx.sym.var("data"), name)


@pytest.mark.parametrize("name", [LONG, DEEP])
@pytest.mark.parametrize(
    "words",
    [
        ("weights", "show", "NAME"),
        ("weights", "convert", "NAME.npz", "out.npz"),
        ("weights", "fetch", "vgg19", "--offline", "--folder", "NAME"),
        ("pictures", "fetch", "--offline", "--folder", "NAME"),
        ("pictures", "fetch", "NAME"),
        ("layers", "NAME"),
        ("layers", "NAME.npz"),
        ("layers", "resnet18_v1", "--weights", "NAME.params"),
        ("layers", "--weights", "NAME.npz"),
        ("draw", "NAME"),
    ],
)
def test_names_on_the_command_line_that_are_too_long(name, words, capsys):
    assert cli.main([word.replace("NAME", name) for word in words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("fmi: ")
