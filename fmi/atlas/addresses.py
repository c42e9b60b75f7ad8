"""Addresses: the names of files and folders in an atlas, which are stable and safe in URLs."""

from __future__ import annotations

import hashlib
import re

__all__ = ["RESERVED", "slug"]

RESERVED = ("index", "pictures", "static")  # names of the atlas itself
LONGEST = 60  # characters
DIGESTED = re.compile("(.*-)?[0-9a-f]{8}")  # what the address of another name may look like


def slug(name: str) -> str:
    """Return a name as it stands in an address: letters, digits, ``_``, ``-`` and ``.`` alone.

    Names that are changed get the beginning of their digest, and so do names that seem to end in
    one, so that no two names share an address, and no address depends on what else the atlas holds.

    >>> slug("relu3_2")
    'relu3_2'
    >>> slug("my picture")
    'my-picture-242a528c'
    """
    plain = re.sub(r"[^A-Za-z0-9_.-]+", "-", name)[:LONGEST].lstrip(".-")
    taken = plain.lower() in RESERVED or DIGESTED.fullmatch(plain)
    if plain and plain == name and not taken:
        return plain
    digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:8]
    return f"{plain}-{digest}" if plain else digest
