"""The site: the pages and pictures of an atlas, written into one folder."""

from __future__ import annotations

import json
import logging
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

import jinja2
import numpy as np
from markupsafe import Markup
from PIL import Image
from tqdm.auto import tqdm

import fmi
from fmi import files
from fmi.atlas import curves, measures, tiles
from fmi.atlas.addresses import slug
from fmi.atlas.contents import FILE, Contents, Natural, Shown, crop
from fmi.atlas.measures import MEASURES, Appearance, State
from fmi.errors import InputError, brief
from fmi.evidence import crops
from fmi.evidence.textures import OrientedBands
from fmi.inversion import Inversion
from fmi.networks.base import Layer

__all__ = [
    "CROPS",
    "MARK",
    "NEIGHBOURS",
    "Entry",
    "Filter",
    "check_out",
    "exact",
    "number",
    "write",
]

log = logging.getLogger(__name__)

HERE = Path(__file__).parent
MARK = "atlas.json"  # by which a folder is known to be an atlas
FORMAT = "fmi atlas 1"
CROPS = 8  # natural crops beside a texture
PER_PHOTOGRAPH = 2  # of them, so that one brick wall is not all that there is
NEIGHBOURS = 8  # similar textures, of the same layer and of others
STRIP = 12  # tiles of a layer on the front page
DIGITS = 3  # of measured numbers
LONG = 40  # characters of a value that gets a line of its own
QUALITY = {"texture": 92, "tile": 82}  # of JPEG


@dataclass(frozen=True)
class Entry:
    """A panel as the atlas shows it.

    Attributes
    ----------
    picture
        The content picture.
    key
        Its name in the store.
    state
        One of :class:`fmi.atlas.measures.State`.
    size
        Width and height in pixels.
    outcome
        How the descent ended (:meth:`fmi.inversion.Inversion.describe`), and its seconds.
    record
        The record of the inversion.
    appearance, descriptor
        Numbers about the panel, and its texture.
    curve
        The loss as SVG.

    Of a panel that is missing, all after `state` is empty.
    """

    picture: Shown
    key: str
    state: str
    size: Tuple[int, int] = (0, 0)
    outcome: Optional[Mapping[str, Any]] = None
    record: Optional[Mapping[str, Any]] = None
    appearance: Optional[Appearance] = None
    descriptor: Optional[np.ndarray] = None
    curve: Markup = Markup("")

    @property
    def there(self) -> bool:
        """Whether there is a picture."""
        return self.state != State.MISSING


@dataclass
class Filter:
    """A filter with its panels.

    Attributes
    ----------
    layer, number
        Where it is.
    entries
        Its panel from each picture.
    similarity
        Its place in an order of the layer's filters in which neighbours are alike.
    found_again
        How often it is found again in panels of other pictures (:func:`measures.found_again`).
    descriptor
        Its mean texture.
    alike, alike_elsewhere
        Filters with similar textures, of its layer and of others.
    """

    layer: Layer
    number: int
    entries: List[Entry]
    similarity: Optional[int] = None
    found_again: Optional[float] = None
    descriptor: Optional[np.ndarray] = None
    alike: Sequence[Filter] = ()
    alike_elsewhere: Sequence[Filter] = ()

    @property
    def folder(self) -> str:
        """The folder of its page."""
        return slug(self.layer.name)

    @property
    def shown(self) -> Optional[Entry]:
        """Its first panel that is there."""
        return next((entry for entry in self.entries if entry.there), None)

    @property
    def state(self) -> str:
        """The best state of its panels."""
        ranked = (State.DRIVEN, State.WEAK, State.SILENT, State.MISSING)
        return min((entry.state for entry in self.entries), key=ranked.index)

    @property
    def energy_share(self) -> Optional[float]:
        """The mean energy share over its panels."""
        return _mean([e.outcome["energy_share"] for e in self.entries if e.outcome is not None])

    @property
    def colourfulness(self) -> Optional[float]:
        """The mean colourfulness of its panels."""
        return _mean([e.appearance.colourfulness for e in self.entries if e.appearance])


def _mean(values: Sequence[Optional[float]]) -> Optional[float]:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def check_out(out: Path) -> None:
    """Check that a folder may be written.

    Raises
    ------
    InputError
        If it is there, not empty, and not an atlas.
    """
    empty = not out.exists() or (out.is_dir() and not any(out.iterdir()))
    try:
        ours = json.loads((out / MARK).read_text(encoding="utf-8"))["format"] == FORMAT
    except (OSError, ValueError, KeyError, TypeError):
        ours = False
    if not (empty or ours):
        raise InputError(
            f"{brief(out)} is there and is not an atlas; remove it, or choose another with --out"
        )


def write(contents: Contents, out: Path) -> None:
    """Write an atlas; an atlas that is there is replaced when the new one is complete.

    Parameters
    ----------
    contents
        What it shows.
    out
        Its folder.

    Raises
    ------
    InputError
        If `out` is there and is not an atlas, if it cannot be written, or if the store has none of
        the panels.
    """
    check_out(out)

    def fill(folder: Path) -> None:
        _Site(contents, folder).write()
        if out.exists():
            files.remove(out)

    files.write_folder(out, fill)


class _Site:
    """An atlas that is being written."""

    def __init__(self, contents: Contents, folder: Path) -> None:
        self.contents = contents
        self.folder = folder
        self.filters: Dict[str, List[Filter]] = {}
        loader = jinja2.FileSystemLoader(HERE / "templates")
        self.templates = jinja2.Environment(
            loader=loader,
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self.templates.filters.update(number=number, exact=exact)
        self.templates.globals.update(
            contents=contents,
            State=State,
            MEASURES=MEASURES,
            FILE=FILE,
            STRIP=STRIP,
            SIDE=tiles.SIDE,
            FIELDS=tiles.FIELDS,
            LONG=LONG,
            PER_PHOTOGRAPH=PER_PHOTOGRAPH,
            slug=slug,
        )

    def write(self) -> None:
        """Write everything."""
        shutil.copytree(HERE / "static", self.folder / "static")
        for shown in self.contents.pictures:
            _save(self.folder / "pictures" / f"{shown.slug}.jpg", shown.pixels, "texture")
        total = sum(len(filters) for filters in self.contents.panels.values())
        with tqdm(total=total, desc="atlas", unit="filter", disable=None) as bar:
            for layer in self.contents.layers:
                self.filters[layer.name] = [
                    self._filter(layer, index, keys, bar)
                    for index, keys in self.contents.panels[layer.name].items()
                ]
                self._layer_pictures(layer)
        if not any(one.shown for row in self.filters.values() for one in row):
            raise InputError("the store has none of the panels of this sweep; run fmi sweep again")
        self._relate()
        for layer in self.contents.layers:
            self._pages(layer)
        self._front()

    # --- pictures ---

    def _filter(self, layer: Layer, index: int, keys: Mapping[str, str], bar: tqdm) -> Filter:
        """Return a filter, and write the pictures of its panels."""
        entries = []
        for shown in self.contents.pictures:
            if shown.label in keys:
                key = keys[shown.label]
                entries.append(self._entry(layer, index, shown, key, self.contents.find(key)))
        bar.update()
        return Filter(layer, index, entries)

    def _entry(
        self, layer: Layer, index: int, shown: Shown, key: str, found: Optional[Inversion]
    ) -> Entry:
        if found is None:
            return Entry(shown, key, State.MISSING)
        pixels = np.asarray(found.image)
        folder = self.folder / slug(layer.name)
        _save(folder / "textures" / shown.slug / f"{index}.jpg", pixels, "texture")
        small = tiles.tile(pixels, tiles.side(layer.receptive_field))
        _save(folder / "tiles" / shown.slug / f"{index}.jpg", small, "tile")
        return Entry(
            shown,
            key,
            measures.state(found.explained),
            (pixels.shape[1], pixels.shape[0]),
            {**found.describe()["outcome"], "seconds": found.seconds},
            found.record,
            Appearance.of(pixels, shown.pixels),
            measures.descriptor(pixels),
            curves.loss_curve(found.loss),
        )

    def _layer_pictures(self, layer: Layer) -> None:
        """Write the spritemaps of a layer and their index."""
        folder, filters = self.folder / slug(layer.name), self.filters[layer.name]
        maps = {}
        for shown in self.contents.pictures:
            found = {}
            for one in filters:
                path = folder / "tiles" / shown.slug / f"{one.number}.jpg"
                if path.is_file():
                    found[one.number] = np.asarray(Image.open(path))
            if found:
                name = f"spritemap-{shown.slug}.png"
                image = Image.fromarray(tiles.spritemap(found, layer.channels))
                image.save(folder / name)
                maps[shown.label] = {
                    "spritemap_url": name,
                    "width": image.width,
                    "height": image.height,
                    "channels": sorted(found),
                }
        index = {
            "layer": layer.name,
            "n_channels": layer.channels,
            "sprite_size": tiles.SIDE,
            "sprite_n_wrap": tiles.columns(layer.channels),
            "pictures": maps,
        }
        files.save_json(folder / "spritemap.json", index)

    # --- numbers ---

    def _relate(self) -> None:
        """Find the order of similar filters in each layer, and the neighbours of each filter."""
        everything = [one for row in self.filters.values() for one in row]
        described = [_descriptors(one, self.contents.pictures) for one in everything]
        for one, mean in zip(everything, measures.means(described)):
            one.descriptor = mean
        with_texture = [one for one in everything if one.descriptor is not None]
        vectors = np.array([one.descriptor for one in with_texture])
        several = len(self.contents.pictures) > 1
        for name, row in self.filters.items():
            own = np.array([one.layer.name == name for one in with_texture])
            here = [one for one in with_texture if one.layer.name == name]
            distances = OrientedBands().distances(vectors[own], vectors)
            square = distances[:, own]
            np.fill_diagonal(square, 0)
            for place, leaf in enumerate(measures.order((square + square.T) / 2)):
                here[leaf].similarity = place
            for place, one in enumerate(here):
                near = np.where(np.arange(len(here)) == place, np.inf, square[place])
                one.alike = [here[n] for n in measures.nearest(near, NEIGHBOURS)]
                far = np.where(own, np.inf, distances[place])
                one.alike_elsewhere = [with_texture[n] for n in measures.nearest(far, NEIGHBOURS)]
            if several:
                shares = measures.found_again(
                    [_descriptors(one, self.contents.pictures) for one in row]
                )
                for one, share in zip(row, shares):
                    one.found_again = share

    # --- pages ---

    def _pages(self, layer: Layer) -> None:
        """Write the page of a layer and those of its filters."""
        filters, layers = self.filters[layer.name], list(self.contents.layers)
        place = layers.index(layer)
        around = {
            "before": layers[place - 1] if place else None,
            "after": layers[place + 1] if place + 1 < len(layers) else None,
        }
        folder = slug(layer.name)
        again = any(one.found_again is not None for one in filters)
        self._page(
            f"{folder}/index.html",
            "layer.html",
            layer=layer,
            filters=filters,
            again=again,
            **around,
        )
        natural = self.contents.natural(layer)
        for n, one in enumerate(filters):
            self._page(
                f"{folder}/{one.number}.html",
                "filter.html",
                layer=layer,
                filter=one,
                crops=None if natural is None else self._crops(one, natural),
                crop_size=crop(layer.receptive_field),
                before=filters[n - 1] if n else None,
                after=filters[n + 1] if n + 1 < len(filters) else None,
                magnification=_magnification(one),
            )

    def _crops(self, one: Filter, natural: Natural) -> List[Dict[str, Any]]:
        """Write the natural crops that excite a filter most, and return what is said of them."""
        values = natural.responses[:, one.number]
        best = crops.top(values, natural.crops, CROPS, per_picture=PER_PHOTOGRAPH)
        if len(best):
            pixels = [natural.crops.pixels[n] for n in best]
            _save(
                self.folder / one.folder / "crops" / f"{one.number}.jpg", tiles.row(pixels), "tile"
            )
        return [
            {
                "name": natural.names[natural.crops.picture[n]],
                "row": round(float(natural.crops.row[n])),
                "column": round(float(natural.crops.column[n])),
                "side": round(float(natural.crops.side[n])),
                "response": float(values[n]),
            }
            for n in best
        ]

    def _front(self) -> None:
        """Write the front page and what is said about the whole atlas."""
        rows = [
            {
                "layer": layer,
                "strip": self._strip(layer),
                "filters": self.filters[layer.name],
                "energy_share": _median([one.energy_share for one in self.filters[layer.name]]),
                "states": _counts([one.state for one in self.filters[layer.name]]),
            }
            for layer in self.contents.layers
        ]
        entries = [e for row in self.filters.values() for one in row for e in one.entries]
        record = next(entry.record for entry in entries if entry.record is not None)
        self._page(
            "index.html",
            "front.html",
            rows=rows,
            record=record,
            count=len(entries),
            states=_counts([entry.state for entry in entries]),
        )
        (self.folder / FILE).write_text(self.contents.sweep, encoding="utf-8")
        index = {
            "layers": [
                [
                    layer.name,
                    slug(layer.name),
                    _ranges([f.number for f in self.filters[layer.name]]),
                ]
                for layer in self.contents.layers
            ]
        }
        script = f"window.ATLAS = {json.dumps(index, separators=(',', ':'))};\n"
        (self.folder / "static" / "index.js").write_text(script, encoding="ascii")
        about = {"format": FORMAT, "title": self.contents.title, "fmi": fmi.__version__}
        files.save_json(
            self.folder / MARK, {**about, **index, "network": dict(self.contents.network)}
        )

    def _strip(self, layer: Layer) -> bool:
        """Write some tiles of a layer side by side, and return whether there are any."""
        there = [one for one in self.filters[layer.name] if one.shown]
        if not there:
            return False
        found: List[Optional[np.ndarray]] = []
        for place in tiles.evenly(range(len(there)), STRIP):
            one = there[place]
            found.append(np.asarray(Image.open(self.folder / self._tile(one))))
        _save(self.folder / slug(layer.name) / "strip.jpg", tiles.row(found), "tile")
        return True

    def _tile(self, one: Filter) -> str:
        """Return the address of the tile of a filter, from the folder of the atlas."""
        assert one.shown is not None
        return f"{one.folder}/tiles/{one.shown.picture.slug}/{one.number}.jpg"

    def _page(self, address: str, template: str, **values: Any) -> None:
        """Write a page."""
        root = "../" * address.count("/")
        page = self.templates.get_template(template).render(root=root, tile=self._tile, **values)
        path = self.folder / address
        path.parent.mkdir(exist_ok=True)
        path.write_text(page, encoding="utf-8", errors="backslashreplace")


def _descriptors(one: Filter, shown: Sequence[Shown]) -> List[Optional[np.ndarray]]:
    """Return the texture of a filter's panel from each picture."""
    own = {entry.picture.label: entry.descriptor for entry in one.entries}
    return [own.get(picture.label) for picture in shown]


def _magnification(one: Filter) -> int:
    """Return how many times the panels are enlarged, so that small ones can be seen."""
    longest = max((max(entry.size) for entry in one.entries), default=0)
    return max(1, 320 // longest) if longest else 1


def _median(values: Sequence[Optional[float]]) -> Optional[float]:
    known = [value for value in values if value is not None]
    return float(np.median(known)) if known else None


def _counts(states: Sequence[str]) -> Dict[str, int]:
    ranked = (State.DRIVEN, State.WEAK, State.SILENT, State.MISSING)
    return {state: states.count(state) for state in ranked}


def _ranges(numbers: Sequence[int]) -> List[List[int]]:
    """Return ascending numbers as ranges.

    >>> _ranges([0, 1, 2, 5])
    [[0, 2], [5, 5]]
    """
    found: List[List[int]] = []
    for one in numbers:
        if found and found[-1][1] == one - 1:
            found[-1][1] = one
        else:
            found.append([one, one])
    return found


def number(value: Any) -> str:
    """Return a measured number as it is shown; a dash for none, and text as it is."""
    if isinstance(value, float):
        return f"{value:.{DIGITS}g}"
    return "–" if value is None else str(value)


def exact(value: Any) -> str:
    """Return a value of a record as it is shown: all its digits."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(exact, value))
    return str(value)


def _save(path: Path, pixels: np.ndarray, kind: str) -> None:
    """Write a picture as JPEG with full resolution of colours."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, "JPEG", quality=QUALITY[kind], subsampling=0)
