"""Ctrl-C and SIGTERM: end in order, with one line and never with a traceback."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from types import FrameType
from typing import Any, Callable, Dict, Iterator, Optional, TypeVar

__all__ = ["INTERRUPTED", "Stop", "handled"]

INTERRUPTED = "fmi: interrupted; finished panels are kept, run the command again to resume"
SIGNALS = (signal.SIGINT, signal.SIGTERM)
PAUSE = 0.05  # seconds until a KeyboardInterrupt that Python has swallowed is raised again

T = TypeVar("T")


class Stop:
    """The signal handler: it raises KeyboardInterrupt, but only where the caller expects it.

    While modules are imported, when nothing has been begun, it ends the process instead: libraries
    convert or swallow an exception that is raised while they initialise.
    """

    def __init__(self) -> None:
        self.number = 0  # the last signal
        self._timer: Optional[threading.Timer] = None
        self._function: Optional[Callable[..., Any]] = None

    @property
    def status(self) -> int:
        """The exit status: 143 after SIGTERM, else 130."""
        return 128 + (self.number or signal.SIGINT)

    def call(self, function: Callable[..., T], *arguments: Any) -> T:
        """Call a function in which signals raise KeyboardInterrupt; elsewhere they are noted."""
        self._function = function
        if self.number:
            raise KeyboardInterrupt
        return function(*arguments)

    def handle(self, number: int, frame: Optional[FrameType]) -> None:
        """Handle a signal."""
        self.number = number
        if _importing(frame):
            with contextlib.suppress(OSError):
                os.write(2, f"{INTERRUPTED}\n".encode())
            os._exit(self.status)
        if self._function and _runs(self._function, frame):
            raise KeyboardInterrupt

    def unraisable(self, found: Any) -> bool:
        """Return whether an ignored exception was the interrupt, and if so, repeat it."""
        if not (self.number and issubclass(found.exc_type, KeyboardInterrupt)):
            return False
        self._timer = threading.Timer(PAUSE, os.kill, (os.getpid(), self.number))
        self._timer.daemon = True
        self._timer.start()
        return True

    def cancel(self) -> None:
        """Do not repeat the interrupt."""
        if self._timer:
            self._timer.cancel()


@contextlib.contextmanager
def handled(ends: bool) -> Iterator[Stop]:
    """Handle the signals inside the ``with`` statement, if this is the main thread.

    Parameters
    ----------
    ends
        Whether the process is about to end afterwards. If so, another signal ends it at once, else
        the previous handlers are restored.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    hook = sys.unraisablehook
    previous: Dict[signal.Signals, Any] = {}
    for number in SIGNALS:
        if signal.getsignal(number) not in (signal.SIG_IGN, None):  # nohup; not Python's
            previous[number] = signal.signal(number, stop.handle)
    sys.unraisablehook = lambda found: None if stop.unraisable(found) else hook(found)
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, signal.SIG_DFL if ends else handler)
        stop.cancel()
        sys.unraisablehook = hook


def _importing(frame: Optional[FrameType]) -> bool:
    """Return whether the innermost function of the command line is importing a module."""
    inner = ""
    while frame is not None:
        if str(frame.f_globals.get("__name__")).startswith("fmi.cli"):
            return inner.startswith("<frozen importlib")
        inner, frame = frame.f_code.co_filename, frame.f_back
    return False


def _runs(function: Callable[..., Any], frame: Optional[FrameType]) -> bool:
    """Return whether a function is being executed."""
    while frame is not None:
        if frame.f_code is function.__code__:
            return True
        frame = frame.f_back
    return False
