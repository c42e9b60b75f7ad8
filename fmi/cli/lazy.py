"""Commands whose options are added when they are needed, since that imports slow modules."""

from __future__ import annotations

import argparse
import difflib
from typing import Any, Callable, Optional

from fmi.errors import MEANT

__all__ = ["Command"]


class Command(argparse.ArgumentParser):
    """A parser that adds its options before it parses, or shows its help, for the first time.

    Attributes
    ----------
    fill
        Function that adds the options to the parser; ``None`` if that is done.
    mixed
        Whether options may stand between positional arguments, such as FILE --option KEY=VALUE.
    """

    fill: Optional[Callable[[argparse.ArgumentParser], None]] = None
    mixed: bool = False

    def filled(self) -> Command:
        """Add the options, and return the parser."""
        fill, self.fill = self.fill, None
        if fill is not None:
            fill(self)
        return self

    def parse_known_args(self, *arguments: Any, **options: Any) -> Any:  # noqa: D102
        self.filled()
        if self.mixed:
            self.mixed = False  # it is called by the next function
            try:
                return self.parse_known_intermixed_args(*arguments, **options)
            finally:
                self.mixed = True
        chosen, rest = super().parse_known_args(*arguments, **options)
        strange = [word for word in rest if word.startswith("--") and word != "--"]
        if strange:
            every = [word for action in self._actions for word in action.option_strings]
            known = [word[2:] for word in every if word.startswith("--")]  # dashes are in all
            word = strange[0].partition("=")[0][2:]
            meant = MEANT.get(word, "").replace("_", "-")
            near = [meant] if meant in known else difflib.get_close_matches(word, known)
            hint = f"; did you mean --{' or --'.join(near)}?" if near else ""
            self.error(f"unrecognized arguments: {' '.join(rest)}{hint}")
        return chosen, rest

    def format_help(self) -> str:  # noqa: D102
        self.filled()
        return super().format_help()

    def format_usage(self) -> str:  # noqa: D102
        self.filled()
        return super().format_usage()
