"""Records: which of their entries shape a picture, and the key that names it."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any, Dict, Mapping

__all__ = ["IGNORED", "key", "renamed", "shaping"]

# Entries of records that do not shape a result: names, and versions covered by `fmi_source`.
NAMES = {
    "network": ("name", "source", "verified", "embedded", "default_settings"),
    "content": ("name",),
    "style": ("name",),
}
IGNORED = {**NAMES, "settings": ("preset", "batch"), "versions": ("fmi", "python")}
NUMBERED = re.compile(r"_\d+$")  # style_2, style_3 ...
REASON = "precision_reason"  # the precision itself shapes the result
LATER = ("outcome", "loss", "silent_feature_maps", "key")  # not known before the computation


def shaping(record: Mapping[str, Any]) -> Dict[str, Any]:
    """Return the entries of a record that shape its picture."""
    found = {}
    for name, value in record.items():
        if name not in (REASON, *LATER):
            left_out = IGNORED.get(NUMBERED.sub("", name), ())
            if isinstance(value, Mapping):
                value = shaping({k: v for k, v in value.items() if k not in left_out})
            found[name] = value
    return found


def renamed(record: Mapping[str, Any], asked: Mapping[str, Any]) -> Dict[str, Any]:
    """Return a stored record with the names of another one that has the same key."""
    found = {}
    for name, value in record.items():
        own = asked.get(name)
        if isinstance(value, Mapping) and isinstance(own, Mapping):
            names = NAMES.get(NUMBERED.sub("", name), ())
            value = renamed({**value, **{k: own[k] for k in names if k in own}}, own)
        found[name] = value
    return found


def key(record: Mapping[str, Any]) -> str:
    """Return the name of a result: a sha256 of all that shapes it."""
    text = json.dumps(shaping(record), sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
