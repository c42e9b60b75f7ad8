"""The help of scripts that take ``KEY=VALUE`` words: the docstring of their module."""

from __future__ import annotations

import sys
from typing import Optional, Sequence


def helped(arguments: Sequence[str], about: Optional[str]) -> bool:
    """Print the help of a script, if it is asked for.

    Parameters
    ----------
    arguments
        The words that the script is called with.
    about
        The docstring of its module.

    Returns
    -------
    bool
        Whether ``-h`` or ``--help`` is among the words, so that nothing else is to be done.
    """
    if not {"-h", "--help"} & set(arguments):
        return False
    sys.stdout.write(f"{(about or '').strip()}\n")
    return True
