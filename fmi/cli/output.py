"""Standard output and standard error that may be closed, full, or unable to show a character."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import Any, Iterator, TextIO

from fmi.errors import FmiError

__all__ = ["BROKEN_PIPE", "Output", "OutputError", "ReaderGone", "redirected", "tell"]

BROKEN_PIPE = 141  # what a shell reports for a program that SIGPIPE has ended


class OutputError(FmiError):
    """Standard output cannot be written."""


class ReaderGone(OutputError):
    """The program that reads standard output has ended, such as ``head``."""


class Output:
    """Standard output with errors as :class:`OutputError`; it escapes what it cannot encode."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write a text."""
        with _reported(self._stream):
            return self._stream.write(_encodable(text, self._stream))

    def flush(self) -> None:
        """Write what is in the buffer."""
        with _reported(self._stream):
            self._stream.flush()


@contextlib.contextmanager
def redirected() -> Iterator[None]:
    """Replace ``sys.stdout`` by an :class:`Output` inside a ``with`` statement, then flush it.

    Raises
    ------
    OutputError
        If standard output is closed or cannot be written.
    """
    out, err = sys.stdout, sys.stderr
    for number in range(3):
        _occupy(number)
    if err is None:  # it is closed
        sys.stderr = open(os.devnull, "w")  # noqa: PTH123, SIM115
    try:
        if out is None:
            raise OutputError(_unwritable("it is closed"))
        sys.stdout = Output(out)  # type: ignore[assignment]
        try:
            yield
        finally:
            sys.stdout.flush()
    finally:
        _flush(sys.stderr)
        sys.stdout, sys.stderr = out, err


def tell(message: str) -> None:
    """Write a line to standard error if that is possible, with control characters escaped."""
    stream = sys.stderr
    if stream is None:
        return
    shown = "".join(c if c == "\n" or c.isprintable() else ascii(c)[1:-1] for c in message)
    try:
        stream.write(_encodable(f"{shown}\n", stream))
    except (OSError, ValueError):
        _discard(stream)
    _flush(stream)


def _unwritable(why: str) -> str:
    return f"standard output cannot be written: {why}"


@contextlib.contextmanager
def _reported(stream: TextIO) -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        _discard(stream)
        raise ReaderGone(_unwritable("its reader has ended")) from None
    except (OSError, ValueError) as error:  # ValueError: the stream has been closed
        _discard(stream)
        raise OutputError(_unwritable(getattr(error, "strerror", None) or str(error))) from None


def _encodable(text: str, stream: TextIO) -> str:
    """Return the text with characters escaped that the stream cannot encode."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    try:
        text.encode(encoding, getattr(stream, "errors", None) or "strict")
    except UnicodeEncodeError:
        return text.encode(encoding, "backslashreplace").decode(encoding)
    return text


def _flush(stream: TextIO) -> None:
    try:
        stream.flush()
    except (OSError, ValueError):
        _discard(stream)


def _discard(stream: TextIO) -> None:
    """Discard what is in the buffer, which Python would otherwise try to write again at its end."""
    with contextlib.suppress(OSError, ValueError):  # it has no file descriptor
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def _occupy(number: int) -> None:
    """Open a closed file descriptor, or the next file to be opened would be taken for a stream."""
    try:
        os.fstat(number)
    except OSError:
        opened = os.open(os.devnull, os.O_RDWR)
        if opened != number:
            os.dup2(opened, number)
            os.close(opened)
