"""How the claims are written, read, drawn and put on a page, on constructed reports."""

import csv
import dataclasses
import io
import itertools
import json
import math
import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from experiments.claims import page, plots, table
from experiments.claims.table import (
    ALL,
    CONTROLS,
    FILTERS,
    Claim,
    Drawn,
    Facts,
    Report,
    Row,
    Source,
    Verdict,
)
from fmi.errors import InputError
from fmi.evidence.intervals import Estimate

LAYERS = ("relu1_2", "relu2_2", "relu3_2", "relu4_2", "relu5_2")
NAN = Estimate(math.nan, math.nan, math.nan)
SVG = "{http://www.w3.org/2000/svg}"


def facts(network="embedded", layers=LAYERS):
    return Facts(
        network=Source(network, "ab" * 32),
        precision="float32",
        long_edge=224,
        filters=tuple(Drawn(layer, (3, 1, 4)) for layer in layers),
        pictures=(Source("coffee", "cd" * 32), Source("astronaut", "ef" * 32)),
        starts=2,
        seed=7,
        variables={"settings": "fast", "denoise": 0.05, "styles": ["retina", "hubble"]},
        versions={"numpy": "1.26.4", "mxnet": "1.9.1"},
        cpu="a CPU",
    )


def claim(number, rows, verdict=Verdict.IN_PART, **other):
    texts = {
        "title": f"Title {number}",
        "sentence": f"Sentence {number}.",
        "criterion": f"Criterion {number}.",
        "finding": f"Finding {number}.",
        **other,
    }
    return Claim(number=number, rows=tuple(rows), verdict=verdict, seconds=90.5, **texts)


def by_layer(number, quantity="share", subjects=(FILTERS, *CONTROLS), lacking=()):
    """Rows with values of their own; the places (subject, layer) of `lacking` have none."""
    rows = []
    for at, subject in enumerate(subjects):
        for depth, layer in enumerate(LAYERS):
            value = round(0.9 - 0.11 * at - 0.03 * depth, 2)
            estimate = Estimate(value, value - 0.06, value + 0.05)
            absent = (subject, layer) in lacking
            note = "filter 3 cannot be driven" if absent else ""
            row = Row(number, quantity, layer, subject, NAN if absent else estimate, 0.02, 16, note)
            rows.append(row)
    return rows


def overall(number, quantity="precision", subjects=("sums", "Gram matrices", "colour alone")):
    return [
        Row(number, quantity, ALL, name, Estimate(0.6 - at / 10, 0.5 - at / 10, 0.7), 0.1, 200)
        for at, name in enumerate(subjects)
    ]


def report(network="embedded"):
    """Nine claims; the fifth is not measured, and all values of the ninth are NaN."""
    lacking = [(FILTERS, "relu5_2"), ("chained", "relu1_2"), ("chained", "relu2_2")]
    mixed = [*by_layer("2", "AUC"), *by_layer("2", "found again"), *overall("2", "variance")]
    claims = [
        claim("1", by_layer("1", lacking=lacking)),
        claim("2", mixed, Verdict.HOLDS),
        claim("3", by_layer("3"), Verdict.FAILS),
        claim("4", by_layer("4", subjects=(FILTERS, "other", "third"))),
        claim("5", [], Verdict.UNMEASURED),
        claim("6", overall("6")),
        *(claim(str(n), by_layer(str(n))) for n in (7, 8)),
        claim("9", by_layer("9", subjects=(FILTERS,), lacking=[(FILTERS, x) for x in LAYERS])),
    ]
    return Report(facts(network), tuple(claims))


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("claims")
    return folder, table.save(report(), folder), plots.save(report(), folder)


# Numbers


@pytest.mark.parametrize(
    ("number", "shown"),
    [
        (0.43, ".43"),
        (-0.433, "-.43"),
        (1.0, "1.00"),
        (0.9999, "1.00"),
        (12.34, "12.3"),
        (254.6, "255"),
        (0.034, ".034"),
        (0.0042, ".0042"),
        (1e-9, "1.0e-9"),
        (-3.25e12, "-3.2e12"),
        (0.0, "0"),
        (-0.0, "0"),
        (math.nan, "-"),
        (math.inf, "inf"),
        (-math.inf, "-inf"),
    ],
)
def test_numbers_are_compact(number, shown):
    assert table.numeral(number) == shown


def test_a_value_and_its_interval_have_the_same_decimals():
    assert table.compact(Estimate(0.43, 0.384, 0.4872)) == ".43 [.38, .49]"
    assert table.compact(Estimate(0.005, -0.1, 0.2)) == ".01 [-.10, .20]"
    assert table.compact(Estimate(47.0, 8.2, 120.0)) == "47 [8, 120]"
    assert table.compact(Estimate(0.5, math.nan, math.nan)) == ".50"
    assert table.compact(NAN) == "-"


@given(st.floats())
def test_a_compact_number_is_the_number(number):
    shown = table.numeral(number)
    assert len(shown) <= 9
    if abs(number) < 1e308:  # 1.8e308 is no float
        assert float(shown) == pytest.approx(number, rel=0.06, abs=0)
        assert not shown.startswith(("0.", "-0"))


# Order


def test_the_subject_in_question_is_first_and_the_controls_follow():
    names = ["noise", "chained", FILTERS, "untrained weights"]
    rows = [Row("1", "q", ALL, name, NAN) for name in names]
    assert table.subjects(rows) == [FILTERS, "untrained weights", "chained", "noise"]
    rows = [Row("6", "q", ALL, name, NAN) for name in ("sums", "colour", "untrained weights")]
    assert table.subjects(rows) == ["sums", "untrained weights", "colour"]


def test_layers_stand_in_the_networks_order_and_not_the_rows():
    rows = by_layer("1")[::-1]
    order = ("relu3_2", "relu1_2")
    found = Report(facts(layers=order), (claim("1", [*rows, *overall("1")]),))
    assert found.layers.index("relu3_2") < found.layers.index("relu1_2")
    ascending = Report(facts(layers=("relu1_2", "relu3_2")), found.claims)
    assert ascending.layers.index("relu1_2") < ascending.layers.index("relu3_2")
    assert sorted(found.layers) == sorted(LAYERS)
    first, second = table.groups(found.claims[0], found.layers)
    assert first.layers == tuple(found.layers)
    assert not first.overall
    assert second.overall


def test_what_cannot_stand_in_one_table_is_refused():
    row = by_layer("1")[0]
    with pytest.raises(InputError, match="1.*2"):
        claim("1", by_layer("2"))
    with pytest.raises(InputError, match="relu1_2"):
        claim("1", [row, dataclasses.replace(row, estimate=NAN)])
    with pytest.raises(InputError, match="same number"):
        Report(facts(), (claim("1", []), claim("1", [])))


# Files


def test_all_files_are_written_whole(written):
    folder, texts, drawn = written
    assert [path.name for path in texts] == [f"claims.{s}" for s in ("txt", "md", "csv", "json")]
    assert {path.name for path in drawn} == {
        f"claim_{n}.{form}" for n in (1, 2, 3, 4, 6, 7, 8) for form in ("png", "svg")
    }  # nothing is drawn of 5 and 9, which have no value
    assert set(folder.iterdir()) == {*texts, *drawn}


def test_json_is_read_back_into_an_equal_report(written):
    folder, _, _ = written
    found = table.read(folder / "claims.json")
    assert table.json_text(found) == table.json_text(report())
    assert found.facts == report().facts
    assert [c.verdict for c in found.claims] == [c.verdict for c in report().claims]
    assert found.claims[1:4] == report().claims[1:4]  # those without NaN
    assert math.isnan(found.claims[-1].rows[0].estimate.value)


def test_seconds_stand_apart_and_all_else_is_the_same_text():
    slower = dataclasses.replace(
        report(), claims=tuple(dataclasses.replace(c, seconds=1e3) for c in report().claims)
    )
    one, other = json.loads(table.json_text(report())), json.loads(table.json_text(slower))
    assert set(one.pop("seconds").values()) == {90.5}
    assert set(other.pop("seconds").values()) == {1e3}
    assert one == other
    assert "90.5" not in json.dumps(one)


def test_csv_has_every_row_with_all_digits(written):
    _, (_, _, path, _), _ = written
    with path.open(newline="", encoding="utf-8") as stream:
        found = list(csv.DictReader(stream))
    rows = [row for claim in report().claims for row in claim.rows]
    assert len(found) == len(rows)
    for line, row in zip(found, rows):
        assert (line["claim"], line["quantity"], line["layer"], line["subject"]) == (
            row.claim,
            *row.place,
        )
        numbers = [row.estimate.value, row.estimate.low, row.estimate.high, row.chance]
        shown = [line[name] for name in ("value", "low", "high", "chance")]
        assert shown == ["" if math.isnan(n) else repr(n) for n in numbers]


def changed(path, change):
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    return json.dumps(content)


def put(*keys):
    """A change that puts the last of some keys where the others lead."""
    *way, last, value = keys

    def change(content):
        for key in way:
            content = content[key]
        content[last] = value

    return change


@pytest.mark.parametrize(
    "change",
    [
        put("claims", 0, "rows", 0, "estimate", "value", "high"),
        put("claims", 0, "rows", 0, "estimate", "more", 1.0),
        put("claims", 0, "rows", 0, "claim", "2"),
        put("claims", 0, "rows", 0, "number", "16"),
        put("claims", 0, "verdict", "perhaps"),
        put("claims", 0, "number", "2"),
        put("claims", 0, "remark", ""),
        put("claims", {}),
        put("claims", None),
        put("seconds", {}),
        put("seconds", "10", 1.0),
        put("facts", "pictures", ["coffee"]),
        put("facts", "seed", 0.5),
        put("date", "today"),
        lambda content: content.pop("facts"),
        lambda content: content["claims"][2]["rows"][1].pop("note"),
    ],
)
def test_a_wrong_file_is_refused_with_its_name(written, tmp_path, change):
    folder, _, _ = written
    path = tmp_path / "wrong.json"
    path.write_text(changed(folder / "claims.json", change), encoding="utf-8")
    with pytest.raises(InputError, match=r"wrong\.json") as caught:
        table.read(path)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_nan_is_not_json(written, tmp_path):
    folder, _, _ = written
    text = (folder / "claims.json").read_text(encoding="utf-8")
    (tmp_path / "wrong.json").write_text(text.replace("null", "NaN"), encoding="utf-8")
    with pytest.raises(InputError, match="NaN"):
        table.read(tmp_path / "wrong.json")


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"null", b"{", b"\xff", b"NaN", b'"text"', b"[" * 100_000]
)
def test_what_is_no_report_is_refused(tmp_path, content):
    path = tmp_path / "wrong.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"wrong\.json"):
        table.read(path)
    with pytest.raises(InputError, match="none"):
        table.read(tmp_path / "none.json")
    with pytest.raises(InputError, match="cannot be read"):
        table.read(tmp_path)


# Odd values

numbers = st.one_of(
    st.floats(), st.sampled_from([math.nan, math.inf, -math.inf, 1e-9, -1e300, 1e300, 0.0, -0.0])
)
words = st.one_of(
    st.sampled_from(["a|b", "line\nbreak", "*bold*", "_it_", "<b>", "`x`", "[l](u)", "$x$", "\\|"]),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12),
)
places = st.sampled_from([*LAYERS[:2], ALL])


@st.composite
def reports(draw):
    found = []
    for number in draw(st.lists(st.sampled_from("123456789"), unique=True, max_size=3)):
        rows = draw(
            st.lists(
                st.builds(
                    Row,
                    *(st.just(number), words, places, words),
                    estimate=st.builds(Estimate, numbers, numbers, numbers),
                    chance=st.none() | numbers.filter(lambda n: not math.isnan(n)),
                    number=st.integers(0, 10**6),
                    note=words,
                ),
                max_size=6,
                unique_by=lambda row: row.place,
            )
        )
        texts = {name: draw(words) for name in ("title", "sentence", "criterion", "finding")}
        found.append(claim(number, rows, draw(st.sampled_from(Verdict)), **texts))
    network = draw(words)
    return Report(facts(network, LAYERS[:2]), tuple(found))


odd = settings(
    deadline=None, max_examples=60, suppress_health_check=list(HealthCheck), print_blob=True
)


@odd
@given(odd_report=reports())
def test_odd_reports_are_written_and_read(odd_report, tmp_path_factory):
    folder = tmp_path_factory.mktemp("odd")
    *_, path = table.save(odd_report, folder)
    json.loads(path.read_text(encoding="utf-8"), parse_constant=pytest.fail)
    assert table.json_text(table.read(path)) == table.json_text(odd_report)
    lines = list(csv.reader(io.StringIO(table.csv_text(odd_report), newline="")))
    rows = [row for claim in odd_report.claims for row in claim.rows]
    assert [line[2:5] for line in lines[1:]] == [list(row.place) for row in rows]
    assert {len(line) for line in lines} == {11}
    pages = (table.markdown(odd_report), page.page([odd_report, odd_report], "claims"))
    for text in (*pages, table.summary([odd_report])):
        for block in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
            bars = {len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) for line in block.splitlines()}
            assert len(bars) == 1, block


@pytest.mark.filterwarnings("ignore:Glyph")
@settings(odd, max_examples=25)
@given(odd_report=reports())
def test_odd_reports_are_drawn(odd_report, tmp_path_factory):
    folder = tmp_path_factory.mktemp("odd")
    for path in plots.save(odd_report, folder):
        if path.suffix == ".svg":
            ET.parse(path)
        else:
            with Image.open(path) as image:
                assert image.width == plots.WIDTH * plots.DPI
    for one in odd_report.claims:
        assert "\n" not in plots.alternative(odd_report, one)


# Text and Markdown


def cells(line):
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def test_controls_stand_directly_below_the_filters_with_a_column_for_each_layer():
    text = table.markdown_tables(report().claims[0], list(LAYERS))
    lines = text.splitlines()
    assert cells(lines[0]) == ["quantity", "subject", *LAYERS, "chance", "n"]
    body = [cells(line) for line in lines[2:8]]
    assert [line[1] for line in body] == [FILTERS, *CONTROLS]
    assert [line[0] for line in body] == ["share", "", "", "", "", ""]
    assert body[0][2] == ".90 [.84, .95]"
    assert body[0][6] == "-"
    assert body[0][-2:] == [".020", "16"]
    notes = [line for line in lines if line.startswith("- ")]
    assert notes == [
        "- filters, chained (relu5_2, relu1_2, relu2_2): filter 3 cannot be driven"
    ]  # once, with all that it is about


def test_values_of_no_single_layer_have_a_table_of_their_own():
    first, second = table.markdown_tables(report().claims[1], list(LAYERS)).split("\n\n")
    assert "variance" not in first
    head, _, *body = [cells(line) for line in second.splitlines()]
    assert head == ["quantity", "subject", "value", "chance", "n"]
    assert body[0] == ["variance", "sums", ".60 [.50, .70]", ".10", "200"]


def test_chance_of_several_layers_is_a_range():
    rows = [Row("1", "q", LAYERS[i], FILTERS, NAN, 1 / 2 ** (i + 2)) for i in range(3)]
    assert table.chance(rows) == ".062 to .25"
    assert table.chance(rows[:1]) == ".25"
    assert table.chance(overall("1")[:0]) == "-"


def test_the_summary_puts_networks_side_by_side_in_at_most_ten_lines():
    several = [report(name) for name in ("embedded", "vgg16-hed", "VGG-19")]
    of_first = tuple(dataclasses.replace(c, finding="of the first") for c in several[0].claims)
    several[0] = dataclasses.replace(several[0], claims=of_first)
    text = table.summary(several)
    head, _, *lines = text.splitlines()
    assert len(lines) + 1 == table.MOST_LINES
    assert cells(head)[1:4] == ["embedded", "vgg16-hed", "VGG-19"]
    third = cells(lines[2])
    assert third == ["Sentence 3.", *["does not hold"] * 3, "Finding 3. (VGG-19)"]
    assert cells(lines[4])[1:] == [*["not measured"] * 3, "-"]
    numbers = ("10", "9", "2")
    found = [Report(facts(), (claim(n, [], finding=f"from {n}"),)) for n in numbers]
    assert [[c and c.number for c in own] for own in table.union(found)] == [
        [None, None, "2"],
        [None, "9", None],
        ["10", None, None],
    ]


def test_a_claim_that_one_network_lacks_is_not_measured_there():
    some = dataclasses.replace(report("VGG-19"), claims=report().claims[5:6])
    lines = table.summary([report(), some]).splitlines()[2:]
    assert cells(lines[0])[1:] == ["holds in part", "not measured", "Finding 1. (embedded)"]
    assert cells(lines[5])[1:] == ["holds in part", "holds in part", "Finding 6. (VGG-19)"]
    assert "not measured" in page.page([report(), some], "claims")


def test_more_lines_than_ten_are_refused():
    ten = Report(facts(), tuple(claim(str(n), []) for n in range(10)))
    with pytest.raises(InputError, match="10"):
        table.summary([ten])


def test_text_has_all_values_and_fits_a_wide_terminal():
    text = table.text(report())
    for one in report().claims:
        assert f"{one.number}. {one.title}: {one.verdict.value}" in text
        for row in one.rows:
            assert table.compact(row.estimate) in text
    assert max(map(len, text.splitlines())) < 130


def test_markdown_shows_plain_text_as_it_is():
    assert table.escaped("a|b\n*c* relu1_2 _d_ <e>") == r"a\|b \*c\* relu1_2 \_d\_ \<e\>"


# Plots


def contrast(colour):
    """Relative luminance of WCAG 2.1 as contrast to white."""
    values = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    return 1.05 / (float(linear @ [0.2126, 0.7152, 0.0722]) + 0.05)


def test_subjects_can_be_told_apart_in_grey():
    names = [FILTERS, *CONTROLS, *(f"other {n}" for n in range(5))]
    look = plots.looks([Row("1", "q", ALL, name, NAN) for name in names])
    markers = [look[name].marker for name in names]
    assert len(set(markers)) == len(names)
    for one, other in itertools.combinations([FILTERS, *CONTROLS], 2):
        assert look[one].line != look[other].line
        assert look[one].colour != look[other].colour
    assert all(contrast(look[name].colour) > 2 for name in names)
    strongest = look[FILTERS]
    assert strongest.colour == plots.BLACK
    for name in names[1:]:
        assert contrast(look[name].colour) < contrast(strongest.colour) / 3
        assert look[name].width <= strongest.width / 2
        assert look[name].size < strongest.size


def test_controls_look_the_same_in_all_figures():
    many = plots.looks(by_layer("1"))
    few = plots.looks(by_layer("3", subjects=("natural picture", "something", FILTERS)))
    assert many["natural picture"] == few["natural picture"]
    assert many[FILTERS] == few[FILTERS]


def test_subjects_share_no_colour_while_there_are_enough():
    present = CONTROLS[:4]
    names = [FILTERS, *present, "another filter's panels", "the filter's other top crops"]
    look = plots.looks([Row("3", "q", ALL, name, NAN) for name in names])
    assert len({look[name].colour for name in names}) == len(names)
    assert len({look[name].marker for name in names}) == len(names)


def test_plots_show_all_layers_subjects_and_quantities(written):
    folder, _, _ = written
    texts = [e.text for e in ET.parse(folder / "claim_2.svg").iter(f"{SVG}text")]
    for shown in (*LAYERS, FILTERS, *CONTROLS, "AUC", "Found again", "Variance", "chance"):
        assert shown in texts, shown
    with Image.open(folder / "claim_2.png") as image:
        pixels = np.asarray(image.convert("RGB")).reshape(-1, 3)
    for colour in plots.COLOURS[: len(CONTROLS)]:
        wanted = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
        assert (pixels == wanted).all(1).sum() > 50, colour


def drawn_values(axes):
    """The points of the lines with markers."""
    lines = [line for line in axes.get_lines() if line.get_marker() != "None"]
    return [np.asarray(line.get_ydata(), float) for line in lines]


def test_lines_are_the_values_and_bars_are_the_intervals():
    found = report()
    axes = plots.figure(found, found.claims[0]).axes[0]
    values = drawn_values(axes)
    assert len(values) == 1 + len(CONTROLS)
    np.testing.assert_allclose(values[0][:4], [0.9, 0.87, 0.84, 0.81])
    assert np.isnan(values[0][4])
    bars = [path.vertices[:, 1] for c in axes.collections for path in c.get_paths()]
    assert any(np.allclose(bar, [0.84, 0.95]) for bar in bars)
    assert len(bars) == (1 + len(CONTROLS)) * len(LAYERS) - 3
    assert any(np.allclose(line.get_ydata(), 0.02) for line in axes.get_lines())  # chance


def test_each_layer_has_its_own_chance():
    rows = [
        dataclasses.replace(row, chance=0.1 * (1 + LAYERS.index(row.layer)))
        for row in by_layer("1", subjects=(FILTERS,))
    ]
    found = Report(facts(), (claim("1", rows),))
    axes = plots.figure(found, found.claims[0]).axes[0]
    ends = [path.vertices for c in axes.collections for path in c.get_paths()]
    flat = sorted(v.tolist() for v in ends if v[0, 1] == v[1, 1])
    wanted = [[[i - 0.5, 0.1 * (i + 1)], [i + 0.5, 0.1 * (i + 1)]] for i in range(5)]
    np.testing.assert_allclose(flat, wanted)


def shown_texts(figure):
    """The texts of a figure with their boxes; ticks outside the axes are not drawn."""
    FigureCanvasAgg(figure).draw()
    texts = [*figure.texts, *(text for legend in figure.legends for text in legend.get_texts())]
    for axes in figure.axes:
        texts += axes.texts
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            texts += [t.label1 for t in axis.get_major_ticks() if low <= t.get_loc() <= high]
    return {text: text.get_window_extent() for text in texts if text.get_text()}


LONG = "a quantity whose name is long enough for three lines of text, or for even more than three"


@pytest.mark.parametrize("change", ["", "activation0", "_" + "x" * 40])
def test_no_text_overlaps_another_or_leaves_the_figure(change):
    rows = [
        *by_layer("3", LONG, (FILTERS, *CONTROLS, "one more", "another with quite a long name")),
        *overall("3", f"{LONG} again", ("a subject with quite a long name", "short")),
        *overall("3", "third", [f"subject {n}" for n in range(9)]),
    ]
    rows = [dataclasses.replace(r, layer=r.layer + change * (r.layer != ALL)) for r in rows]
    found = Report(facts(layers=()), (claim("3", rows), *report().claims[1:2]))
    for one in found.claims:
        figure = plots.figure(found, one)
        texts = shown_texts(figure)
        assert len(texts) > 20
        for text, box in texts.items():
            assert box.x0 >= 0, text
            assert box.y0 >= 0, text
            assert box.x1 <= figure.bbox.x1, text
            assert box.y1 <= figure.bbox.y1, text
        level = [(text, box) for text, box in texts.items() if not text.get_rotation()]
        for (text, box), (other, second) in itertools.combinations(level, 2):
            assert not box.shrunk(0.95, 0.9).overlaps(second.shrunk(0.95, 0.9)), (text, other)


def test_a_panel_without_values_says_so():
    rows = [
        *by_layer("3", "share"),
        *(dataclasses.replace(row, estimate=NAN) for row in by_layer("3", "rank")),
    ]
    found = Report(facts(), (claim("3", rows),))
    full, empty = plots.figure(found, found.claims[0]).axes
    assert "not measured" not in [text.get_text() for text in full.texts]
    assert [text.get_text() for text in empty.texts] == ["not measured"]


def test_formulas_are_shown_as_text(tmp_path):
    rows = [Row("1", r"$\nothing{$", ALL, "a $x$", Estimate(1.0, 0.5, 1.5))]
    plots.save(Report(facts(), (claim("1", rows, title="$y$"),)), tmp_path)
    texts = [e.text for e in ET.parse(tmp_path / "claim_1.svg").iter(f"{SVG}text")]
    assert {r"$\nothing{$", "a $x$", "1. $y$ (embedded)"} <= set(texts)


def test_equal_reports_give_equal_files(written, tmp_path):
    folder, _, drawn = written
    for path in plots.save(report(), tmp_path):
        assert path.read_bytes() == (folder / path.name).read_bytes()
    assert len(drawn) == len(list(tmp_path.iterdir()))


def test_a_sentence_tells_what_a_plot_shows():
    found = report()
    told = plots.alternative(found, found.claims[0])
    assert "filters .90 at relu1_2 and .81 at relu4_2" in told
    assert "controls from .23 to .79" in told
    assert "embedded" in told
    assert "not measured" in plots.alternative(found, found.claims[-1])


# The page


def test_the_page_shows_each_claim_of_each_network_with_its_plot(tmp_path):
    several = [report("embedded"), report("VGG 19/é"), report("embedded")]
    path, *drawn = page.save(several, tmp_path / "docs" / "claims.md")
    text = path.read_text(encoding="utf-8")
    images = re.findall(r"!\[(?:[^\]\\]|\\.)*\]\(([^)]*)\)", text)
    assert sorted(path.parent / name for name in images) == sorted(drawn)
    assert len(set(drawn)) == 3 * 7
    assert all(one.is_file() for one in drawn)
    for one in report().claims:
        assert text.count(f"## {one.number}. {one.title}\n") == 1
        assert text.count(f"> {one.sentence}\n") == 1
        assert one.criterion in text
    for control in CONTROLS:
        assert f"- `{control}`:" in text
    assert text.count("**does not hold**") == 3


def test_the_page_needs_a_report():
    with pytest.raises(InputError):
        page.page([], "claims")


def test_layers_are_in_the_order_of_depth():
    orders = [["a2", "b2", "c2"], ["a1", "a2", "b1", "b2"], ["b2", "c1", "c2"]]
    assert table.merged(orders) == ["a1", "a2", "b1", "b2", "c1", "c2"]
    assert table.merged([["x", "y"], ["y", "x"]]) in (["x", "y"], ["y", "x"])
    assert table.merged([[], []]) == []
