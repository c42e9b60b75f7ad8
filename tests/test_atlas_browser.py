"""The atlas in headless Chromium: links, search, keys, themes, accessibility and speed.

They need playwright (pip install playwright) and a Chromium (FMI_BROWSER, or in the PATH), and for
accessibility axe.min.js of the npm package axe-core (FMI_AXE). FMI_ATLAS names an atlas to test
instead of one of dummy panels; FMI_SCREENSHOTS a folder for screenshots.
"""

import os
import shutil
from pathlib import Path

import pytest
from atlas_dummies import dummies, of_vgg19

from fmi.atlas import site

ODD = "<script>alert(1)</script>"
LAYERS = [("relu1_1", 3), ("relu3_2", 40), (ODD, 2)]
MOST = 8  # pages of filters whose accessibility is checked, evenly spaced


def browser_path():
    path = os.environ.get("FMI_BROWSER") or shutil.which("chromium") or shutil.which("chrome")
    if not path:
        pytest.skip("no Chromium is here: install it, or name it with FMI_BROWSER")
    return path


@pytest.fixture(scope="module")
def browser():
    reason = "playwright is not installed: pip install playwright"
    api = pytest.importorskip("playwright.sync_api", reason=reason)
    path = browser_path()
    with api.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def atlas(tmp_path_factory):
    out = tmp_path_factory.mktemp("atlas") / "out"
    site.write(dummies(LAYERS, ["a", 'b "c"'], missing=("relu3_2:1:a",)), out)
    return out


@pytest.fixture
def page(browser, atlas):
    """A page that notes errors and whatever is asked for outside of the folder."""
    context = browser.new_context(viewport={"width": 1280, "height": 800}, color_scheme="light")
    opened = context.new_page()
    opened.faults = []
    watch(opened, atlas)
    yield opened
    context.close()
    assert not opened.faults


def watch(opened, atlas):
    opened.on("console", lambda message: opened.faults.append(message.text))
    opened.on("pageerror", lambda error: opened.faults.append(str(error)))

    def failed(request):
        if request.failure != "net::ERR_ABORTED":  # by going to the next page
            opened.faults.append(f"{request.failure}: {request.url}")

    opened.on("requestfailed", failed)

    def inside(request):
        if not request.url.startswith((atlas.as_uri(), "data:")):
            opened.faults.append(f"outside: {request.url}")

    opened.on("request", inside)


def uri(atlas, address=""):
    return (atlas / (address or "index.html")).as_uri()


def place(opened, atlas):
    return opened.url.split("#")[0][len(atlas.as_uri()) + 1 :]


def test_every_page_and_link_opens(page, atlas):
    seen, waiting = set(), [uri(atlas)]
    while waiting:
        address = waiting.pop()
        seen.add(address)
        page.goto(address)
        found = page.eval_on_selector_all("a[href]", "all => all.map(a => a.href.split('#')[0])")
        for link in found:
            if link.startswith("https:"):
                assert link == "https://arxiv.org/abs/1608.04170"
            elif link.endswith(".html") and link not in seen and link not in waiting:
                waiting.append(link)
            else:
                assert Path(link[len("file://") :]).is_file()
        loaded = "all => all.every(i => i.complete && i.naturalWidth > 0)"
        page.eval_on_selector_all("img", "all => all.forEach(i => i.loading = 'eager')")
        page.wait_for_function(f"({loaded})([...document.images])")
    assert seen == {path.as_uri() for path in atlas.rglob("*.html")}


@pytest.mark.parametrize(
    "start, text, target",
    [
        ("index.html", "relu3_2:17", "relu3_2/17.html"),
        ("index.html", "RELU3_2", "relu3_2/index.html"),
        ("index.html", "3_2:4", "relu3_2/4.html"),
        ("relu3_2/5.html", "17", "relu3_2/17.html"),
        ("relu3_2/5.html", "2", "relu3_2/2.html"),
        ("relu1_1/index.html", "1", "relu1_1/1.html"),
        ("relu3_2/index.html", "relu1_1:2", "relu1_1/2.html"),
    ],
)
def test_search(page, atlas, start, text, target):
    page.goto(uri(atlas, start))
    page.keyboard.press("/")
    page.keyboard.type(text)
    page.keyboard.press("Enter")
    page.wait_for_url(uri(atlas, target))


def test_a_search_without_result_says_so_and_odd_text_is_only_text(page, atlas):
    page.goto(uri(atlas))
    page.fill("#query", "relu9_9:3")
    assert page.inner_text("#found") == "Nothing is called so here."
    page.keyboard.press("Enter")
    assert place(page, atlas) == "index.html"
    page.fill("#query", "<img src=x onerror=alert(1)>")
    page.fill("#query", "script")
    assert page.inner_text("#found") == ODD
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.wait_for_function("document.querySelector('h1').textContent.startsWith('<script>')")


def test_keys_go_between_filters_and_up(page, atlas):
    page.goto(uri(atlas, "relu3_2/1.html"))
    for key, target in (
        ("ArrowRight", "relu3_2/2.html"),
        ("ArrowLeft", "relu3_2/1.html"),
        ("ArrowLeft", "relu3_2/0.html"),
        ("ArrowUp", "relu3_2/index.html"),
        ("ArrowLeft", "relu1_1/index.html"),
        ("ArrowRight", "relu3_2/index.html"),
        ("u", "index.html"),
    ):
        page.keyboard.press(key)
        page.wait_for_url(uri(atlas, target))
    page.goto(uri(atlas, "relu3_2/0.html"))
    page.keyboard.press("ArrowLeft")  # there is none before it
    page.evaluate("window.scrollTo(0, 300)")
    page.wait_for_function("scrollY > 0")
    page.keyboard.press("ArrowUp")  # scrolls, as everywhere
    page.keyboard.press("Control+ArrowRight")
    assert place(page, atlas) == "relu3_2/0.html"


def test_the_list_of_keys_opens_and_keys_can_be_switched_off(page, atlas):
    page.goto(uri(atlas, "relu3_2/1.html"))
    page.keyboard.press("?")
    assert page.is_visible("#keys")
    page.uncheck("#use-keys")
    page.keyboard.press("Escape")
    assert not page.is_visible("#keys")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("/")
    assert place(page, atlas) == "relu3_2/1.html"
    page.reload()
    page.keyboard.press("ArrowRight")
    assert place(page, atlas) == "relu3_2/1.html"
    page.click("#help")
    page.check("#use-keys")
    page.click("#keys button")
    page.keyboard.press("ArrowRight")
    page.wait_for_url(uri(atlas, "relu3_2/2.html"))


def order(opened, key="filter"):
    script = f"all => all.map(item => item.dataset.{key})"
    return opened.eval_on_selector_all("#grid > li", script)


def test_filters_can_be_sorted(page, atlas):
    page.goto(uri(atlas, "relu3_2/index.html"))
    assert order(page) == [str(n) for n in range(40)]
    for choice in ("energy", "colour", "similarity", "again"):
        page.select_option("#order", choice)
        values = [float(value) for value in order(page, choice) if value]
        assert values == sorted(values, reverse=choice != "similarity") and len(set(values)) > 1, (
            choice
        )
    page.goto(uri(atlas, "relu1_1/index.html"))
    assert page.input_value("#order") == "again"  # it is remembered
    page.select_option("#order", "filter")
    assert order(page) == ["0", "1", "2"]


def test_another_picture_can_be_chosen(page, atlas):
    page.goto(uri(atlas, "relu3_2/index.html"))
    second = "#grid > li:nth-child(2)"
    assert page.inner_text(f"{second} .state") == "missing"
    page.select_option("#picture", index=1)
    assert page.locator(f"{second} .state").count() == 0
    assert "missing.svg" not in page.get_attribute(f"{second} img", "src")
    page.wait_for_function(f"document.querySelector('{second} img').naturalWidth > 0")


def background(opened):
    return opened.evaluate("getComputedStyle(document.documentElement).backgroundColor")


def test_light_and_dark(page, atlas):
    page.goto(uri(atlas))
    light = background(page)
    page.emulate_media(color_scheme="dark")
    dark = background(page)
    assert light != dark
    page.click("#theme")
    assert background(page) == light
    page.goto(uri(atlas, "relu3_2/1.html"))
    assert background(page) == light  # it is remembered
    page.emulate_media(color_scheme="light")
    page.click("#theme")
    assert background(page) == dark


@pytest.mark.parametrize("width", [320, 360, 768])
def test_no_page_is_wider_than_the_screen(page, atlas, width):
    page.set_viewport_size({"width": width, "height": 640})
    for path in sorted(atlas.rglob("*.html")):
        if path.stem in ("index", "0", "1"):
            page.goto(path.as_uri())
            assert page.evaluate("document.documentElement.scrollWidth") <= width, path


def test_without_scripts_everything_is_there(browser, atlas):
    context = browser.new_context(java_script_enabled=False)
    opened = context.new_page()
    opened.goto(uri(atlas, "relu3_2/index.html"))
    assert opened.locator("#grid img").count() == 40
    assert not opened.is_visible("#theme") and not opened.is_visible("#controls")
    context.close()


@pytest.mark.parametrize("scheme, width", [("light", 1280), ("dark", 1280), ("light", 360)])
def test_axe_finds_no_violation(browser, atlas, scheme, width):
    axe = os.environ.get("FMI_AXE")
    if not axe:
        pytest.skip("FMI_AXE does not name axe.min.js of the npm package axe-core")
    folder = Path(os.environ.get("FMI_ATLAS") or atlas)
    fixed = [folder / "index.html", *sorted(folder.glob("*/index.html"))[:2]]
    filters = sorted(set(folder.rglob("*.html")) - set(folder.rglob("index.html")))
    paths = [*fixed, *filters[:: max(1, len(filters) // MOST)]]
    context = browser.new_context(
        viewport={"width": width, "height": 800}, color_scheme=scheme, reduced_motion="reduce"
    )
    opened = context.new_page()
    violations = []
    for path in paths:
        opened.goto(path.as_uri())
        opened.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
        opened.add_script_tag(path=axe)
        for state in ("page", "search", "keys"):
            if state == "search":
                opened.fill("#query", "re")
            elif state == "keys":
                opened.evaluate("document.getElementById('keys').showModal()")
            found = opened.evaluate("axe.run()")
            violations += [
                f"{path.parent.name}/{path.name} ({state}): {one['id']}: {one['nodes'][0]['html']}"
                for one in found["violations"]
            ]
            if path != paths[0]:
                break
    context.close()
    assert not violations, "\n".join(violations[:5])


FRAMES = """() => new Promise(done => {
  const begin = performance.now(), times = [];
  const step = now => {
    times.push(now);
    window.scrollBy(0, 40);
    if (now - begin < 2000) requestAnimationFrame(step);
    else done(1000 * (times.length - 1) / (times[times.length - 1] - times[0]));
  };
  requestAnimationFrame(step);
})"""


def test_all_filters_of_vgg19_paint_within_a_second_and_scroll(browser, tmp_path):
    """First paint, and frames a second, of the largest pages; other programs must be quiet."""
    if os.environ.get("FMI_FULL") != "1" and not os.environ.get("FMI_DUMMIES"):
        pytest.skip("takes minutes: FMI_FULL=1, or FMI_DUMMIES for python tests/atlas_dummies.py")
    folder = Path(os.environ.get("FMI_DUMMIES") or tmp_path / "out")
    if not folder.is_dir():
        site.write(of_vgg19(), folder)
    for address in ("index.html", "relu5_1/index.html", "relu5_1/100.html"):
        paints, frames, loads = [], [], []
        for _ in range(5):
            context = browser.new_context(viewport={"width": 1280, "height": 800})
            opened = context.new_page()
            opened.goto((folder / address).as_uri(), wait_until="load")
            opened.wait_for_function(
                "performance.getEntriesByName('first-contentful-paint').length"
            )
            entry = "performance.getEntriesByName('first-contentful-paint')[0].startTime"
            paints.append(opened.evaluate(entry))
            loads.append(
                opened.evaluate("performance.getEntriesByType('navigation')[0].loadEventEnd")
            )
            frames.append(opened.evaluate(FRAMES))
            context.close()
        print(
            f"{address}: first paint {sorted(paints)[2]:.0f} ms (largest {max(paints):.0f}),"
            f" loaded {sorted(loads)[2]:.0f} ms, {sorted(frames)[2]:.0f} frames/s"
            f" (least {min(frames):.0f})"
        )
        assert sorted(paints)[2] < 1000 and sorted(frames)[2] >= 30
