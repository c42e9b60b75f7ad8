"""Signatures: every keyword of the public functions spelled out, from the dataclasses they fill.

The dataclasses stay the one place where a keyword, its type and its default stand.
:func:`spelled_out` puts them into what ``help``, Jupyter's Shift-Tab and ``inspect`` show;
``python -m fmi.signatures`` writes them into :mod:`fmi.keywords`, which type checkers and editors
read.
"""

from __future__ import annotations

import dataclasses
import inspect
import sys
from typing import Any, Callable, Dict, List, TypeVar

from typing_extensions import get_type_hints

from fmi.call import Options
from fmi.settings import Settings, Transfer, overridable

__all__ = ["keywords", "module", "settings", "spelled_out"]

F = TypeVar("F", bound=Callable[..., Any])


def keywords(transfer: bool = False) -> List[inspect.Parameter]:
    """The keywords of all functions, or of style transfer, with their types and defaults.

    A setting's default is ``None``, which stands for the value of the preset.
    """
    found = []
    for field in dataclasses.fields(Options):
        found.append(_keyword(field.name, str(field.type), field.default))
    for name, kind in settings(transfer).items():
        found.append(_keyword(name, f"Optional[{kind}]", None))
    return found


def settings(transfer: bool = False) -> Dict[str, str]:
    """The settings that are keywords, and their types."""
    kinds = {**get_type_hints(Settings), **get_type_hints(Transfer)}
    names = [*overridable(), *(overridable(Transfer) if transfer else ())]
    return {name: _written(kinds[name]) for name in names}


def _written(kind: Any) -> str:
    """Return a type as it is written in source code."""
    return (
        kind.__name__
        if isinstance(kind, type)
        else str(kind).replace("typing.", "").replace("'", '"')
    )


def _keyword(name: str, kind: str, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)


def spelled_out(transfer: bool = False) -> Callable[[F], F]:
    """Show all keywords of a function in place of ``**keywords``.

    Parameters
    ----------
    transfer
        Whether it takes the fields of :class:`fmi.settings.Transfer` too.
    """

    def decorate(function: F) -> F:
        signature = inspect.signature(function)
        own = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
        names = {parameter.name for parameter in own}
        more = [parameter for parameter in keywords(transfer) if parameter.name not in names]
        shown = signature.replace(parameters=[*own, *more])
        function.__signature__ = shown  # type: ignore[attr-defined]
        return function

    return decorate


HEAD = '''\
"""Keywords of the public functions for type checkers and editors; from fmi/signatures.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Optional, Tuple, TypedDict, Union

from fmi import descent
from fmi.call import Init
from fmi.device.mxnet import Context
from fmi.device.precision import Precision
from fmi.inversion import Keeper
from fmi.networks.base import Input
from fmi.networks.weights import Weights
from fmi.pictures import Source
from fmi.settings import Settings

__all__ = ["Keywords", "SeededKeywords", "TransferKeywords"]
'''


def module() -> str:
    """The text of :mod:`fmi.keywords`."""
    common = [(f.name, str(f.type)) for f in dataclasses.fields(Options) if f.name != "seed"]
    common += [(name, f"Optional[{kind}]") for name, kind in settings().items()]
    more = {n: k for n, k in settings(transfer=True).items() if n not in settings()}
    own = [(name, f"Optional[{kind}]") for name, kind in more.items()]
    classes = [
        ("Keywords(TypedDict, total=False)", "Keywords of all functions.", common),
        ("SeededKeywords(Keywords, total=False)", "The same, and the seed.", [("seed", "int")]),
        ("TransferKeywords(SeededKeywords, total=False)", "Those of style transfer.", own),
    ]
    text = HEAD
    for head, about, fields in classes:
        text += f'\n\nclass {head}:\n    """{about}"""\n\n'
        text += "".join(f"    {name}: {kind}\n" for name, kind in fields)
    return text


if __name__ == "__main__":
    sys.stdout.write(module())
