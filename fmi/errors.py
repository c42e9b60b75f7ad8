"""What can go wrong that a person can mend: the message says what, where, and what to do next."""

from __future__ import annotations

import difflib
from typing import Iterable

SHOWN = 40  # names in a message


class FmiError(Exception):
    """Base of the errors below; the command line prints them as one line and exits with 2."""


class InputError(FmiError, ValueError):
    """Something handed over cannot be used: a picture, a layer, a setting, a weights file."""


class SetupError(FmiError, ImportError):
    """The environment is not fit for MXNet: a package is missing or two are in conflict."""


class FetchError(FmiError, OSError):
    """A file cannot be fetched from the network, or not be written."""


def unknown(kind: str, name: object, known: Iterable[str]) -> InputError:
    """An :class:`InputError` for a name that does not exist, with the nearest ones that do.

    Parameters
    ----------
    kind
        What the name should have named, such as ``"layer"``.
    name
        The name as it was given.
    known
        The names that exist, in their natural order.
    """
    names = list(known)
    near = difflib.get_close_matches(str(name), names, n=3, cutoff=0.5)
    some = names if len(names) <= SHOWN else [*names[:SHOWN], f"... ({len(names)} in all)"]
    hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(some)}"
    return InputError(f"unknown {kind} {name!r}; {hint}")
