"""The table of the claims: its rows, what follows from them, and how both are written and read.

A :class:`Report` holds what one network says about the claims. It has no date, and its seconds
stand apart in the JSON file, so that the same measurement gives the same text. From that file
tables, plots and the documentation are made again without computing anything.
"""

from __future__ import annotations

import csv
import enum
import io
import json
import math
import re
import textwrap
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Callable, Dict, Iterable, List, Optional, Sequence, Set, Tuple

from pydantic import TypeAdapter, ValidationError

from experiments.bench import aligned
from fmi import files
from fmi.errors import InputError, brief, shown
from fmi.evidence.intervals import Estimate

__all__ = [
    "ALL",
    "CHAINED",
    "CONTROLS",
    "DIRECTIONS",
    "FILTERS",
    "MAXIMISED",
    "NATURAL",
    "UNTRAINED",
    "Claim",
    "Drawn",
    "Facts",
    "Group",
    "Report",
    "Row",
    "Sentence",
    "Source",
    "Verdict",
    "chance",
    "compact",
    "csv_text",
    "decimals",
    "escaped",
    "groups",
    "json_text",
    "markdown",
    "markdown_facts",
    "markdown_table",
    "markdown_tables",
    "merged",
    "numeral",
    "read",
    "save",
    "subjects",
    "summary",
    "text",
    "union",
]

ALL = "all"  # the layer of a value that is of no single layer
FILTERS = "filters"  # the subject that the controls are compared with
NATURAL = "natural picture"
UNTRAINED = "untrained weights"
DIRECTIONS = "random directions"
CHAINED = "chained"
MAXIMISED = "activation maximisation"
CONTROLS = (UNTRAINED, DIRECTIONS, CHAINED, MAXIMISED, NATURAL)
MOST_LINES = 10  # of the summary, its head included
WIDTH = 100  # characters of a line of text
MISSING = "-"  # a value that could not be measured


class Verdict(enum.Enum):
    """Whether a sentence of the paper is borne out by the measurement."""

    HOLDS = "holds"
    IN_PART = "holds in part"
    FAILS = "does not hold"
    UNMEASURED = "not measured"


@dataclass(frozen=True)
class Row:
    """A measured value.

    Attributes
    ----------
    claim
        Number of the claim, ``"1"`` to ``"9"``.
    quantity
        What was measured, such as "share of the code's energy in the wanted feature map".
    layer
        Name of the layer, or :data:`ALL`.
    subject
        What it was measured of: :data:`FILTERS`, one of :data:`CONTROLS`, or another.
    estimate
        The value with its interval; NaN if it could not be measured.
    chance
        The value without any effect, where it is known.
    number
        Number of units (filters, draws, pictures, classes, crops, pairs) behind the value.
    note
        What else must be known, such as the filters that cannot be driven.
    """

    claim: str
    quantity: str
    layer: str
    subject: str
    estimate: Estimate
    chance: Optional[float] = None
    number: int = 0
    note: str = ""

    @property
    def place(self) -> Tuple[str, str, str]:
        """Quantity, layer and subject: where the value stands in the tables."""
        return self.quantity, self.layer, self.subject


@dataclass(frozen=True)
class Sentence:
    """A sentence of the paper.

    Attributes
    ----------
    number
        ``"1"`` to ``"9"``.
    title
        A few words.
    sentence
        The paper's own words, with the section.
    criterion
        When it holds, and so what would change our mind; decided before the measurement.
    """

    number: str
    title: str
    sentence: str
    criterion: str


@dataclass(frozen=True)
class Claim(Sentence):
    """A sentence of the paper, and what was measured of it.

    Attributes
    ----------
    rows
        The measured values.
    verdict
        Whether the sentence holds.
    finding
        One sentence with the numbers.
    seconds
        How long the measurement took.

    Raises
    ------
    InputError
        If a row belongs to another claim, or if two rows have the same place.
    """

    rows: Tuple[Row, ...]
    verdict: Verdict
    finding: str
    seconds: float

    def __post_init__(self) -> None:
        places = set()
        for row in self.rows:
            if row.claim != self.number:
                raise InputError(
                    f"claim {shown(self.number)} has a row of claim {shown(row.claim)}"
                )
            if row.place in places:
                raise InputError(
                    f"claim {shown(self.number)} has two rows for {shown(', '.join(row.place))}"
                )
            places.add(row.place)


@dataclass(frozen=True)
class Source:
    """A network or a picture that was measured.

    Attributes
    ----------
    name
        Its name.
    digest
        Its sha256.
    """

    name: str
    digest: str


@dataclass(frozen=True)
class Drawn:
    """The filters of a layer that were drawn for the measurement."""

    layer: str
    filters: Tuple[int, ...]


@dataclass(frozen=True)
class Facts:
    """What was measured over: all that is needed to repeat the measurement.

    Attributes
    ----------
    network
        The network.
    precision
        Number format, such as ``"bfloat16"``.
    long_edge
        Long edge of the pictures in pixels.
    filters
        The filters of each layer, the lowest layer first.
    pictures
        The content pictures.
    starts
        Number of starts of each inversion of a filter.
    seed
        The seed of all draws.
    variables
        What else was chosen, by the names that ``make claims`` has for it in small letters: the
        preset, single settings, the starts of controls, draws, styles and folders.
    versions
        The version of each package that shapes the numbers, by its name.
    cpu
        Name of the CPU.
    """

    network: Source
    precision: str
    long_edge: int
    filters: Tuple[Drawn, ...]
    pictures: Tuple[Source, ...]
    starts: int
    seed: int
    variables: Dict[str, Any]
    versions: Dict[str, str]
    cpu: str


def merged(orders: Iterable[Sequence[str]]) -> List[str]:
    """Return the names of several lists in an order in which each list keeps its own.

    Where two lists contradict each other, the first one counts.

    >>> merged([["relu1_2", "relu2_2"], ["relu1_1", "relu1_2", "relu2_1", "relu2_2"]])
    ['relu1_1', 'relu1_2', 'relu2_1', 'relu2_2']
    """
    before: Dict[str, Set[str]] = {}
    for order in orders:
        for place, name in enumerate(order):
            earlier = before.setdefault(name, set())
            earlier.update(other for other in order[:place] if name not in before[other])
    found: List[str] = []
    while len(found) < len(before):
        left = [name for name in before if name not in found]
        ready = (name for name in left if before[name] <= {*found, name})
        found.append(next(ready, left[0]))  # the first one, if the lists contradict each other
    return found


@dataclass(frozen=True)
class Report:
    """What one network says about the claims.

    Raises
    ------
    InputError
        If two claims have the same number.
    """

    facts: Facts
    claims: Tuple[Claim, ...]

    def __post_init__(self) -> None:
        numbers = [claim.number for claim in self.claims]
        if len(set(numbers)) < len(numbers):
            raise InputError(f"two claims have the same number: {', '.join(numbers)}")

    @property
    def layers(self) -> List[str]:
        """Names of all layers, the lowest first.

        Claims are measured at different layers, each in the order of depth, which are merged.
        """
        orders = [[drawn.layer for drawn in self.facts.filters]]
        for claim in self.claims:
            of_group: Dict[Tuple[str, str], List[str]] = {}
            for row in claim.rows:
                if row.layer != ALL:
                    of_group.setdefault((row.quantity, row.subject), []).append(row.layer)
            orders += of_group.values()
        return merged(orders)


@dataclass(frozen=True)
class Group:
    """The rows of a quantity.

    Attributes
    ----------
    quantity
        What was measured.
    layers
        The layers of the rows, the lowest first; only :data:`ALL` for values of no single layer.
    subjects
        The subjects of the rows, the controls below what they are compared with.
    rows
        The rows.
    """

    quantity: str
    layers: Tuple[str, ...]
    subjects: Tuple[str, ...]
    rows: Tuple[Row, ...]

    @property
    def overall(self) -> bool:
        """Whether the values are of no single layer."""
        return self.layers == (ALL,)

    def row(self, subject: str, layer: str) -> Optional[Row]:
        """Return the row of a subject in a layer, or ``None`` if there is none."""
        place = (self.quantity, layer, subject)
        return next((row for row in self.rows if row.place == place), None)


def subjects(rows: Iterable[Row]) -> List[str]:
    """Return the subjects of rows: the one in question, :data:`CONTROLS`, others as they come.

    The one in question is :data:`FILTERS`, or else the first.
    """
    found = list(dict.fromkeys(row.subject for row in rows))
    main = FILTERS if FILTERS in found else next(iter(found), "")
    known = [name for name in dict.fromkeys((main, *CONTROLS)) if name in found]
    return [*known, *(name for name in found if name not in known)]


def groups(claim: Claim, layers: Sequence[str]) -> List[Group]:
    """Return the rows of a claim by quantity: first values of single layers, then all others.

    Parameters
    ----------
    claim
        The claim.
    layers
        All layers in their order, :attr:`Report.layers`.
    """
    found = []
    for overall in (False, True):
        rows = [row for row in claim.rows if (row.layer == ALL) is overall]
        for quantity in dict.fromkeys(row.quantity for row in rows):
            own = tuple(row for row in rows if row.quantity == quantity)
            there = {row.layer for row in own}
            order = (ALL,) if overall else tuple(name for name in layers if name in there)
            found.append(Group(quantity, order, tuple(subjects(own)), own))
    return found


def decimals(numbers: Iterable[float]) -> int:
    """Return how many decimals show two digits of the largest of some numbers, at most 4."""
    sizes = [abs(number) for number in numbers if math.isfinite(number)]
    largest = max(sizes, default=0.0)
    return next((n for n, least in enumerate((99.5, 9.95, 0.0995, 0.00995)) if largest >= least), 4)


def numeral(number: float, places: Optional[int] = None) -> str:
    """Return a number as compact text, such as ``.43``, ``-1.20``, ``3.1e-9`` or ``-`` for NaN.

    Parameters
    ----------
    number
        The number.
    places
        Number of decimals; ``None`` shows at least two digits.
    """
    if math.isnan(number):
        return MISSING
    if math.isinf(number):
        return "inf" if number > 0 else "-inf"
    size = abs(number)
    if not size:
        return "0"
    if size >= 1e6 or (size < 1e-3 and places in (None, 4)):
        mantissa, exponent = f"{number:.1e}".split("e")
        return f"{mantissa}e{int(exponent)}"
    plain = f"{number:.{decimals([number]) if places is None else places}f}"
    if not float(plain):
        plain = plain.lstrip("-")
    return re.sub(r"^(-?)0\.", r"\1.", plain)


def compact(estimate: Estimate) -> str:
    """Return an estimate as compact text, such as ``.43 [.38, .49]``.

    The value stands alone if it has no interval.
    """
    numbers = (estimate.value, estimate.low, estimate.high)
    if all(math.isnan(number) for number in numbers[1:]):
        return numeral(estimate.value)
    places = decimals(numbers)
    value, low, high = (numeral(number, places) for number in numbers)
    return f"{value} [{low}, {high}]"


def chance(rows: Iterable[Row]) -> str:
    """Return the values without any effect of some rows as compact text."""
    known = sorted(row.chance for row in rows if row.chance is not None)
    found = list(dict.fromkeys(numeral(number) for number in known))
    if len(found) < 2:
        return found[0] if found else MISSING
    return f"{found[0]} to {found[-1]}"


def _numbers(rows: Sequence[Row]) -> str:
    """Return the numbers of units behind some rows, ``16`` or ``14 to 16``."""
    counts = sorted({row.number for row in rows if row.number})
    if len(counts) < 2:
        return str(counts[0]) if counts else MISSING
    return f"{counts[0]} to {counts[-1]}"


def _cells(group: Group, subject: str) -> List[str]:
    """Return the cells of a line: the value in each layer, chance, and the number of units."""
    found = [group.row(subject, layer) for layer in group.layers]
    rows = [row for row in found if row]
    values = [compact(row.estimate) if row else MISSING for row in found]
    return [*values, chance(rows), _numbers(rows)]


def _notes(rows: Iterable[Row]) -> List[str]:
    """Return each note of some rows once, with the subjects and layers that it is about."""
    about: Dict[str, List[Row]] = {}
    for row in rows:
        if row.note:
            about.setdefault(row.note, []).append(row)
    lines = []
    for note, own in about.items():
        whose = ", ".join(dict.fromkeys(row.subject for row in own))
        where = ", ".join(dict.fromkeys(row.layer for row in own if row.layer != ALL))
        lines.append(f"{whose}{f' ({where})' if where else ''}: {note}")
    return lines


def _facts(facts: Facts) -> List[Tuple[str, str]]:
    """Return the facts as names and texts."""
    versions = ", ".join(f"{name} {version}" for name, version in sorted(facts.versions.items()))
    drawn = "; ".join(
        f"{one.layer} {', '.join(str(number) for number in one.filters)}" for one in facts.filters
    )
    sources = ", ".join(f"{one.name} ({one.digest[:12]})" for one in facts.pictures)
    chosen = " ".join(
        f"{name.upper()}={','.join(map(str, value)) if isinstance(value, list) else value}"
        for name, value in sorted(facts.variables.items())
    )
    return [
        ("network", f"{facts.network.name} ({facts.network.digest[:12]}), {facts.precision}"),
        (
            "pictures",
            f"{sources}; long edge {facts.long_edge}, {facts.starts} starts of each filter",
        ),
        ("filters", drawn or MISSING),
        ("seed", str(facts.seed)),
        ("variables", chosen or MISSING),
        ("computed with", f"{versions}; {facts.cpu}"),
    ]


def text(report: Report) -> str:
    """Return a report as plain text for a terminal."""
    facts = _facts(report.facts)
    lines = [part for name, value in facts for part in _wrapped(f"{name}: {value}")]
    for claim in report.claims:
        lines += ["", f"{claim.number}. {_line(claim.title)}: {claim.verdict.value}"]
        lines += [*_wrapped(f'"{claim.sentence}"'), *_wrapped(claim.finding)]
        for group in groups(claim, report.layers):
            head = ["", *(["value"] if group.overall else group.layers), "chance", "n"]
            cells = [[f"  {_line(name)}", *_cells(group, name)] for name in group.subjects]
            lines += ["", _line(group.quantity), *aligned([head, *cells])]
        lines += [part for note in _notes(claim.rows) for part in _wrapped(note)]
    return "\n".join([*lines, ""])


def _wrapped(value: str) -> List[str]:
    """Return a text in lines for a terminal."""
    return textwrap.wrap(_line(value), WIDTH, subsequent_indent="  ")


def _line(value: str) -> str:
    """Return a text in one line."""
    return " ".join(value.split())


SPECIAL = re.compile(r"[\\|`*<>\[\]~$]|(?<![^\W_])_|_(?![^\W_])")


def escaped(value: str) -> str:
    """Return plain text as Markdown that shows it, in one line and fit for the cell of a table."""
    return SPECIAL.sub(r"\\\g<0>", _line(value))


def markdown_table(head: Sequence[str], lines: Iterable[Sequence[str]], numbers: int = 0) -> str:
    """Return a Markdown table whose last columns, `numbers` of them, are to the right."""
    sides = ["---"] * (len(head) - numbers) + ["---:"] * numbers
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, sides, *lines))


def markdown_tables(claim: Claim, layers: Sequence[str]) -> str:
    """Return the rows of a claim as Markdown: a table by layers, a table of the others, notes.

    Parameters
    ----------
    claim
        The claim.
    layers
        All layers in their order, :attr:`Report.layers`.
    """
    found = groups(claim, layers)
    parts = []
    for overall in (False, True):
        own = [group for group in found if group.overall is overall]
        if not own:
            continue
        there = {layer for group in own for layer in group.layers}
        columns = [ALL] if overall else [name for name in layers if name in there]
        names = ["value"] if overall else [escaped(name) for name in columns]
        lines = []
        for group in own:
            whole = Group(group.quantity, tuple(columns), group.subjects, group.rows)
            for place, subject in enumerate(group.subjects):
                quantity = "" if place else escaped(group.quantity)
                lines.append([quantity, escaped(subject), *_cells(whole, subject)])
        head = ["quantity", "subject", *names, "chance", "n"]
        parts.append(markdown_table(head, lines, len(head) - 2))
    notes = [f"- {escaped(note)}" for note in _notes(claim.rows)]
    return "\n\n".join([*parts, *(["\n".join(notes)] if notes else [])])


def markdown_facts(facts: Facts) -> str:
    """Return what was measured over as a Markdown list."""
    return "\n".join(f"- {name}: {escaped(value)}" for name, value in _facts(facts))


def markdown(report: Report) -> str:
    """Return a report as Markdown: the facts, a summary with a line a claim, and a table each."""
    lines = [
        (
            escaped(claim.number),
            escaped(claim.sentence),
            f"**{claim.verdict.value}**",
            escaped(claim.finding),
        )
        for claim in report.claims
    ]
    overview = markdown_table(("", "the paper says", "", "measured"), lines)
    parts = [markdown_facts(report.facts), overview]
    for claim in report.claims:
        parts += [
            f"## {escaped(f'{claim.number}. {claim.title}')}: {claim.verdict.value}",
            f"> {escaped(claim.sentence)}",
            f"What would change our mind: {escaped(claim.criterion)}",
            f"Measured: {escaped(claim.finding)}",
            markdown_tables(claim, report.layers),
        ]
    return "\n\n".join(part for part in parts if part) + "\n"


def union(reports: Sequence[Report]) -> List[List[Optional[Claim]]]:
    """Return each claim that any report has, as a list with the claim of each report."""
    known = [{claim.number: claim for claim in report.claims} for report in reports]
    numbers = sorted({number for own in known for number in own}, key=lambda n: (len(n), n))
    return [[own.get(number) for own in known] for number in numbers]


def summary(reports: Sequence[Report]) -> str:
    """Return a Markdown table with a line a claim: the verdicts side by side, and one finding.

    The finding is that of the last network on which the claim was measured.

    Raises
    ------
    InputError
        If the table would have more than :data:`MOST_LINES` lines.
    """
    names = [report.facts.network.name for report in reports]
    lines = []
    for claims in union(reports):
        present = [claim for claim in claims if claim]
        measured = [
            place
            for place, claim in enumerate(claims)
            if claim and claim.verdict is not Verdict.UNMEASURED
        ]
        last = claims[measured[-1]] if measured else None
        whose = f" ({escaped(names[measured[-1]])})" if measured and len(names) > 1 else ""
        verdicts = [(claim.verdict if claim else Verdict.UNMEASURED).value for claim in claims]
        finding = f"{escaped(last.finding)}{whose}" if last else MISSING
        lines.append([escaped(present[0].sentence), *verdicts, finding])
    if len(lines) >= MOST_LINES:
        raise InputError(f"the summary has at most {MOST_LINES} lines, not {len(lines) + 1}")
    head = ["the paper says", *(escaped(name) for name in names), "measured"]
    return markdown_table(head, lines) + "\n"


def csv_text(report: Report) -> str:
    """Return all rows as CSV (RFC 4180) with full precision; what is not known is empty."""
    stream = io.StringIO(newline="")
    writer = csv.writer(stream)
    writer.writerow(
        ("network", "claim", "quantity", "layer", "subject", "value", "low", "high", "chance")
        + ("number", "note")
    )
    for claim in report.claims:
        for row in claim.rows:
            numbers = (row.estimate.value, row.estimate.low, row.estimate.high, row.chance)
            writer.writerow(
                (report.facts.network.name, row.claim, row.quantity, row.layer, row.subject)
                + tuple("" if n is None or math.isnan(n) else repr(float(n)) for n in numbers)
                + (row.number, row.note)
            )
    return stream.getvalue()


def json_text(report: Report) -> str:
    """Return a report as strict JSON, from which :func:`read` makes it again.

    NaN is ``null`` and infinity is ``"inf"`` or ``"-inf"``, as JSON has neither.
    """
    return files.json_text(_plain(report))


def _plain(report: Report) -> Dict[str, Any]:
    """Return a report as plain data."""
    found = asdict(report)
    seconds = {claim["number"]: _jsonable(claim.pop("seconds")) for claim in found["claims"]}
    for claim in found["claims"]:
        claim["verdict"] = claim["verdict"].value
        for row in claim["rows"]:
            row["number"] = int(row["number"])
            row["chance"] = _jsonable(row["chance"])
            row["estimate"] = {key: _jsonable(n) for key, n in row["estimate"].items()}
    plain: Dict[str, Any] = json.loads(json.dumps({**found, "seconds": seconds}))
    return plain


def _jsonable(number: Optional[float]) -> Any:
    if number is None or math.isnan(number):
        return None
    return float(number) if math.isfinite(number) else numeral(number)


def _number(value: Any) -> Any:
    """Undo :func:`_jsonable`; anything else is left for the validation."""
    if value is None:
        return math.nan
    return float(value) if value in ("inf", "-inf") else value


def _object(content: Dict[str, Any]) -> Dict[str, Any]:
    """Return an object of the JSON file with its numbers as numbers."""
    if set(content) == {"value", "low", "high"}:
        return {key: _number(value) for key, value in content.items()}
    if content.get("chance") is not None:
        return {**content, "chance": _number(content["chance"])}
    return content


def read(path: Path) -> Report:
    """Read the JSON file of a report.

    Raises
    ------
    InputError
        If it cannot be read, or if it is not the file of a report.
    """
    try:
        written = path.read_text(encoding="utf-8")
        plain = json.loads(written, parse_constant=_refuse)
        content = json.loads(written, object_hook=_object)
        seconds = content.pop("seconds")
        for claim in content["claims"]:
            claim["seconds"] = _number(seconds[claim["number"]])
        report = TypeAdapter(Report).validate_json(json.dumps(content), strict=True)
    except OSError as error:
        raise InputError(f"{brief(path)} cannot be read: {error.strerror}") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise _wrong(path, f"{where}: {first['msg']}") from None
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
        raise _wrong(path, f"{type(error).__name__}: {error}") from None
    if _plain(report) != plain:
        raise _wrong(path, "it has keys that a report has not")
    return report


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def _wrong(path: Path, reason: str) -> InputError:
    return InputError(
        f"{brief(path)} is not a report of the claims ({brief(_line(reason))}); give a claims.json"
        " that make claims wrote"
    )


WRITERS: Dict[str, Callable[[Report], str]] = {
    ".txt": text,
    ".md": markdown,
    ".csv": csv_text,
    ".json": json_text,
}


def save(report: Report, folder: Path) -> List[Path]:
    """Write claims.txt, claims.md, claims.csv and claims.json, each whole; return their paths.

    Raises
    ------
    InputError
        If a file cannot be written.
    """
    found = []
    for suffix, writer in WRITERS.items():
        content = writer(report).encode("utf-8")  # as bytes: CSV has line ends of its own
        path = folder / f"claims{suffix}"
        files.write_whole(path, lambda beside, content=content: beside.write_bytes(content))  # type: ignore[misc]
        found.append(path)
    return found
