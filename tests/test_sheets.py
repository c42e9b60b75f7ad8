"""Sheets: which picture is where, and the texts around them."""

import logging
import os
import subprocess
import sys
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from fmi import sheets
from fmi.errors import InputError
from fmi.sheets import Block

HERE = Path(__file__).resolve().parent.parent
RED, GREEN, BLUE, TEAL = (250, 10, 20), (30, 240, 40), (50, 60, 230), (10, 120, 130)
WHITE = (255, 255, 255)
PANEL, GAP, TITLE, CAPTION, NOTE, LEFT = 2.5, 0.08, 0.35, 0.4, 0.25, 0.45  # inches
ELLIPSIS = "\N{HORIZONTAL ELLIPSIS}"


def flat(colour, height=75, width=100):
    return np.full((height, width, 3), colour, np.uint8)


def saved(figure, folder):
    png, pdf = sheets.save(figure, folder / "sheet")
    assert (png, pdf) == (folder / "sheet.png", folder / "sheet.pdf")
    with Image.open(png) as image:
        assert image.mode in ("RGB", "RGBA")
        return np.asarray(image.convert("RGB"))


def where(pixels, colour):
    """Left, top, width and height in inches of the area of a colour, which is all of it."""
    rows, columns = np.nonzero((pixels == colour).all(axis=2))
    assert len(rows), f"{colour} is nowhere"
    left, top = columns.min(), rows.min()
    width, height = columns.max() + 1 - left, rows.max() + 1 - top
    assert len(rows) == width * height
    return left / 200, top / 200, width / 200, height / 200


def near(*inches):
    return pytest.approx(inches, abs=0.0255)  # the frame takes two or three pixels on each side


def titles(figure):
    """The titles of columns and of rows, with their places in inches from the upper left."""
    renderer = FigureCanvasAgg(figure).get_renderer()
    height = figure.get_size_inches()[1]
    columns, rows = [], []
    for axes in figure.axes:
        for text, found in ((axes.title, columns), (axes.yaxis.label, rows)):
            if text.get_text():
                axes.apply_aspect()
                axes._update_title_position(renderer)
                axes.yaxis._update_label_position(renderer)
                box = text.get_window_extent(renderer)
                x, y = (box.x0 + box.x1) / 2 / figure.dpi, (box.y0 + box.y1) / 2 / figure.dpi
                found.append((text.get_text(), text.get_fontsize(), x, height - y))
    return columns, rows


def texts(figure):
    """The texts of captions and notes, with their boxes in inches from the upper left."""
    renderer = FigureCanvasAgg(figure).get_renderer()
    height = figure.get_size_inches()[1]
    found = []
    for text in figure.texts:
        box = text.get_window_extent(renderer)
        left, top, right, bottom = (n / figure.dpi for n in (box.x0, box.y1, box.x1, box.y0))
        inches = (left, height - top, right, height - bottom)
        found.append((text.get_text(), text.get_fontsize(), inches))
    return found


# --- panels ---


def test_each_panel_is_in_its_row_and_column(tmp_path):
    figure = sheets.sheet([Block([[flat(RED), flat(GREEN)], [flat(BLUE), flat(TEAL)]])])
    pixels = saved(figure, tmp_path)
    tall = PANEL * 0.75
    assert pixels.shape[:2] == (round((3 * GAP + 2 * tall) * 200), round((3 * GAP + 5) * 200))
    second = 2 * GAP + PANEL
    assert where(pixels, RED) == near(GAP, GAP, PANEL, tall)
    assert where(pixels, GREEN) == near(second, GAP, PANEL, tall)
    assert where(pixels, BLUE) == near(GAP, 2 * GAP + tall, PANEL, tall)
    assert where(pixels, TEAL) == near(second, 2 * GAP + tall, PANEL, tall)
    for corner in (pixels[:10, :10], pixels[-10:, -10:], pixels[:10, -10:]):
        assert (corner == WHITE).all()


def test_rows_of_panoramas_are_as_high_as_their_titles_need():
    panel = np.zeros((8, 120, 3), np.uint8)
    names = ("relu1_2", "stage2_relu0", "relu3_2:4,17")
    figure = sheets.sheet([sheets.Block([[panel]] * 3, rows=names)])
    assert tuple(axes.get_ylabel() for axes in figure.axes if axes.get_ylabel()) == names
    boxes = [axes.get_position() for axes in figure.axes if axes.images]
    assert len(boxes) == 3
    for box in boxes:  # panels keep their shape
        width, height = figure.get_size_inches()
        assert box.width * width / (box.height * height) == pytest.approx(15)


def test_the_size_and_resolution_of_a_sheet():
    assert (sheets.PANEL_INCHES, sheets.DPI) == (PANEL, 200)
    figure = sheets.sheet([Block([[flat(RED)] * 3])])
    assert figure.dpi == 200
    assert tuple(figure.get_size_inches()) == pytest.approx((GAP + 3 * (PANEL + GAP), 2.035))


def test_a_picture_is_neither_mirrored_nor_turned(tmp_path):
    panel = np.concatenate(
        [
            np.concatenate([flat(RED), flat(GREEN)], axis=1),
            np.concatenate([flat(BLUE), flat(TEAL)], axis=1),
        ]
    )
    pixels = saved(sheets.sheet([Block([[panel]])]), tmp_path)
    height, width = (side // 2 for side in pixels.shape[:2])
    for colour, y, x in ((RED, -99, -99), (GREEN, -99, 99), (BLUE, 99, -99), (TEAL, 99, 99)):
        assert tuple(pixels[height + y, width + x]) == colour


def test_a_panel_has_a_thin_black_frame(tmp_path):
    pixels = saved(sheets.sheet([Block([[flat(WHITE)]])]), tmp_path)
    line = pixels[pixels.shape[0] // 2]
    dark = np.nonzero((line < 128).all(axis=1))[0]
    assert len(dark) in (2, 4, 6)
    assert dark.min() == pytest.approx(GAP * 200, abs=2)
    assert dark.max() == pytest.approx((GAP + PANEL) * 200, abs=2)


def test_panels_are_resampled_smoothly(tmp_path):
    board = (np.indices((8, 8)).sum(axis=0) % 2 * 255).astype(np.uint8)
    panel = np.repeat(board[..., None], 3, axis=2)
    pixels = saved(sheets.sheet([Block([[panel]])]), tmp_path)
    inside = pixels[30:-30, 30:-30]
    assert len(np.unique(inside)) > 100  # Lanczos; with "nearest" it would be two


@pytest.mark.parametrize(
    ("first", "second", "tall"),
    [((50, 100), (100, 50), 5.0), ((100, 100), (50, 100), 2.5), ((30, 40), (31, 40), 1.9375)],
)
def test_panels_keep_their_shape_in_the_middle_of_their_boxes(tmp_path, first, second, tall):
    figure = sheets.sheet([Block([[flat(RED, *first), flat(GREEN, *second)]])])
    pixels = saved(figure, tmp_path)
    assert pixels.shape[0] == pytest.approx((2 * GAP + tall) * 200, abs=1)
    for colour, (height, width), x in ((RED, first, GAP), (GREEN, second, 2 * GAP + PANEL)):
        own = PANEL * height / width
        assert where(pixels, colour) == near(x, GAP + (tall - own) / 2, PANEL, own)


def test_what_is_around_a_panel_of_another_shape_is_white(tmp_path):
    pixels = saved(sheets.sheet([Block([[flat(RED, 50, 100), flat(GREEN, 100, 50)]])]), tmp_path)
    box = pixels[round(GAP * 200) : round((GAP + 5) * 200), : round((GAP + PANEL + 0.04) * 200)]
    assert (box[:360] == WHITE).all() and (box[-360:] == WHITE).all()


def test_rows_of_their_own_height_and_blocks_of_their_own_width(tmp_path):
    blocks = [Block([[flat(RED, 50, 100)], [flat(GREEN, 100, 100)]])]
    blocks += [Block([[flat(BLUE, 25, 100), flat(TEAL, 25, 100)]])]
    pixels = saved(sheets.sheet(blocks), tmp_path)
    assert where(pixels, RED) == near(GAP, GAP, PANEL, 1.25)
    assert where(pixels, GREEN) == near(GAP, 2 * GAP + 1.25, PANEL, PANEL)
    top = 4 * GAP + 1.25 + PANEL
    assert where(pixels, BLUE) == near(GAP, top, PANEL, 0.625)
    assert where(pixels, TEAL) == near(2 * GAP + PANEL, top, PANEL, 0.625)
    assert pixels.shape[:2] == (round((top + 0.625 + GAP) * 200), round((3 * GAP + 5) * 200))


def test_a_panel_may_be_missing(tmp_path):
    rows = [[None, flat(RED)], [flat(GREEN), None], [None, None]]
    block = Block(rows, rows=["a", "b", "c"], columns=["d", "e"])
    figure = sheets.sheet([block])
    pixels = saved(figure, tmp_path)
    tall = PANEL * 0.75
    assert where(pixels, RED) == near(LEFT + PANEL + GAP, TITLE, PANEL, tall)
    assert where(pixels, GREEN) == near(LEFT, TITLE + tall + GAP, PANEL, tall)
    first = pixels[round(TITLE * 200) + 5 : round((TITLE + tall) * 200), round(LEFT * 200) :]
    assert (first[:, : round(PANEL * 200)] == WHITE).all()
    assert pixels.shape[0] == round((TITLE + 2 * tall + PANEL + 3 * GAP) * 200)  # a square for none
    columns, labels = titles(figure)
    assert [title[0] for title in columns] == ["d", "e"]  # those of missing panels too
    assert [title[0] for title in labels] == ["a", "b", "c"]


def test_a_sheet_of_very_many_panels(tmp_path):
    figure = sheets.sheet([Block([[flat(RED, 1, 50)] * 150])])
    assert figure.dpi == int(sheets.MOST_PIXELS / (GAP + 150 * (PANEL + GAP)))
    png, _ = sheets.save(figure, tmp_path / "wide")
    with Image.open(png) as image:
        assert 64000 < image.width <= 65000
    high = sheets.sheet([Block([[flat(RED, 2, 2)]] * 130)])
    assert high.dpi == int(sheets.MOST_PIXELS / (GAP + 130 * (PANEL + GAP)))


# --- texts ---


def test_titles_of_columns_and_rows(tmp_path):
    block = Block([[flat(RED), flat(GREEN)]] * 2, rows=["one", "two"], columns=["left", "right"])
    figure = sheets.sheet([block])
    assert tuple(figure.get_size_inches()) == pytest.approx(
        (LEFT + 2 * (PANEL + GAP), TITLE + 2 * (1.875 + GAP))
    )
    columns, rows = titles(figure)
    half = PANEL / 2
    assert [found[:2] for found in columns] == [("left", 14), ("right", 14)]
    assert [found[2] for found in columns] == near(LEFT + half, LEFT + half + PANEL + GAP)
    assert all(0.15 < found[3] < 0.25 for found in columns)
    assert [found[:2] for found in rows] == [("one", 14), ("two", 14)]
    assert [found[3] for found in rows] == near(TITLE + 0.9375, TITLE + 1.875 + GAP + 0.9375)
    assert all(0.25 < found[2] < 0.33 for found in rows)
    for axes in figure.axes:
        assert (axes.yaxis.labelpad, len(axes.get_xticks()), len(axes.get_yticks())) == (4, 0, 0)


def test_only_the_first_row_and_column_are_titled():
    block = Block([[flat(RED)] * 3] * 3, rows=list("abc"), columns=list("def"))
    columns, rows = titles(sheets.sheet([block, Block([[flat(RED)]])]))
    assert [found[0] for found in columns] == list("def")
    assert [found[0] for found in rows] == list("abc")


def test_titles_are_on_the_box_of_a_panel_of_another_shape():
    panels = [[flat(RED, 50, 100), flat(GREEN, 100, 50)]]
    columns, rows = titles(sheets.sheet([Block(panels, rows=["row"], columns=["a", "b"])]))
    assert columns[0][3] == pytest.approx(columns[1][3], abs=0.03) and columns[0][3] < TITLE
    assert rows[0][3] == pytest.approx(TITLE + 2.5, abs=0.02)


def test_captions_and_the_note():
    blocks = [Block([[flat(RED)]], caption="first"), Block([[flat(BLUE)]], caption="second")]
    figure = sheets.sheet(blocks, "a note")
    block = 2 * GAP + 1.875 + CAPTION
    assert figure.get_size_inches()[1] == pytest.approx(2 * block + NOTE)
    found = texts(figure)
    assert [text[:2] for text in found] == [("first", 13), ("second", 13), ("a note", 9)]
    middle = (GAP + PANEL + GAP) / 2
    for number, (left, top, right, bottom) in enumerate([found[0][2], found[1][2]]):
        assert (left + right) / 2 == pytest.approx(middle, abs=0.01)
        panel = number * block + GAP + 1.875
        assert top == pytest.approx(panel + GAP + 0.1, abs=0.03)
        assert bottom < (number + 1) * block
    left, top, right, bottom = found[2][2]
    assert right == pytest.approx(GAP + PANEL, abs=0.01)
    assert bottom == pytest.approx(2 * block + NOTE - 0.06, abs=0.03) and top > 2 * block
    assert not texts(sheets.sheet([Block([[flat(RED)]])]))


def test_texts_are_drawn_in_the_file_too(tmp_path):
    plain = saved(sheets.sheet([Block([[flat(RED)]])]), tmp_path)
    block = Block([[flat(RED)]], rows=["row"], columns=["column"], caption="caption")
    pixels = saved(sheets.sheet([block], "note"), tmp_path)
    dark = (pixels < 100).all(axis=2)
    left, top, _, tall = where(pixels, RED)
    assert (left, top) == near(LEFT, TITLE)
    bottom = round((top + tall) * 200) + 4
    assert dark[: round(TITLE * 200) - 5].any() and dark[:, : round(LEFT * 200) - 5].any()
    assert dark[bottom : bottom + 90].any() and dark[-45:].any()
    assert not (plain[:10] < 100).any()


@pytest.mark.parametrize("text", ["$x^{lar$", r"\frac", "$\\frac{$", "a_b^c$", "$\\alpha$", "%"])
def test_texts_are_no_formulas(tmp_path, text):
    block = Block([[flat(RED)]], rows=[text], columns=[text], caption=text)
    figure = sheets.sheet([block], text)
    saved(figure, tmp_path)
    columns, rows = titles(figure)
    assert {found[0] for found in (*columns, *rows, *texts(figure))} == {text}


def test_formulas_are_as_wide_as_their_characters():
    plain, formula = (
        texts(sheets.sheet([Block([[flat(RED)]])], t))[0][2] for t in ("Xaaa", "$aa$")
    )
    assert formula[2] - formula[0] > 0.8 * (plain[2] - plain[0])


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (os.fsdecode(b"x\xff"), "x\\udcff"),
        ("a\x1b[31m", "a\\x1b[31m"),
        ("a\nb\tc", "a\\nb\\tc"),
        ("a\0b", "a\\x00b"),
        ("Hölderlin  é", "Hölderlin  é"),
    ],
)
def test_names_that_cannot_be_drawn_are_escaped(tmp_path, text, shown):
    figure = sheets.sheet([Block([[flat(RED)]], [text], [text], text)], text)
    saved(figure, tmp_path)
    columns, rows = titles(figure)
    assert [found[0] for found in (*columns, *rows, *texts(figure))] == [shown] * 4


def test_a_long_name_is_made_smaller_and_then_cut_off():
    name = "Neckarfront with Hölderlinturm and Collegiate"
    block = Block([[flat(RED), flat(GREEN)]], rows=["row"], columns=["short", name])
    ((first, usual, *_), (second, small, *_)), _ = titles(sheets.sheet([block]))
    assert (first, usual, second) == ("short", 14, name) and 7 <= small < 9
    long = "".join(chr(97 + n % 26) for n in range(5000))
    figure = sheets.sheet([Block([[flat(RED), flat(GREEN)]], [long], [long, ""], long)], long)
    columns, rows = titles(figure)
    found = [*columns, *rows, *texts(figure)]
    assert len(found) == 4
    for text, size, *_ in found:
        assert text.endswith(ELLIPSIS) and long.startswith(text[:-1]) and len(text) > 10
        assert size in (7, 6.5, 4.5)
    for room, axes_text in ((PANEL, figure.axes[0].title), (1.875, figure.axes[0].yaxis.label)):
        box = axes_text.get_window_extent(FigureCanvasAgg(figure).get_renderer())
        wide = max(box.width, box.height) / figure.dpi
        assert room - 0.15 < wide < room + GAP + 0.01
    width = figure.get_size_inches()[0]
    for _, _, (left, _, right, _) in texts(figure):
        assert 0.5 * GAP < left < 3 * GAP and width - 3 * GAP < right < width - 0.5 * GAP


def test_a_long_title_of_a_flat_row_is_cut_off():
    figure = sheets.sheet([Block([[flat(RED, 1, 400)]], rows=["wide " * 9])])
    shown = titles(figure)[1][0][0]
    assert shown.startswith("wide wide") and shown.endswith(ELLIPSIS)


# --- files ---


def test_equal_sheets_are_equal_files(tmp_path):
    made = []
    for name in ("one", "two"):
        figure = sheets.sheet([Block([[flat(RED)]], ["r"], ["c"], "caption")], "note")
        made.append([path.read_bytes() for path in sheets.save(figure, tmp_path / name / "fig")])
    assert made[0] == made[1]
    png, pdf = made[0]
    assert pdf.startswith(b"%PDF")
    for word in (b"CreationDate", b"Producer", b"Creator", b"Matplotlib"):
        assert word not in pdf
    assert b"Software" not in png
    assert {path.name for path in (tmp_path / "one").iterdir()} == {"fig.png", "fig.pdf"}


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(InputError, match="cannot be written"):
        sheets.save(sheets.sheet([Block([[flat(RED)]])]), tmp_path / "file" / "fig")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


MAKE = """
import pathlib, sys
import numpy as np
from fmi import sheets
panel = np.random.RandomState(0).randint(0, 256, (30, 40, 3), dtype=np.uint8)
tall = panel.transpose(1, 0, 2)
block = sheets.Block([[panel, tall]], ["row"], ["column", "$x$"], "caption")
sheets.save(sheets.sheet([block], "note"), pathlib.Path(sys.argv[1]))
sheets.save(sheets.sheet([sheets.Block([[sheets.tiles(panel[:4, ..., 0].astype(float)[None])]])]),
            pathlib.Path(sys.argv[1] + "_tiles"))
"""
STRANGE = """
text.usetex: True
text.parse_math: True
font.size: 30
font.family: monospace
axes.grid: True
axes.linewidth: 9
axes.facecolor: red
axes.titlelocation: left
axes.titlesize: xx-small
axes.labelcolor: green
axes.unicode_minus: False
figure.dpi: 40
figure.facecolor: blue
figure.autolayout: True
savefig.dpi: 50
savefig.bbox: tight
savefig.facecolor: black
savefig.transparent: True
image.origin: lower
image.interpolation: nearest
image.lut: 4
text.color: red
text.hinting: none
pdf.fonttype: 42
pdf.compression: 0
path.sketch: 1, 100, 2
xtick.top: True
"""


def make(folder, name, code=MAKE, **environment):
    return subprocess.run(
        [sys.executable, "-c", code, str(folder / name)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        cwd=HERE,
    )


def test_the_users_matplotlibrc_changes_nothing(tmp_path):
    rc = tmp_path / "matplotlibrc"
    rc.write_text(STRANGE)
    for name, environment in (("usual", {}), ("strange", {"MATPLOTLIBRC": str(rc)})):
        done = make(tmp_path, name, **environment)
        assert done.returncode == 0, done.stderr
    for end in (".png", ".pdf", "_tiles.png", "_tiles.pdf"):
        usual, strange = ((tmp_path / f"{n}{end}").read_bytes() for n in ("usual", "strange"))
        assert usual == strange, end


def test_the_settings_of_matplotlib_are_as_before(tmp_path):
    with matplotlib.rc_context({"font.size": 31, "image.origin": "lower"}):
        before = dict(matplotlib.rcParams)
        saved(sheets.sheet([Block([[flat(RED)]])]), tmp_path)
        assert dict(matplotlib.rcParams) == before


@pytest.mark.parametrize(
    ("asked", "backend"), [("nothing_of_this_name", ""), ("svg", "svg"), ("", "")]
)
def test_a_backend_that_was_asked_for(tmp_path, asked, backend):
    code = MAKE + (
        "\nimport os, matplotlib; chosen = dict.__getitem__(matplotlib.rcParams, 'backend')\n"
        "print(os.environ['MPLBACKEND'], chosen if isinstance(chosen, str) else '', sep=',')"
    )
    done = make(tmp_path, "sheet", code, MPLBACKEND=asked)
    assert (done.returncode, done.stdout) == (0, f"{asked},{backend}\n"), done.stderr
    done = make(tmp_path, "again", "import matplotlib\n" + code, MPLBACKEND="svg")
    assert done.stdout == "svg,svg\n"


def test_a_matplotlibrc_that_is_no_text(tmp_path):
    (tmp_path / "matplotlibrc").write_bytes(b"\xff\xfe\x00")
    done = make(tmp_path, "sheet", MATPLOTLIBRC=str(tmp_path / "matplotlibrc"))
    last = done.stderr.splitlines()[-1]
    assert last.startswith("fmi.errors.SetupError") and "matplotlibrc" in last


# --- false colours, warped styles ---

LOWEST, HIGHEST, BETWEEN = (0, 0, 4), (252, 253, 191), (128, 128, 128)


def test_tiles_are_in_rows_with_lines_between(tmp_path):
    maps = np.zeros((3, 2, 4))
    maps[1] = 9
    found = sheets.tiles(maps, side=3)
    assert (found.shape, found.dtype) == ((15, 27, 3), np.uint8)  # 2 x 2 tiles and a line, times 3
    tiles = [found[:6, :12], found[:6, 15:], found[9:, :12], found[9:, 15:]]
    for tile, colour in zip(tiles, (LOWEST, HIGHEST, LOWEST, BETWEEN)):
        assert (tile == colour).all()
    assert (found[6:9] == BETWEEN).all() and (found[:, 12:15] == BETWEEN).all()


def test_each_value_is_a_square_at_its_place():
    maps = np.array([[[0.0, 1.0, 4.0], [9.0, 16.0, 2.0]]])
    found = sheets.tiles(maps)
    assert found.shape == (8, 12, 3)
    colours = matplotlib.colormaps["magma"]
    for (row, column), value in np.ndenumerate(maps[0]):
        wanted = np.rint(np.array(colours(np.sqrt(value / 16))[:3]) * 255)
        square = found[4 * row : 4 * row + 4, 4 * column : 4 * column + 4]
        assert (square == wanted).all()
    quarter = np.array(colours(0.25)[:3]) * 255  # of the root, for a sixteenth of the maximum
    assert np.abs(found[0, 4] - quarter).max() <= 1


@pytest.mark.parametrize(
    ("count", "shape"), [(1, (1, 1)), (2, (1, 2)), (4, (2, 2)), (5, (2, 3)), (10, (3, 4))]
)
def test_tiles_are_nearly_a_square(count, shape):
    maps = np.arange(count, dtype=float)[:, None, None] * np.ones((1, 2, 2))
    found = sheets.tiles(maps, side=1)
    assert found.shape[:2] == (3 * shape[0] - 1, 3 * shape[1] - 1)
    brightness = found[::3, ::3].astype(int).sum(axis=2).ravel()[:count]
    assert (np.diff(brightness) > 0).all()  # from left to right, then down


def test_tiles_without_any_energy_are_black():
    for value in (0.0, 1e-30):
        assert (sheets.tiles(np.full((1, 2, 2), value)) == LOWEST).all()


def test_negative_values_are_green():
    found = sheets.tiles(np.array([[[-4.0, 1.0, 0.0]], [[4.0, -1.0, 2.0]]]), side=1)
    minus_four, one, zero, _, plus_four, minus_one, _ = found[0]
    assert tuple(plus_four) == HIGHEST and tuple(zero) == LOWEST
    assert tuple(minus_four) == (HIGHEST[1], HIGHEST[0], HIGHEST[1])  # the brightest green
    assert tuple(minus_one) == (one[1], one[0], one[1]) and one[0] > one[1]


def test_a_style_is_warped_to_height_and_width():
    pixels = np.random.RandomState(0).randint(0, 256, (30, 20, 3), dtype=np.uint8)
    found = sheets.warped(pixels, (12, 25))
    wanted = Image.fromarray(pixels).resize((25, 12), Image.Resampling.LANCZOS)
    np.testing.assert_array_equal(found, np.asarray(wanted))
    assert found.shape == (12, 25, 3)


def test_a_colour_bar_tells_what_white_stands_for():
    maps = np.random.RandomState(0).uniform(0, 7.25, (4, 3, 3))
    maps[0, 0, 0] = 7.25
    panel = sheets.tiles(maps, side=1)
    figure = sheets.sheet([sheets.Block([[panel, panel]], maxima=[[7.25, 1234.0]])])
    bars = [axes for axes in figure.axes if axes.get_xticklabels()]
    labels = [[label.get_text() for label in axes.get_xticklabels()] for axes in bars]
    assert labels == [["0", "7.25"], ["0", "1.23e+03"]]
    colours = np.rint(np.asarray(bars[0].images[0].get_array())[0] * 255)
    for value, where in ((0.0, 0), (7.25, -1)):
        place = np.argwhere(np.isclose(maps[0], value))
        wanted = panel[tuple(place[0])] if len(place) else [0, 0, 4]
        np.testing.assert_allclose(colours[where][:3], np.asarray(wanted)[:3], atol=1)


def test_saving_logs_nothing_of_the_fonts(tmp_path, caplog):
    caplog.set_level("INFO")
    block = sheets.Block([[np.zeros((20, 30, 3), np.uint8)]], caption="letters of a caption")
    sheets.save(sheets.sheet([block]), tmp_path / "sheet")
    assert [record for record in caplog.records if record.name.startswith("fontTools")] == []
    assert logging.getLogger("fontTools").level == logging.NOTSET


def test_a_title_between_empty_ones_has_their_room():
    panel, title = np.zeros((30, 40, 3), np.uint8), "Neckarfront with Hölderlinturm and Collegiate"
    sizes = []
    for columns in (["", title, ""], ["style", title, "PMCI"], [title, "", ""]):
        drawn = sheets.sheet([Block([[panel] * 3], columns=columns)])
        (shown,) = [a.title for a in drawn.axes if a.get_title() == title]
        sizes.append(shown.get_fontsize())
    assert sizes[0] > sizes[1] == sizes[2]
