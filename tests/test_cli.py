"""The command line at its edges: its output, its signals, its help."""

import argparse
import contextlib
import errno
import io
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from conftest import smooth_picture
from PIL import Image

from fmi import cli
from fmi.cli import output, pictures, signals
from fmi.errors import InputError

HERE = Path(__file__).resolve().parent.parent
MODULE = [sys.executable, "-m", "fmi"]
SCRIPT = [sys.executable, "-c", "import sys; from fmi.cli import main; sys.exit(main())"]
LISTED = [*MODULE, "pictures", "list"]
OLD = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}  # the ASCII locale


def shell(line, *words, **environment):
    """Run a line of bash in which "$@" is the command, with its own exit status."""
    return subprocess.run(
        ["bash", "-c", f"set -o pipefail; {line}", "bash", *words],
        env={**os.environ, "FMI_PICTURES": "", **environment},
        capture_output=True,
        text=True,
        check=False,
        cwd=HERE,
    )


def child(code, *words, **environment):
    """Run Python code in a process of its own."""
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, words)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        cwd=HERE,
        timeout=120,
    )


# --- standard output ---


@pytest.mark.parametrize("command", [MODULE, SCRIPT])
@pytest.mark.parametrize("words", [["pictures", "list"], ["--help"], ["weights", "--help"]])
def test_a_reader_that_ends_early(command, words):
    done = shell('"$@" | :', *command, *words)
    assert (done.returncode, done.stdout, done.stderr) == (141, "", "")


def test_the_reader_gets_what_it_asked_for():
    done = shell('"$@" | head -1', *LISTED)
    assert done.stdout == "golden_gate: The Golden Gate Bridge (photograph)\n"
    assert done.returncode in (0, 141) and done.stderr == ""  # the pipe may hold all of it


@pytest.mark.parametrize("command", [MODULE, SCRIPT])
@pytest.mark.parametrize("words", [["pictures", "list"], ["--help"], ["--version"]])
@pytest.mark.parametrize(
    ("where", "why"), [(">/dev/full", os.strerror(errno.ENOSPC)), (">&-", "closed")]
)
def test_output_that_cannot_be_written(command, words, where, why):
    done = shell(f'"$@" {where}', *command, *words)
    (line,) = done.stderr.splitlines()
    assert line.startswith("fmi: standard output cannot be written") and why in line
    assert done.returncode == 2


@pytest.mark.parametrize("where", ["2>&-", "2>/dev/full"])
def test_errors_that_cannot_be_told(where):
    listed = shell(f'"$@" {where}', *LISTED)
    assert (listed.returncode, listed.stderr) == (0, "")
    assert listed.stdout.startswith("golden_gate: ")
    for wrong in (["pictures", "fetch", "nothing"], ["pictures", "lst"], ["--verbose"]):
        assert shell(f'"$@" {where}', *MODULE, *wrong).returncode == 2
    assert shell(f'"$@" >&- {where}', *LISTED).returncode == 2


def test_a_log_that_cannot_be_written(tmp_path):
    code = (
        "import logging, sys; from fmi import cli; from fmi.cli import pictures\n"
        "pictures._pictures_list = lambda _: logging.getLogger('fmi').warning('lost') or 0\n"
        "sys.exit(cli.main(['pictures', 'list']))"
    )
    assert shell('"$@" 2>/dev/full', sys.executable, "-c", code).returncode == 0


def test_a_file_does_not_take_the_place_of_a_closed_stream(tmp_path):
    code = (
        "import os, sys; from fmi import cli; from fmi.cli import pictures\n"
        f"def work(_):\n    stream = open({str(tmp_path / 'x')!r}, 'wb')\n"
        "    os.write(2, b'said by a library')\n    return stream.fileno() < 3\n"
        "pictures._pictures_list = work\n"
        "sys.exit(cli.main(['pictures', 'list']))"
    )
    assert shell('"$@" 2>&- <&-', sys.executable, "-c", code).returncode == 0
    assert (tmp_path / "x").read_bytes() == b""


@pytest.mark.parametrize("environment", [OLD, {**OLD, "PYTHONIOENCODING": "ascii"}])
def test_characters_that_the_locale_cannot_show(environment):
    done = shell('"$@"', *LISTED, **environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert "Neckarfront with H\\xf6lderlinturm" in done.stdout
    shown = shell('"$@"', *LISTED, PYTHONIOENCODING="utf-8")
    assert "Neckarfront with Hölderlinturm" in shown.stdout


def test_bytes_of_a_name_stay_where_python_was_told_to_keep_them():
    stream = io.TextIOWrapper(io.BytesIO(), "ascii", errors="surrogateescape")
    written = output.Output(stream)
    written.write("a\udcff ")
    written.write("ö\udcff")
    written.flush()
    assert stream.buffer.getvalue() == b"a\xff \\xf6\\udcff"


@pytest.mark.parametrize("environment", [{}, OLD])
def test_a_name_that_is_not_text_can_be_told(environment):
    name = os.fsdecode(b"x\xff\x1b[31m\xc3.npz")
    done = shell('"$@"', *MODULE, "weights", "show", name, **environment)
    (line,) = done.stderr.splitlines()
    assert "x\\udcff\\x1b[31m\\udcc3.npz" in line
    assert done.returncode == 2


def test_streams_are_as_before(capsys):
    before = sys.stdout, sys.stderr
    assert cli.main(["pictures", "list"]) == 0
    with pytest.raises(SystemExit):
        cli.main(["--version"])
    assert (sys.stdout, sys.stderr) == before
    assert capsys.readouterr().out.endswith("fmi 0.1.0\n")


def test_a_stream_that_was_closed_within_python(monkeypatch, capsys):
    gone = io.StringIO()
    gone.close()
    monkeypatch.setattr(sys, "stdout", gone)
    assert cli.main(["pictures", "list"]) == 2
    assert "fmi: standard output cannot be written" in capsys.readouterr().err


# --- help ---


def commands(parser, words=()):
    """Every command, with the words that lead to it."""
    yield words, parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for word, inner in action.choices.items():
                yield from commands(inner, (*words, word))


def test_help_is_plain_text(monkeypatch):
    found = []
    parse = argparse.ArgumentParser.parse_args

    def note(parser, *arguments):
        found.append(parser)
        return parse(parser, *arguments)

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", note)
    assert cli.main(["pictures", "list"]) == 0
    texts = {words: parser.format_help() for words, parser in commands(found[0])}
    assert {(), ("draw",), ("weights", "convert"), ("pictures", "fetch")} <= set(texts)
    for words, text in texts.items():
        assert not any(mark in text for mark in ("``", ":mod:", ":func:", ":class:")), words


def test_every_help_is_shown():
    for words in ([], ["draw"], ["weights", "show"], ["doctor"]):
        done = shell('"$@"', *MODULE, *words, "--help")
        assert done.returncode == 0 and done.stdout.startswith("usage: fmi")
        assert "``" not in done.stdout and ":mod:" not in done.stdout


# --- signals ---

SAID = "fmi: interrupted; finished panels are kept, run the command again to resume\n"
BOTH = [(int(signal.SIGINT), 130), (int(signal.SIGTERM), 143)]
ON_IMPORT = """
import os, sys
number, at, words = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
class Finder:
    found = 0
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        cls.found += 1
        if cls.found == at:
            os.kill(os.getpid(), number)
from fmi.cli import main
sys.meta_path.insert(0, Finder)
sys.argv[1:] = words
status = main()
print(Finder.found)
sys.exit(status)
"""


@pytest.mark.parametrize("part", range(8))
@pytest.mark.parametrize(("number", "status"), BOTH)
def test_a_signal_while_modules_are_imported(number, status, part):
    words = ("draw", "nowhere.yaml")
    done = child(ON_IMPORT, number, 0, *words) if part == 0 else None
    if done:  # no signal: how many there are
        assert done.returncode == 2 and int(done.stdout) > 500
    for at in (1 + 3 * part, 40 + 45 * part, 420 + 60 * part):
        done = child(ON_IMPORT, number, at, *words)
        assert (done.returncode, done.stderr) == (status, SAID), at


IN_WORK = """
import os, signal, sys, time
from fmi import cli
from fmi.cli import output, pictures, signals
number = int(sys.argv[1])
def kill(): os.kill(os.getpid(), number)
def wait():
    kill()
    time.sleep(30)
{code}
pictures._pictures_list = work
sys.exit(cli.main(["pictures", "list"]))
"""
WORKS = {
    "at once": "def work(_): wait()",
    "twice": """
def work(_):
    try:
        wait()
    finally:  # another while the first is dealt with
        wait()
""",
    "again while it is told": """
tell = output.tell
def told(text):
    kill()
    tell(text)
output.tell = told
def work(_): wait()
""",
    "where Python ignores exceptions": """
class Array:
    def __del__(self): wait()
def work(_):
    Array()
    time.sleep(30)
""",
    "in a module that a function imports": """
class Finder:
    def find_spec(self, name, path=None, target=None): wait()
def work(_):
    sys.meta_path.insert(0, Finder())
    import nothing_of_this_name
""",
    "and converted by a library": """
def work(_):
    try:
        wait()
    except KeyboardInterrupt:
        raise ImportError("initialisation failed")
""",
}


@pytest.mark.parametrize("name", WORKS)
@pytest.mark.parametrize(("number", "status"), BOTH)
def test_a_signal_during_work(number, status, name):
    began = time.monotonic()
    done = child(IN_WORK.format(code=WORKS[name]), number)
    assert (done.returncode, done.stdout, done.stderr) == (status, "", SAID)
    assert time.monotonic() - began < 25


def test_what_has_been_absorbed_does_not_hide_an_error_of_the_user():
    code = """
from fmi.errors import InputError
def work(_):
    try:
        wait()
    except KeyboardInterrupt:
        raise InputError("the disk is full")
"""
    done = child(IN_WORK.format(code=code), 2)
    assert (done.returncode, done.stderr) == (2, "fmi: the disk is full\n")


def test_a_signal_when_python_ends():
    code = (
        "import atexit, os, signal, sys; from fmi.cli import main\n"
        "atexit.register(os.kill, os.getpid(), signal.SIGINT)\n"
        "sys.argv[1:] = ['pictures', 'list']\nsys.exit(main())"
    )
    done = child(code)
    assert (done.returncode, done.stderr) == (-signal.SIGINT, "")
    assert done.stdout.startswith("golden_gate")


def test_an_ignored_signal_stays_ignored():
    """As after nohup, or in the background of a script."""
    code = "def work(_):\n    kill()\n    return 0\nsignal.signal(number, signal.SIG_IGN)"
    done = child(IN_WORK.format(code=code), 2)
    assert (done.returncode, done.stderr) == (0, "")


def test_handlers_are_restored(monkeypatch):
    def found():
        return [signal.getsignal(number) for number, _ in BOTH], sys.unraisablehook

    before, inside = found(), []
    monkeypatch.setattr(pictures, "_pictures_list", lambda _: inside.append(found()) or 0)
    assert cli.main(["pictures", "list"]) == 0
    monkeypatch.setattr(pictures, "_pictures_list", lambda _: (_ for _ in ()).throw(ValueError))
    with pytest.raises(ValueError):
        cli.main(["pictures", "list"])
    assert found() == before
    assert all(handler not in before[0] for handler in inside[0][0])


def test_a_thread_leaves_the_handlers_alone(monkeypatch):
    before, inside, statuses = signal.getsignal(signal.SIGTERM), [], []

    def work(_):
        inside.append(signal.getsignal(signal.SIGTERM))
        return 0

    monkeypatch.setattr(pictures, "_pictures_list", work)
    with contextlib.redirect_stdout(io.StringIO()):
        thread = threading.Thread(target=lambda: statuses.append(cli.main(["pictures", "list"])))
        thread.start()
        thread.join()
    assert (statuses, inside) == ([0], [before])


def test_other_ignored_exceptions_are_told_as_before(monkeypatch, capsys):
    seen = []
    monkeypatch.setattr(sys, "unraisablehook", seen.append)

    class Noisy:
        def __del__(self):
            raise RuntimeError("nothing to do with a signal")

    def work(_):
        Noisy()
        return 0

    monkeypatch.setattr(pictures, "_pictures_list", work)
    assert cli.main(["pictures", "list"]) == 0
    assert [found.exc_type for found in seen] == [RuntimeError]


def test_errors_of_the_user_and_others(monkeypatch, capsys):
    def refuse(_):
        raise InputError("no such thing")

    monkeypatch.setattr(pictures, "_pictures_list", refuse)
    assert cli.main(["pictures", "list"]) == 2
    assert capsys.readouterr().err == "fmi: no such thing\n"

    def interrupt(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(pictures, "_pictures_list", interrupt)
    assert cli.main(["pictures", "list"]) == 130
    assert capsys.readouterr().err == SAID == signals.INTERRUPTED + "\n"


def test_sigterm_keeps_finished_panels(tmp_path, small_weights):
    picture, results = tmp_path / "picture.png", tmp_path / "results"
    Image.fromarray(smooth_picture(42, 56)).save(picture)
    words = [f"WEIGHTS={small_weights}", f"PICTURES={picture}", f"RESULTS={results}", "CTX=cpu"]
    words += ["LONG_EDGE=48", "LAYERS=relu1_1,relu1_2", "FILTERS=0,1", "STOP=0", "STEPS=400"]
    command = [*MODULE, "draw", "experiments/fig3.yaml", *words]
    running = subprocess.Popen(command, cwd=HERE, stderr=subprocess.PIPE, text=True)
    try:
        first = results / "picture/relu1_1_filter0.json"
        for _ in range(600):
            if first.exists():
                break
            time.sleep(0.1)
        running.terminate()
        _, said = running.communicate(timeout=60)
    finally:
        running.kill()
    assert running.returncode == 143, said
    assert said.endswith(SAID) and "Traceback" not in said
    left = {path.name for path in results.rglob("*") if path.is_file()}
    assert first.name in left and "fig3.png" not in left
    stems = {Path(name).stem.replace("_undenoised", "") for name in left}
    assert left == {f"{s}{end}" for s in stems for end in (".png", ".json", "_undenoised.png")}


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["feature-map", "a.jpg", "--layer", "relu1_1", "--netwrk", "x"], "--network"),
        (["sweep", "a.yaml", "--schedular", "x", "SEED=1"], "--scheduler"),
        (["layers", "--jsn"], "--json"),
    ],
)
def test_an_unknown_option_is_answered_with_the_nearest_of_its_command(words, hint, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(words)
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert f"did you mean {hint}" in said and f"usage: fmi {words[0]} " in said
