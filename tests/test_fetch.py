"""Fetching against a local server: the right file or no file, and what the message says."""

import hashlib
import http.server
import io
import json
import logging
import os
import resource
import socket
import subprocess
import sys
import threading
import time
import types
import urllib.parse
import zipfile
from dataclasses import replace
from pathlib import Path

import pooch
import pytest

from fmi import cli
from fmi.errors import FetchError, InputError
from fmi.sources import fetch, table
from fmi.sources.fetch import Patience
from fmi.sources.table import Source

CONTENT = bytes(range(256)) * 800  # 205 kB
SHA256 = hashlib.sha256(CONTENT).hexdigest()
QUICK = Patience(connect=60, read=60, first=120, tries=3, pause=0.01)
MUTE = ("silent", "stalled")  # the addresses whose answer never comes or never ends


class Handler(http.server.BaseHTTPRequestHandler):
    """Each path is a way to answer."""

    def log_message(self, *_):
        pass

    def do_GET(self):
        word = urllib.parse.urlsplit(self.path).path.strip("/")
        self.server.asked.append(word)
        getattr(self, f"answer_{word}")()

    def send(self, content, length=None, status=200):
        self.send_response(status)
        self.send_header("Content-Length", str(length or len(content)))
        self.end_headers()
        self.wfile.write(content)

    def answer_good(self):
        self.send(CONTENT)

    def answer_pieces(self):
        self.send(b"", len(CONTENT))
        for begin in range(0, len(CONTENT), 25600):
            self.wfile.write(CONTENT[begin : begin + 25600])

    def answer_meeting(self):
        """Nobody is answered until three have asked."""
        self.server.meeting.wait(120)
        self.send(CONTENT)

    def answer_silent(self):
        self.server.over.wait(120)

    def answer_stalled(self):
        self.send(CONTENT[:5000], len(CONTENT))
        self.server.over.wait(120)

    def answer_cut(self):
        self.send(CONTENT[:100000], len(CONTENT))

    def answer_cutonce(self):
        self.send(
            CONTENT[:100000] if self.server.asked.count("cutonce") < 2 else CONTENT, len(CONTENT)
        )

    def answer_short(self):
        """Cut by somebody on the way who also mends the length."""
        self.send(CONTENT[:100000])

    def answer_wrong(self):
        self.send(CONTENT[:-1] + b"!")

    def answer_endless(self):
        self.send_response(200)
        self.end_headers()
        try:
            for _ in range(1000):
                self.wfile.write(bytes(1 << 20))
                self.server.sent += 1 << 20
        except OSError:
            pass

    def answer_missing(self):
        self.send(b"not found", status=404)

    def answer_broken(self):
        self.send(b"broken", status=503)

    def answer_moved(self):
        self.send_response(302)
        self.send_header("Location", "/good")
        self.end_headers()

    def answer_circle(self):
        self.send_response(302)
        self.send_header("Location", "/circle")
        self.end_headers()

    def answer_zip(self):
        self.send(zipped({"data.bin": CONTENT}))

    def answer_otherzip(self):
        self.send(zipped({"other.bin": CONTENT}))


def zipped(members):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return stream.getvalue()


@pytest.fixture
def server(monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "FMI_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    made = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.daemon_threads = True
    made.asked, made.sent, made.patience = [], 0, []
    made.over, made.meeting = threading.Event(), threading.Barrier(3)
    made.handle_error = lambda *_: None  # clients hang up on purpose
    thread = threading.Thread(
        target=made.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
    )
    thread.start()
    monkeypatch.setattr(pooch, "HTTPDownloader", impatient(made))
    yield made
    made.over.set()
    made.shutdown()
    made.server_close()


def impatient(server):
    """Pooch's downloader, which loses its patience with mute addresses soon and with no others.

    So no other address is too slow, however busy the machine is.
    """

    class Downloader(pooch.HTTPDownloader):
        def __call__(self, url, *rest, **more):
            server.patience.append(self.kwargs["timeout"])
            if url.endswith(MUTE):
                self.kwargs["timeout"] = (60, 0.2)
            return super().__call__(url, *rest, **more)

    return Downloader


class Clock:
    """Time for fmi.sources.fetch, in which nothing but waiting takes any."""

    def __init__(self):
        self.now, self.pauses = 0.0, []
        self.hangs, self.over = threading.Event(), threading.Event()

    def monotonic(self):
        return self.now

    def sleep(self, seconds):
        self.pauses.append(seconds)
        self.now += seconds

    def hang(self, *_, **__):
        """A look-up that takes as long as the test."""
        self.hangs.set()
        self.over.wait(120)
        raise socket.gaierror(-3, "Temporary failure in name resolution")

    def thread(self):
        clock = self

        class Thread(threading.Thread):
            def join(self, timeout=None):
                while self.is_alive() and not clock.hangs.is_set():
                    super().join(0.01)
                if self.is_alive():
                    clock.now += timeout

        return Thread


@pytest.fixture
def clock(monkeypatch):
    made = Clock()
    monkeypatch.setattr(fetch, "time", made)
    monkeypatch.setattr(fetch, "threading", types.SimpleNamespace(Thread=made.thread()))
    yield made
    made.over.set()


def source(server, *words, **changes):
    base = f"http://127.0.0.1:{server.server_port}/"
    made = Source(
        name="data",
        kind="models",
        file="data.bin",
        urls=tuple(base + word for word in words),
        size=len(CONTENT),
        digest=f"sha256:{SHA256}",
    )
    return replace(made, **changes)


def closed_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


DIGESTS = {
    "sha256": SHA256,
    "sha1": hashlib.sha1(CONTENT).hexdigest(),
    "md5": hashlib.md5(CONTENT).hexdigest(),
    "git": hashlib.sha1(b"blob 204800\0" + CONTENT).hexdigest(),
}


@pytest.mark.parametrize("words", [["good"], ["pieces"], ["moved"], ["cutonce"]])
def test_right_file(words, server, tmp_path):
    path = fetch.fetch(source(server, *words), tmp_path / "new", QUICK)
    assert path == tmp_path / "new" / "data.bin" and path.read_bytes() == CONTENT
    assert [file.name for file in path.parent.iterdir()] == ["data.bin"]
    assert path.stat().st_mode & 0o777 == 0o644
    assert set(server.patience) == {(QUICK.connect, QUICK.read)}  # for the next bytes, not for all


@pytest.mark.parametrize(
    "bad", ["missing", "broken", "cut", "short", "wrong", "endless", "silent", "stalled", "circle"]
)
def test_second_address(bad, server, tmp_path):
    path = fetch.fetch(source(server, bad, "good"), tmp_path, QUICK)
    assert path.read_bytes() == CONTENT
    assert [file.name for file in tmp_path.iterdir()] == ["data.bin"]


@pytest.mark.parametrize(
    ("bad", "message", "tries"),
    [
        ("missing", "missing: HTTP status 404", 1),
        ("broken", "broken: HTTP status 503", 3),
        ("cut", "cut: the download was interrupted", 3),
        ("short", "short: 100000 bytes with sha256 [0-9a-f]{64}, not " + SHA256, 3),
        ("wrong", "wrong: 204800 bytes with sha256 [0-9a-f]{64}, not " + SHA256, 1),
        ("endless", "endless: .*more bytes than the file has", 1),
        ("stalled", "stalled: .*in time", 3),
        ("silent", "silent: .*in time", 1),  # it has never answered
        ("circle", "circle: Exceeded 30 redirects", None),
    ],
)
def test_no_file(bad, message, tries, server, tmp_path):
    with pytest.raises(FetchError, match=message) as caught:
        fetch.fetch(source(server, bad), tmp_path, QUICK)
    assert list(tmp_path.iterdir()) == []
    assert tries is None or server.asked.count(bad) == tries
    text = str(caught.value)
    assert "\n" not in text
    assert text.startswith(f"data.bin (data, 0.205 MB) is not in {tmp_path} and cannot be fetched")
    by_hand = f"by hand, download http://127.0.0.1:{server.server_port}/{bad} "
    assert by_hand in text and f" as {tmp_path / 'data.bin'} (sha256:{SHA256})" in text
    assert "embedded" in text and text.endswith("(--weights, WEIGHTS=)")
    assert server.sent < 50 << 20


@pytest.mark.parametrize("kind", DIGESTS)
def test_kinds_of_digest(kind, server, tmp_path):
    right = source(server, "good", digest=f"{kind}:{DIGESTS[kind]}")
    assert table.identify(CONTENT, {"data": right}) is right
    assert fetch.fetch(right, tmp_path, QUICK).read_bytes() == CONTENT
    digits = DIGESTS[kind][:-1] + ("0" if DIGESTS[kind][-1] != "0" else "1")
    wrong = source(server, "good", digest=f"{kind}:{digits}", file="other.bin")
    assert table.identify(CONTENT, {"data": wrong}) is None
    with pytest.raises(FetchError, match=f"with {kind} {DIGESTS[kind]}, not {digits}"):
        fetch.fetch(wrong, tmp_path, QUICK)


def test_beginning_of_a_digest(server, tmp_path):
    assert fetch.fetch(source(server, "good", digest=f"sha256:{SHA256[:8]}"), tmp_path, QUICK)


def test_file_inside_a_zip(server, tmp_path):
    packed = source(server, "otherzip", "zip", member="data.bin")
    assert fetch.fetch(packed, tmp_path, QUICK).read_bytes() == CONTENT
    for word in ("otherzip", "good"):
        with pytest.raises(FetchError, match=r"\.zip file .*data\.bin"):
            fetch.fetch(replace(packed, urls=source(server, word).urls, file="b"), tmp_path, QUICK)
    assert [file.name for file in tmp_path.iterdir()] == ["data.bin"]


def test_no_second_download(server, tmp_path, caplog):
    wanted = source(server, "good")
    fetch.fetch(wanted, tmp_path, QUICK)
    fetch.fetch(wanted, tmp_path, QUICK)
    assert server.asked == ["good"]
    (tmp_path / "data.bin").write_bytes(CONTENT[:-1])
    assert fetch.fetch(wanted, tmp_path, QUICK).read_bytes() == CONTENT
    assert f"{tmp_path / 'data.bin'} does not match the digest of data" in caplog.text


def test_failed_download_keeps_the_file_that_is_there(server, tmp_path):
    (tmp_path / "data.bin").write_bytes(b"mine")
    with pytest.raises(FetchError):
        fetch.fetch(source(server, "wrong"), tmp_path, QUICK)
    assert (tmp_path / "data.bin").read_bytes() == b"mine"


def test_no_server(tmp_path, server, clock):
    """Nobody is asked twice, and no time is lost."""
    url = f"http://127.0.0.1:{closed_port()}/x"
    with pytest.raises(FetchError, match=r"127\.0\.0\.1: .*refused"):
        fetch.fetch(replace(source(server), urls=(url, url)), tmp_path, QUICK)
    assert clock.pauses == [0, 0] and clock.now == 0


def test_no_such_name(tmp_path, server, monkeypatch, clock):
    """A look-up that fails at once, and one that hangs, as it can without internet."""
    wanted = replace(source(server), urls=("http://example.invalid/x", "http://b.invalid/x"))

    def fails(*_, **__):
        raise socket.gaierror(-3, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", fails)
    with pytest.raises(FetchError, match="name example.invalid cannot be resolved"):
        fetch.fetch(wanted, tmp_path)
    assert clock.now == 0
    monkeypatch.setattr(socket, "getaddrinfo", clock.hang)
    with pytest.raises(FetchError, match="example.invalid timed out"):
        fetch.fetch(wanted, tmp_path)
    assert not clock.over.is_set()  # it was not waited for


def test_default_patience_without_internet(tmp_path, server, monkeypatch, clock):
    """Ten seconds at most, however many addresses there are."""
    urls = tuple(f"http://{letter}.invalid/x" for letter in "abcdefgh")
    monkeypatch.setattr(socket, "getaddrinfo", clock.hang)
    with pytest.raises(FetchError, match="a.invalid.*b.invalid"):
        fetch.fetch(replace(source(server), urls=urls), tmp_path)
    assert 0 < clock.now < 9.5


def test_offline(server, tmp_path, monkeypatch):
    wanted = source(server, "good")
    monkeypatch.setenv("FMI_OFFLINE", "1")
    with pytest.raises(FetchError, match="network access is disabled"):
        fetch.fetch(wanted, tmp_path, QUICK)
    monkeypatch.setenv("FMI_OFFLINE", "0")
    with pytest.raises(FetchError, match="network access is disabled"):
        fetch.fetch(wanted, tmp_path, QUICK, forbidden=True)
    assert server.asked == [] and list(tmp_path.iterdir()) == []
    fetch.fetch(wanted, tmp_path, QUICK)
    monkeypatch.setenv("FMI_OFFLINE", "1")
    assert fetch.fetch(wanted, tmp_path, QUICK).is_file()  # what is there is used


def test_proxy_of_the_environment(server, tmp_path, monkeypatch):
    """The host does not exist; the proxy answers for it."""
    wanted = replace(source(server), urls=("http://host.invalid/good",))
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{server.server_port}")
    assert fetch.fetch(wanted, tmp_path, QUICK).read_bytes() == CONTENT
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{closed_port()}")
    with pytest.raises(FetchError, match="the proxy cannot be reached"):
        fetch.fetch(replace(wanted, file="b"), tmp_path, QUICK)


FETCHING = f"""
import resource, signal, sys
from fmi.sources import fetch, table
from fmi.errors import FetchError
if sys.argv[3] != "-":
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]),) * 2)
digest = "sha256:{SHA256}"
wanted = table.Source("data", "models", "data.bin", (sys.argv[1],), {len(CONTENT)}, digest)
try:
    from pathlib import Path
    print(fetch.fetch(wanted, Path(sys.argv[2]), fetch.Patience(60, 120, 120)))
except FetchError as error:
    print(error)
    sys.exit(2)
"""


def fetching(server, folder, limit="-"):
    url = f"http://127.0.0.1:{server.server_port}/{'meeting' if limit == '-' else 'good'}"
    return subprocess.Popen(
        [sys.executable, "-c", FETCHING, url, str(folder), limit],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_several_processes_at_once(server, tmp_path):
    running = [fetching(server, tmp_path) for _ in range(3)]
    for process in running:
        out, err = process.communicate(timeout=300)
        assert process.returncode == 0, err
        assert out.strip() == str(tmp_path / "data.bin")
    assert server.asked.count("meeting") == 3
    assert [file.name for file in tmp_path.iterdir()] == ["data.bin"]
    assert (tmp_path / "data.bin").read_bytes() == CONTENT


def test_disk_full_while_writing(server, tmp_path):
    """The system refuses to let the file grow, as a full disk does."""
    process = fetching(server, tmp_path, limit="100000")
    out, err = process.communicate(timeout=300)
    assert process.returncode == 2, err
    assert out.startswith(f"{tmp_path / 'data.bin'} cannot be written: File too large")
    assert list(tmp_path.iterdir()) == []


def test_disk_full_before(server, tmp_path):
    with pytest.raises(FetchError, match="cannot be written: No space left on device"):
        fetch.fetch(source(server, "good", size=1 << 60), tmp_path, QUICK)
    assert server.asked == []


def test_folder_that_cannot_be_made(server, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FetchError, match="cannot be written: (Not a directory|File exists)"):
        fetch.fetch(source(server, "good"), tmp_path / "file", QUICK)


def test_interrupted(server, tmp_path, monkeypatch):
    """Ctrl-C leaves nothing behind."""

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(fetch._Sink, "write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fetch.fetch(source(server, "good"), tmp_path, QUICK)
    assert list(tmp_path.iterdir()) == []


def test_tables():
    names = set()
    for kind, entries in (("models", table.models()), ("pictures", table.pictures())):
        for name, entry in entries.items():
            assert entry.name == name and entry.kind == kind and entry.file not in names
            names.add(entry.file)
            digest_kind, digits = entry.digest.split(":")
            assert len(digits) == {"sha256": 64, "sha1": 40, "md5": 32, "git": 40}[digest_kind] or (
                digest_kind == "sha256" and len(digits) >= 8
            )
            int(digits, 16)
            assert all(url.startswith("https://") for url in entry.urls)
            assert entry.urls or entry.pypi
            assert entry.size > 1000 and entry.title and entry.author and entry.year > 1800
            assert entry.licence and (kind == "models" or entry.copyright)
            assert kind == "pictures" or entry.layout in table.layouts()
    assert len(table.pictures()) == 6
    assert table.models()["vgg19"].default


def test_real_pictures_have_the_digests(real_pictures):
    for entry in table.pictures().values():
        path = real_pictures / entry.file
        assert entry.matches(path) and path.stat().st_size == entry.size


def test_folders(tmp_path, monkeypatch):
    monkeypatch.setenv("FMI_MODELS", f"{tmp_path}/a:{tmp_path}/b")
    found = table.folders("models")
    assert found[:2] == [tmp_path / "a", tmp_path / "b"]
    assert found[-1].name == "models" and "fmi" in found[-1].parts
    assert table.find(table.models()["vgg19-keras"]) is None
    (tmp_path / "b").mkdir()
    file = tmp_path / "b" / table.models()["vgg19-keras"].file
    file.write_bytes(b"")
    assert table.find(table.models()["vgg19-keras"]) == file


def run(*arguments, **environment):
    """`fmi` in a process of its own, in which MXNet cannot be imported."""
    code = "import sys; sys.modules['mxnet'] = None; from fmi.cli import main; sys.exit(main())"
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )


@pytest.mark.parametrize("words", [["weights", "fetch", "vgg19"], ["pictures", "fetch"]])
@pytest.mark.parametrize("way", ["offline", "variable", "no internet"])
def test_command_without_internet(words, way, tmp_path):
    """One line, status 2; a dead proxy stands for a machine without internet."""
    environment = {
        "offline": {},
        "variable": {"FMI_OFFLINE": "1"},
        "no internet": {"https_proxy": f"http://127.0.0.1:{closed_port()}"},
    }[way]
    flag = ["--offline"] if way == "offline" else []
    done = run(*words, "--folder", str(tmp_path), *flag, **environment)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.count("\n") == 1 and done.stderr.startswith("fmi: ")
    url = "https://raw.githubusercontent.com/"
    assert f"by hand, download {url}" in done.stderr and str(tmp_path) in done.stderr
    go_on = "embedded" if words[0] == "weights" else "path of a picture of your own"
    assert go_on in done.stderr


def test_command_fetches(server, tmp_path, monkeypatch, capsys):
    entries = {"data": source(server, "good"), "more": source(server, "moved", file="more.bin")}
    monkeypatch.setattr(table, "pictures", lambda: entries)
    level = logging.getLogger().level
    assert cli.main(["pictures", "fetch", "--folder", str(tmp_path)]) == 0
    logging.getLogger().setLevel(level)
    assert capsys.readouterr().out.split() == [str(tmp_path / n) for n in ("data.bin", "more.bin")]
    assert (tmp_path / "more.bin").read_bytes() == CONTENT
    assert cli.main(["pictures", "fetch", "dat"]) == 2
    assert "unknown source 'dat'; did you mean data?" in capsys.readouterr().err


def test_command_lists_pictures(tmp_path):
    done = run("pictures", "list", FMI_PICTURES=str(tmp_path))
    assert done.returncode == 0
    for name, entry in table.pictures().items():
        assert f"{name}: {entry.title}" in done.stdout and entry.urls[0] in done.stdout


def test_package_finds_its_tables(tmp_path):
    """As a wheel lays them out: the tables inside the package, no checkout around it."""
    package = tmp_path / "fmi"
    (package / "models").mkdir(parents=True)
    root = Path(table.__file__).parents[1]
    for file in root.rglob("*.py"):
        target = package / file.relative_to(root)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(file.read_bytes())
    for file in table.table_folder().glob("*.yaml"):
        (package / "models" / file.name).write_bytes(file.read_bytes())
    code = (
        "import json; from fmi.sources import table;"
        "print(json.dumps([table.__file__, list(table.models()),"
        " str(table.destination('models')), len(table.folders('models'))]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "c")},
    )
    file, names, folder, count = json.loads(done.stdout)
    assert Path(file).parents[1] == package and "vgg19" in names
    assert Path(folder) == tmp_path / "c" / "fmi" / "models"
    assert count == 1 + len(table.named_folders("models"))


def test_unknown_source():
    with pytest.raises(InputError, match="unknown source 'vgg18'; did you mean vgg19"):
        table.get(table.models(), "vgg18")


def test_limit_on_file_size_is_real(tmp_path):
    """The stand-in for a full disk does refuse."""
    code = (
        "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10));"
        f"open({str(tmp_path / 'x')!r}, 'wb', buffering=0).write(bytes(10)); print('ten')\n"
        f"with open({str(tmp_path / 'y')!r}, 'wb') as file: file.write(bytes(11))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "ten\n" and "File too large" in done.stderr
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY


def test_a_server_that_accepts_and_never_answers(server, tmp_path):
    """It is not asked again, and no other address is tried: what swallows one swallows all."""
    limits = Patience(connect=1, read=60, first=1.1, tries=3, pause=60)
    began = time.monotonic()
    with pytest.raises(FetchError, match="did not respond in time"):
        fetch.fetch(source(server, "silent", "silent", "silent"), tmp_path, limits)
    assert time.monotonic() - began < 20
    assert server.asked.count("silent") == 1
