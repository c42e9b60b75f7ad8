"""Records: which of their entries shape a picture, and the key that names it."""

from __future__ import annotations

import hashlib
import json
from typing import Any, Dict, Mapping

__all__ = ["IGNORED", "key", "shaping"]

# Entries of records that do not shape a result: names, and versions covered by `fmi_source`.
IGNORED = {
    "settings": ("preset", "batch"),
    "network": ("name", "source", "verified", "embedded", "default_settings"),
    "versions": ("fmi", "python"),
    "content": ("name",),
    "style": ("name",),
}
REASON = "precision_reason"  # the precision itself shapes the result
LATER = ("outcome", "loss", "silent_feature_maps", "key")  # not known before the computation


def shaping(record: Mapping[str, Any]) -> Dict[str, Any]:
    """Return the entries of a record that shape its picture."""
    found = {}
    for name, value in record.items():
        if name not in (REASON, *LATER):
            left_out = IGNORED.get(name, ())
            if isinstance(value, Mapping):
                value = shaping({k: v for k, v in value.items() if k not in left_out})
            found[name] = value
    return found


def key(record: Mapping[str, Any]) -> str:
    """Return the name of a result: a sha256 of all that shapes it."""
    text = json.dumps(shaping(record), sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
