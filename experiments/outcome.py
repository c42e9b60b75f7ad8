"""What the scripts do with an inversion that did not come to its end."""

from __future__ import annotations

from typing import List

from fmi.errors import InputError
from fmi.invert import Inversion


def finished(found: List[Inversion]) -> List[Inversion]:
    """Return inversions that came to their end, whose numbers can be recorded.

    Raises
    ------
    KeyboardInterrupt
        If one was interrupted.
    InputError
        If one diverged.
    """
    for inversion in found:
        if inversion.stopped == "interrupted":
            raise KeyboardInterrupt
        if inversion.stopped == "diverged":
            place = {k: inversion.record[k] for k in ("layers", "filter") if k in inversion.record}
            raise InputError(f"an inversion diverged ({place}); lower learning_rate")
    return found
