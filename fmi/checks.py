"""Checks of values that users give, with pydantic; violations become :class:`InputError`."""

from __future__ import annotations

import functools
import re
from typing import Any, List, Tuple

import numpy as np
from pydantic import AfterValidator, BeforeValidator, Field, TypeAdapter, ValidationError
from typing_extensions import Annotated

from fmi.errors import InputError, shown, unknown

__all__ = [
    "Count",
    "Days",
    "Filters",
    "FromText",
    "Index",
    "Layers",
    "Memory",
    "Names",
    "Numbers",
    "Processes",
    "Seed",
    "Strength",
    "Text",
    "Weights",
    "checked",
    "number",
    "refusal",
]

RANGE = re.compile(r"\s*([0-9]{1,9})\s*-\s*([0-9]{1,9})\s*")
LONGEST = 10_000  # range of numbers
# Texts for the most frequent errors of pydantic, which fills in {ge} and so on.
MESSAGES = {
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_parsing_size": "must be a whole number with fewer digits",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "finite_number": "must be a finite number",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "string_type": "must be text",
    "string_unicode": "must be text in UTF-8",
    "string_pattern_mismatch": "must be text like {pattern}",
    "dict_type": "must have named entries",
    "model_type": "must have named entries",
    "list_type": "must be a list",
    "tuple_type": "must be a list",
    "too_short": "must have at least {min_length} item",
    "too_long": "must have at most {max_length} item",
    "greater_than_equal": "must be at least {ge}",
    "greater_than": "must be greater than {gt}",
    "less_than_equal": "must be at most {le}",
    "less_than": "must be less than {lt}",
    "value_error": "{error}",
}


def refusal(name: str, value: object, error: ValidationError, example: object = None) -> InputError:
    """Return the error for `name`, whose `value` pydantic has refused.

    An example is added to the message if the value does not even have the right type.
    """
    first = error.errors(include_url=False)[0]
    if first["loc"] and isinstance(first["loc"][-1], int):  # one item of a list
        value = first["input"]
    context = {
        key: f"{text:g}" if isinstance(text, float) else str(text)
        for key, text in first.get("ctx", {}).items()
    }
    if first["type"] == "literal_error":
        known = context["expected"].replace(" or ", ", ").replace("'", "").split(", ")
        if isinstance(value, str) and len(value) < 80:
            return unknown(name, value, known)
        return InputError(f"{name}={shown(value)} must be one of {', '.join(known)}")
    known_text = MESSAGES.get(first["type"])
    text = known_text.format(**context) if known_text else f"is not valid: {first['msg']}"
    if example is not None and first["type"].endswith(("_type", "_parsing", "_from_float")):
        text += f", such as {example!r}"
    return InputError(f"{name}={shown(value)} {text}")


@functools.lru_cache(maxsize=None)
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def checked(name: str, value: Any, kind: Any) -> Any:
    """Convert a value to a type, and check it.

    Parameters
    ----------
    name
        Name of the keyword or key, for the message.
    value
        Value as given by the user. Text, as from the command line, is converted.
    kind
        A type that pydantic knows, such as those of this module.

    Raises
    ------
    InputError
        If the value does not have this type or violates one of its bounds.
    """
    try:
        return _adapter(kind).validate_python(value)
    except ValidationError as error:
        raise refusal(name, value, error) from None


def number(value: Any) -> Any:
    """Refuse truth values, which Python counts as integers, and unwrap NumPy's scalars."""
    if isinstance(value, (bool, np.bool_)):
        raise ValueError("must be a number, not a truth value")
    if isinstance(value, int) and abs(value) > 2**63:  # more digits than pydantic can print
        raise ValueError("must be a number with fewer digits")
    return value.item() if isinstance(value, np.generic) else value


def _index(value: Any) -> Any:
    """Refuse text and floating-point numbers too: there is no filter 0.5."""
    if isinstance(value, (str, bytes, float, np.floating)):
        raise ValueError("must be a whole number")
    return number(value)


def _from_text(value: Any) -> Any:
    """Convert the text of a whole number, as from the command line."""
    whole = isinstance(value, str) and re.fullmatch(r"\s*-?\d{1,18}\s*", value)
    return int(value) if whole else value


def _items(value: Any) -> Any:
    """Split text, as from the command line, at its commas."""
    return value.split(",") if isinstance(value, str) else value


def _numbers(value: Any) -> Any:
    """Split text at its commas, and write out ranges: ``"0-2,17"`` is 0, 1, 2, 17."""
    items = _items(value)
    if not isinstance(items, (list, tuple)):
        return items
    found: List[Any] = []
    for item in items:
        ends = RANGE.fullmatch(item) if isinstance(item, str) else None
        if ends is None:
            item = _from_text(item)
            if isinstance(item, str):
                raise ValueError("must be whole numbers, or ranges such as 0-15")
            found.append(item)
            continue
        low, high = map(int, ends.groups())
        if not low <= high < low + LONGEST:
            raise ValueError(f"must have ranges such as 0-15, of at most {LONGEST} numbers")
        found += range(low, high + 1)
    return found


def _several(value: Any) -> Any:
    """Refuse a single value that is no text."""
    if not hasattr(value, "__iter__"):
        raise ValueError("must be a name such as 'relu3_2', or a list of names")
    return value


def _one_or_several(value: Any) -> Any:
    """Put a single number into a list; turn text and one-dimensional arrays into one."""
    if isinstance(value, str):
        return _numbers(value)
    if isinstance(value, np.ndarray) and value.ndim == 1:
        return value.tolist()
    if isinstance(value, (np.ndarray, set, frozenset)):
        raise ValueError("must be a whole number or a list of whole numbers")
    return [value] if isinstance(value, (bool, int, float, np.generic)) else value


def _possible(value: str) -> str:
    if not value:
        raise ValueError("must not be empty")
    if "\0" in value:
        raise ValueError("must not contain a null character")
    return value


Text = Annotated[str, AfterValidator(_possible)]  # may be a file name that is not UTF-8
Names = Annotated[Tuple[Text, ...], BeforeValidator(_items), Field(min_length=1)]
Layers = Annotated[Tuple[Text, ...], BeforeValidator(_several), Field(min_length=1)]
Index = Annotated[int, BeforeValidator(_index)]
Count = Annotated[int, BeforeValidator(_index), Field(ge=1, le=100_000)]
Processes = Annotated[int, BeforeValidator(_index), Field(ge=1, le=256)]
Seed = Annotated[int, BeforeValidator(_index), Field(ge=0, le=2**32 - 1)]
FromText = BeforeValidator(_from_text)
Filters = Annotated[Tuple[Annotated[Index, FromText], ...], BeforeValidator(_one_or_several)]
Numbers = Annotated[Tuple[Index, ...], BeforeValidator(_numbers), Field(min_length=1)]
Memory = Annotated[float, BeforeValidator(number), Field(gt=0, allow_inf_nan=False)]
Strength = Annotated[float, BeforeValidator(number), Field(ge=0, le=1, allow_inf_nan=False)]
Weights = Annotated[
    Tuple[
        Annotated[float, BeforeValidator(number), Field(ge=0, le=1e12, allow_inf_nan=False)], ...
    ],
    BeforeValidator(_items),
    Field(min_length=1),
]
Days = Annotated[Index, FromText, Field(ge=0, le=100_000)]
