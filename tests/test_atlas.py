"""The atlas: its files, links, texts, numbers and refusals."""

import hashlib
import html.parser
import json
import re
import shutil
from urllib.parse import unquote, urlsplit

import numpy as np
import pytest
import yaml
from atlas_dummies import dummies
from conftest import smooth_picture
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from fmi import cli, invert, request
from fmi.atlas import contents, curves, measures, site, tiles
from fmi.atlas.addresses import slug
from fmi.evidence import crops
from fmi.networks import catalogue
from fmi.runs import experiment, figures, store
from fmi.runs.sweep import Sweep, panels, read

ODD = 'a <b> & "q" \'s'
LAYERS = ("relu1_2", "relu2_1")
FILTERS = tuple(range(6))


class Page(html.parser.HTMLParser):
    """What the tests need of a page."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.headings, self.text = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))

    def handle_data(self, data):
        self.text.append(data)

    def of(self, name):
        return [attributes for tag, attributes in self.tags if tag == name]

    @property
    def links(self):
        found = [a[key] for _, a in self.tags for key in ("href", "src") if a.get(key)]
        styles = [a["style"] for _, a in self.tags if a.get("style")]
        return found + [url for style in styles for url in re.findall(r"url\('(.*?)'\)", style)]


def pages(folder):
    return {path: Page(path.read_text(encoding="utf-8")) for path in sorted(folder.rglob("*.html"))}


def digests(folder):
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """A sweep of two layers, six filters and two pictures, and its first panel is missing."""
    folder = tmp_path_factory.mktemp("sweep")
    names = [folder / f"{ODD}.png", folder / "plain.png"]
    for seed, name in enumerate(names):
        Image.fromarray(smooth_picture(36, 48, seed)).save(name)
    asked = {
        "figure": "sweep",
        "weights": "embedded",
        "layers": list(LAYERS),
        "filters": list(FILTERS),
        "pictures": [str(name) for name in names],
        "long_edge": 48,
        "steps": 5,
    }
    (folder / "sweep.yaml").write_text(yaml.safe_dump(asked))
    run = figures.Run(read(folder / "sweep.yaml"))
    for name in names:
        for layer in LAYERS:
            request.feature_map(str(name), layer, list(FILTERS), False, None, run.options).compute()
    shutil.rmtree(run.store.path(panels(run)[0].key))
    return folder


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    for seed in range(3):
        Image.fromarray(smooth_picture(90, 120, 10 + seed)).save(folder / f"photo {seed}.png")
    return folder


@pytest.fixture(scope="module")
def atlas(sweep, photos, tmp_path_factory):
    out = tmp_path_factory.mktemp("atlas") / "out"
    assert cli.main(["atlas", str(sweep), "--out", str(out), "--photos", str(photos)]) == 0
    return out


# --- the site ---


def test_there_is_a_page_for_the_atlas_each_layer_and_each_filter(atlas):
    found = {str(path.relative_to(atlas)) for path in pages(atlas)}
    filters = {f"{layer}/{index}.html" for layer in LAYERS for index in FILTERS}
    assert found == {"index.html", *(f"{layer}/index.html" for layer in LAYERS), *filters}


def test_every_link_leads_to_a_file_of_the_folder(atlas):
    for path, page in pages(atlas).items():
        ids = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme:
                assert link == "https://arxiv.org/abs/1608.04170"
            elif parts.path:
                target = (path.parent / unquote(parts.path)).resolve()
                assert target.is_file() and atlas.resolve() in target.parents, (path, link)
            else:
                assert parts.fragment in ids


def test_nothing_is_loaded_from_elsewhere(atlas):
    for path in atlas.rglob("*"):
        if path.suffix in (".html", ".css", ".js", ".svg"):
            text = path.read_text(encoding="utf-8")
            elsewhere = set(re.findall(r"(?:https?:)?//[\w.]+[^\s\"'<)]*", text))
            elsewhere -= {"https://arxiv.org/abs/1608.04170", "http://www.w3.org/2000/svg"}
            assert not elsewhere, path
            assert "@import" not in text and "fetch(" not in text and "@font-face" not in text


def test_pages_are_accessible_in_what_can_be_read_from_the_source(atlas):
    titles = set()
    for path, page in pages(atlas).items():
        assert page.of("html")[0]["lang"] == "en"
        decorative = [a for a in page.of("img") if a.get("alt") == ""]
        assert [a["src"].rsplit("/")[-1] for a in decorative] == ["icon.svg"], path
        assert all("alt" in a and "width" in a and "height" in a for a in page.of("img"))
        assert all(a["aria-label"] for _, a in page.tags if a.get("role") == "img")
        assert len(page.of("main")) == len(page.of("header")) == len(page.of("footer")) == 1
        shown = page.headings
        assert shown[0] == 1 and shown.count(1) == 1
        assert all(b - a <= 1 for a, b in zip(shown, shown[1:])), path
        titles.add(re.search("<title>(.*?)</title>", path.read_text(encoding="utf-8")).group(1))
    assert len(titles) == len(pages(atlas))


def test_a_filters_page_shows_its_numbers(atlas, sweep):
    run = figures.Run(read(sweep / "sweep.yaml"))
    panel = next(p for p in panels(run) if p.layer == "relu2_1" and p.filter == 3)
    found = run.store.find(panel.key)
    page = pages(atlas)[atlas / "relu2_1/3.html"]
    text = " ".join("".join(page.text).split())
    assert panel.key in text
    for value in (found.energy_share, found.explained, found.loss[-1]):
        assert f"{value:.3g}" in text
    texture = atlas / f"relu2_1/textures/{slug(ODD)}/3.jpg"
    difference = np.asarray(Image.open(texture), float) - np.asarray(found.image, float)
    assert np.abs(difference).mean() < 6  # JPEG
    (previous,), (following,) = (
        [a for a in page.of("a") if a.get("rel") == r] for r in ("prev", "next")
    )
    assert (previous["href"], following["href"]) == ("2.html", "4.html")


def test_missing_panels_are_shown_as_such(atlas):
    grid = pages(atlas)[atlas / "relu1_2/index.html"]
    states = {
        a["data-filter"]: a["data-states"].split(",") for a in grid.of("li") if "data-filter" in a
    }
    assert set(states) == set(map(str, FILTERS))
    assert states["0"][0] == "missing" and states["0"][1] != "missing"
    assert [a["src"] for a in grid.of("img")].count("../static/missing.svg") == 1
    assert "has not been computed" in (atlas / "relu1_2/0.html").read_text()
    assert "has not been computed" not in (atlas / "relu1_2/1.html").read_text()
    assert "23 of 24" in (atlas / "index.html").read_text()


def test_odd_names_are_escaped_everywhere(tmp_path):
    layer = '<script>alert(1)</script>/"x" y'
    site.write(dummies([(layer, 3), ("static", 2)], [ODD, "..", "plain"]), tmp_path / "out")
    for path, page in pages(tmp_path / "out").items():
        for attributes in page.of("script"):
            assert attributes.get("src"), path  # no script inside a page
        assert "onerror" not in str(page.tags)
        for link in page.links:
            if not urlsplit(link).scheme and urlsplit(link).path:
                assert (path.parent / urlsplit(link).path).is_file()
    front = pages(tmp_path / "out")[tmp_path / "out/index.html"]
    assert layer in "".join(front.text) and ODD in "".join(front.text)
    assert (tmp_path / "out/static/atlas.css").is_file()


@given(st.text(max_size=80), st.text(max_size=80))
def test_addresses_are_safe_and_distinct(one, other):
    assert re.fullmatch(r"\w[\w.-]*", slug(one), re.ASCII)
    assert len(slug(one)) <= 69
    assert (slug(one) == slug(other)) == (one == other)
    assert slug(one) not in ("static", "pictures", "index")


@pytest.mark.parametrize("name", ["my picture", "!", "index", "ä", "x" * 61, "deadbeef"])
def test_the_address_of_a_name_is_not_that_of_another(name):
    chain = [name]  # of names, each of which is the address of the one before
    for _ in range(3):
        chain.append(slug(chain[-1]))
    assert len(set(chain)) == 4


@pytest.mark.parametrize("name", ["relu3_2", "IMG-2020", "a-1234567", "x-123456789", "A.b-c_d"])
def test_the_address_of_an_ordinary_name_is_the_name(name):
    assert slug(name) == name


def test_the_same_store_gives_the_same_bytes(atlas, sweep, photos, tmp_path):
    site.write(contents.read(sweep, photos), tmp_path / "again")
    assert digests(tmp_path / "again") == digests(atlas)


def test_the_search_index_has_all_filters_and_is_a_script(atlas):
    text = (atlas / "static/index.js").read_text()
    found = json.loads(re.fullmatch(r"window\.ATLAS = (.*);\n", text).group(1))
    assert found == {"layers": [[layer, layer, [[0, 5]]] for layer in LAYERS]}


def test_the_commands_repeat_the_panel(atlas, sweep):
    page = (atlas / "relu2_1/4.html").read_text(encoding="utf-8")
    text = "".join(Page(page).text)
    run = figures.Run(read(sweep / "sweep.yaml"))
    keys = [p.key for p in panels(run) if (p.layer, p.filter) == ("relu2_1", 4)]
    calls = re.findall(r"^fmi\.invert\.feature_map\(.*\)$", text, re.MULTILINE)
    names = {}
    exec(re.search("^import .*$", text, re.MULTILINE).group(), names)
    made = [eval(call, names)[0] for call in calls]
    assert [store.key(one.record) for one in made] == keys
    (command,) = re.findall(r"^fmi sweep .*$", text, re.MULTILINE)
    overrides = command.split()[3:]
    asked = experiment.read(atlas / "sweep.yaml", overrides, {"sweep": Sweep})
    assert [p.key for p in panels(figures.Run(asked))] == keys


def test_the_published_yaml_names_no_folder_of_this_machine(atlas, sweep):
    assert "store" not in yaml.safe_load((atlas / "sweep.yaml").read_text())


# --- pictures and numbers ---


def test_spritemaps_are_in_channel_order(atlas):
    index = json.loads((atlas / "relu1_2/spritemap.json").read_text())
    assert index["n_channels"] == 16 and index["sprite_n_wrap"] == 4
    about = index["pictures"][ODD]
    assert about["channels"] == [1, 2, 3, 4, 5]
    sheet = np.asarray(Image.open(atlas / "relu1_2" / about["spritemap_url"]))
    size = index["sprite_size"]
    assert sheet.shape == (4 * size, 4 * size, 3)
    for channel in range(16):
        top, left = channel // 4 * size, channel % 4 * size
        cell = sheet[top : top + size, left : left + size]
        path = atlas / f"relu1_2/tiles/{slug(ODD)}/{channel}.jpg"
        expected = np.asarray(Image.open(path)) if path.is_file() else tiles.BLANK
        assert (cell == expected).all()


def test_a_tile_is_the_middle_of_a_panel():
    pixels = smooth_picture(120, 200)
    assert (tiles.tile(pixels, 96) == pixels[12:108, 52:148]).all()
    assert tiles.side(5) == 96 and tiles.side(100) == 800
    assert tiles.tile(pixels[:40], 96).shape == (96, 96, 3)  # enlarged


@given(st.lists(st.integers(0, 999), unique=True, max_size=60), st.integers(2, 12))
def test_evenly_spaced_items_begin_and_end_with_those_of_all(items, number):
    found = tiles.evenly(items, number)
    assert len(found) == min(len(items), number) and len(set(found)) == len(found)
    assert found[:1] == items[:1] and found[-1:] == items[-1:]


def test_alike_items_are_neighbours_in_the_order():
    places = np.array([3.0, 0.0, 2.0, 1.0, 4.0])
    order = measures.order(np.abs(places[:, None] - places))
    assert list(places[order]) in ([0, 1, 2, 3, 4], [4, 3, 2, 1, 0])
    assert measures.order(np.zeros((0, 0))) == [] and measures.order(np.zeros((1, 1))) == [0]


def test_found_again_agrees_with_the_evidence():
    """The mean of the filters' shares is that of fmi.evidence.retrieval, if none is missing."""
    from fmi.evidence import retrieval
    from fmi.evidence.textures import OrientedBands

    random = np.random.RandomState(0)
    own = random.normal(size=(8, 1, 4)) + 0.6 * random.normal(size=(8, 3, 4))
    shares = measures.found_again([list(row) for row in own])
    vectors = own.reshape(-1, 4)
    expected = retrieval.found_again(
        OrientedBands().distances(vectors), retrieval.addresses(8, 3), resamples=20
    )
    assert np.mean(shares) == pytest.approx(expected.value)
    assert 0 < np.mean(shares) < 1


def test_found_again_is_not_defined_for_one_picture():
    vector = np.ones(3)
    assert measures.found_again([[vector], [vector]]) == [None, None]
    assert measures.found_again([[vector, None], [2 * vector, vector]])[0] is None


def test_a_missing_panel_does_not_make_a_filter_different():
    """The effect of a picture is not taken for one of the filter."""
    filters, effect = np.arange(4.0)[:, None], np.array([0.0, 100.0])
    rows = [[f + e for e in effect] for f in filters]
    rows[2][1] = None
    found = np.array(measures.means(rows)).ravel()
    assert np.abs(np.diff(found)).max() < 3


@pytest.mark.parametrize(
    "explained, state", [(0.3, "driven"), (-0.1, "not driven"), (None, "silent")]
)
def test_states(explained, state):
    assert measures.state(explained) == state


def test_a_curve_falls_from_left_to_right():
    svg = str(curves.loss_curve(list(np.geomspace(100, 1, 1000))))
    points = [tuple(map(float, p.split(","))) for p in re.search('points="(.*?)"', svg)[1].split()]
    x, y = np.array(points).T
    assert len(points) == curves.POINTS
    assert (np.diff(x) > 0).all() and (np.diff(y) > 0).all()  # SVG counts downwards
    assert "1000 steps" in svg
    assert curves.loss_curve([]) == ""
    assert "logarithmic" not in curves.loss_curve([1.0, -1.0])
    assert "nan" not in curves.loss_curve([5.0])


@pytest.mark.parametrize("floor, logarithmic", [(1, True), (0, False)])
def test_the_labels_of_a_curve_are_the_heights_that_are_drawn(floor, logarithmic):
    loss = [100.0, 5000.0, *(1000 * 0.99**n + 1 for n in range(500))]
    loss[-3] = floor / 2
    svg = str(curves.loss_curve(loss))
    points = [tuple(map(float, p.split(","))) for p in re.search('points="(.*?)"', svg)[1].split()]
    x, y = np.array(points).T
    places = re.findall(r'<text x="62" y="([\d.]+)" text-anchor="end">(.*?)</text>', svg)
    (_, most), (bottom, least) = places
    assert (float(most), float(least)) == (5000, floor / 2)
    height = np.log10 if logarithmic else np.asarray
    top = y.min()
    share = (height(5000.0) - height(100.0)) / (height(5000.0) - height(floor / 2))
    assert y[0] == pytest.approx(top + share * (float(bottom) - top), abs=0.1)
    assert y.max() == float(bottom) and y.argmin() == 1 and y.argmax() == len(y) - 2
    assert x[0] == x.min() and x[-1] == x.max() and (np.diff(x) > 0).all()
    assert len(x) <= curves.POINTS + 2


@pytest.mark.parametrize("field, size", [(1, 24), (32, 32), (500, 160)])
def test_crops_have_the_size_of_the_receptive_field_within_bounds(field, size):
    assert contents.crop(field) == size


def test_crops_are_those_that_excite_the_filter_most(atlas, sweep, photos):
    made = contents.read(sweep, photos)
    layer = made.layers[1]
    natural = made.natural(layer)
    best = natural.responses[:, 2].argmax()
    sheet = np.asarray(Image.open(atlas / "relu2_1/crops/2.jpg"), float)
    expected = tiles.row([natural.crops.pixels[best]])
    assert np.abs(sheet[:, : tiles.SIDE] - expected).mean() < 6
    first = next(a for a in pages(atlas)[atlas / "relu2_1/2.html"].of("span") if a.get("role"))
    assert natural.names[natural.crops.picture[best]] in first["aria-label"]


# --- refusals ---


def refused(arguments, capsys):
    assert cli.main(["atlas", *map(str, arguments)]) == 2
    text = capsys.readouterr().err.strip()
    lines = [line for line in text.splitlines() if line.startswith("fmi: ")]
    assert len(lines) == 1 and "Traceback" not in text
    return lines[0]


def test_a_folder_without_a_sweep_is_refused(tmp_path, capsys):
    assert "sweep.yaml" in refused([tmp_path], capsys)
    assert "nowhere" in refused([tmp_path / "nowhere"], capsys)


def test_an_empty_store_is_refused(sweep, tmp_path, capsys):
    shutil.copy(sweep / "sweep.yaml", tmp_path)
    assert "empty" in refused([tmp_path], capsys)
    assert not (tmp_path / "atlas").exists()


def test_a_store_without_these_panels_is_refused(sweep, photos, tmp_path, capsys):
    text = (sweep / "sweep.yaml").read_text().replace("steps: 5", "steps: 6")
    (tmp_path / "sweep.yaml").write_text(text)
    shutil.copytree(sweep / "store", tmp_path / "store")
    assert "none of the panels" in refused([tmp_path, "--photos", photos], capsys)
    assert not list(tmp_path.glob("*atlas*")) and not list(tmp_path.glob(".*"))


def test_missing_photographs_are_refused(sweep, tmp_path, capsys):
    out = ["--out", tmp_path / "out"]
    assert "photographs" in refused([sweep, *out, "--photos", tmp_path / "none"], capsys)
    (tmp_path / "empty").mkdir()
    assert "photograph" in refused([sweep, *out, "--photos", tmp_path / "empty"], capsys)
    assert not (tmp_path / "out").exists()


def test_what_is_not_an_atlas_is_not_overwritten(sweep, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/thesis.tex").write_text("years of work")
    (tmp_path / "out/atlas.json").write_text("[]")
    assert "--out" in refused([sweep, "--out", tmp_path / "out"], capsys)
    assert (tmp_path / "out/thesis.tex").read_text() == "years of work"
    assert "--out" in refused([sweep, "--out", tmp_path / "out/thesis.tex"], capsys)


def test_an_atlas_is_replaced_whole(tmp_path):
    site.write(dummies([("one", 3)]), tmp_path / "out")
    site.write(dummies([("other", 2)]), tmp_path / "out")
    assert not (tmp_path / "out/one").exists() and (tmp_path / "out/other/1.html").is_file()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_failure_leaves_the_atlas_that_is_there(tmp_path):
    site.write(dummies([("one", 3)]), tmp_path / "out")
    before = digests(tmp_path / "out")
    broken = dummies([("other", 2)], missing=("other:0:a", "other:1:a"))
    with pytest.raises(ValueError, match="none of the panels"):
        site.write(broken, tmp_path / "out")
    assert digests(tmp_path / "out") == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_folder_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="cannot be written"):
        site.write(dummies([("one", 3)]), tmp_path / "file/out")


def test_damaged_results_are_shown_as_missing(sweep, photos, tmp_path):
    shutil.copytree(sweep, tmp_path / "sweep")
    run = figures.Run(read(sweep / "sweep.yaml"))
    key = panels(run)[3].key
    file = tmp_path / "sweep/store" / key[:2] / key / "array.npy"
    file.write_bytes(file.read_bytes()[:-1])
    site.write(contents.read(tmp_path / "sweep", photos), tmp_path / "out")
    assert "22 of 24" in (tmp_path / "out/index.html").read_text()


def test_a_filter_without_activation_has_a_target_as_all_others_have():
    """Eq. 2 gives it the sum of all feature maps; only a layer of zeros leaves none."""
    network = catalogue.load(weights="embedded")
    grey = np.full((32, 32, 3), 90, np.uint8)
    still = np.flatnonzero(crops.responses(network, [grey], ["relu3_1"])["relu3_1"][0] == 0)
    settings = {"steps": 1, "long_edge": 32, "network": network}
    (found,) = invert.feature_map(grey, "relu3_1", still[:1].tolist(), **settings)
    assert measures.state(found.explained) in (measures.State.DRIVEN, measures.State.WEAK)


def test_silent_filters_are_shown_as_such(tmp_path):
    made = dummies([("one", 2)])
    find = made.find

    def silent(key):
        found = find(key)
        if key.startswith("one:1"):
            found.explained = found.energy_share = None
        return found

    object.__setattr__(made, "find", silent)
    site.write(made, tmp_path / "out")
    assert "silent" in (tmp_path / "out/one/index.html").read_text()
    page = " ".join((tmp_path / "out/one/1.html").read_text().split())
    assert "<strong>Silent:</strong> this picture excites no filter of the layer" in page
    assert "<strong>Silent:</strong>" not in (tmp_path / "out/one/0.html").read_text()
