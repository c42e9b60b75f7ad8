"""Errors that the user can fix: each message says what is wrong, where, and what to do next."""

from __future__ import annotations

import difflib
import reprlib
from typing import Iterable

__all__ = [
    "MEANT",
    "SHOWN",
    "FetchError",
    "FmiError",
    "InputError",
    "SetupError",
    "brief",
    "shown",
    "unknown",
]

SHOWN = 20  # largest number of names in a message
LONGEST = 100  # largest number of characters of a value or a path in a message
MEANT = {  # other words for what fmi calls so
    "content": "pictures",
    "image": "pictures",
    "images": "pictures",
    "size": "long_edge",
    "iterations": "steps",
    "lr": "learning_rate",
    "device": "ctx",
    "model": "network",
}


class FmiError(Exception):
    """Base class of the errors below; the command line prints them and exits with status 2."""


class InputError(FmiError, ValueError):
    """An argument cannot be used: a picture, a layer, a setting or a weights file."""


class SetupError(FmiError, ImportError):
    """MXNet cannot run in this environment: a package is missing or two packages conflict."""


class FetchError(FmiError, OSError):
    """A file cannot be downloaded, or cannot be written after the download."""


def brief(text: object) -> str:
    """Return a text for a message, such as a path, shortened in the middle if it is long."""
    whole, half = str(text), LONGEST // 2
    return whole if len(whole) <= LONGEST else f"{whole[:half]}...{whole[-half:]}"


def shown(value: object) -> str:
    """Return the ``repr`` of any value for a message, in one line, shortened if it is long."""
    try:
        text = repr(value) if isinstance(value, str) else reprlib.repr(value)
    except Exception:  # for example a whole number with too many digits for Python
        text = f"a value of type {type(value).__name__}"
    return brief(" ".join(text.split()))


def unknown(kind: str, name: object, known: Iterable[str]) -> InputError:
    """Return an :class:`InputError` for an unknown name that suggests the closest known names.

    Parameters
    ----------
    kind
        What the name refers to, such as ``"layer"``.
    name
        The unknown name.
    known
        The names that exist, in the order in which to list them.
    """
    names = list(dict.fromkeys(known))
    meant = MEANT.get(str(name).lower(), "")
    meant = meant.upper() if str(name).isupper() else meant
    near = (
        [meant]
        if meant in names
        else difflib.get_close_matches(str(name)[:LONGEST], names, n=3, cutoff=0.6)
    )
    some = names if len(names) <= SHOWN else [*names[:SHOWN], f"... ({len(names)} in all)"]
    hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(some)}"
    return InputError(f"unknown {kind} {shown(name)}; {hint}")
