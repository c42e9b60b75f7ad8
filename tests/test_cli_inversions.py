"""The commands for one's own pictures: what they write, and what they refuse."""

import json
import re
import subprocess
import sys

import numpy as np
import pytest
from conftest import smooth_picture
from PIL import Image

import fmi.invert
from fmi import checks, cli
from fmi.cli import inversions

FAST = ["--long-edge", "48", "--steps", "4", "--settings", "fast"]


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "photo.png"
    Image.fromarray(smooth_picture(60, 80, seed=1)).save(path)
    return path


@pytest.fixture
def painting(tmp_path):
    path = tmp_path / "painting.png"
    Image.fromarray(smooth_picture(50, 50, seed=2)).save(path)
    return path


def run(command, *words, weights):
    return cli.main([command, *map(str, words), "--weights", str(weights), *FAST])


def same(path, inversion):
    np.testing.assert_array_equal(np.asarray(Image.open(path)), np.asarray(inversion.image))
    assert json.loads(path.with_suffix(".json").read_text())["loss"] == inversion.loss


def test_each_command_writes_what_its_function_returns(
    photo, painting, small_weights, tmp_path, capsys
):
    given = {"weights": small_weights, "long_edge": 48, "steps": 4, "settings": "fast"}
    out = tmp_path / "out"
    invert, layer = fmi.invert, "relu2_1"
    cases = [
        (["code", photo, "--layer", layer], invert.code(photo, layer, **given), "code"),
        (
            ["feature-map", photo, "--layer", layer, "--filters", "1,3"],
            invert.feature_map(photo, layer, [1, 3], **given),
            "filter",
        ),
        (
            ["feature-map", photo, "--layer", layer, "--filters", "1,3", "--chain"],
            invert.feature_map(photo, layer, [1, 3], True, **given),
            "filter",
        ),
        (
            ["random", photo, "--layer", layer, "--draws", "2", "--seed", "3"],
            invert.random(photo, layer, 2, 3, **given),
            "draw",
        ),
        (
            ["purposeful", photo, "--style", painting],
            invert.purposeful(photo, painting, **given),
            "p",
        ),
        (
            ["gatys", photo, "--style", painting, "--alpha", "3"],
            invert.gatys(photo, painting, alpha=3, **given),
            "gatys",
        ),
        (
            ["rank-match", photo, "--style", painting, "--layer", layer],
            invert.rank_match(photo, painting, layer, **given),
            "rank",
        ),
        (
            ["maximise", photo, "--layer", f"{layer}:2"],
            invert.maximise(photo, layer, 2, **given),
            "filter2",
        ),
    ]
    for number, (words, wanted, part) in enumerate(cases):
        folder = out / str(number)
        assert run(*words, "-o", folder, weights=small_weights) == 0
        wanted = wanted if isinstance(wanted, list) else [wanted]
        printed = capsys.readouterr().out.split()
        assert len(printed) == len(wanted)
        for line, inversion in zip(printed, wanted):
            assert part in line and line.startswith(str(folder))
            same(tmp_path / line, inversion)


def test_one_file_several_pictures_and_patterns(photo, painting, small_weights, tmp_path, capsys):
    one = tmp_path / "new" / "result.png"
    words = ["--layer", "relu1_1", "--filters", "2"]
    assert run("feature-map", photo, *words, "-o", one, weights=small_weights) == 0
    assert one.exists() and one.with_suffix(".json").exists()
    capsys.readouterr()
    folder = tmp_path / "several"
    pattern = tmp_path / "p*.png"
    assert run("feature-map", pattern, *words, "-o", folder, weights=small_weights) == 0
    names = {path.name for path in folder.glob("*.png")}
    assert names == {"painting_relu1_1_filter2.png", "photo_relu1_1_filter2.png"}
    two = tmp_path / "two"
    code = ["--layer", "relu1_1,relu2_1", "--filters", "0-2"]
    assert run("feature-map", photo, *code, "-o", two, weights=small_weights) == 0
    assert {path.name for path in two.glob("*.png")} == {
        f"photo_relu1_1_relu2_1_filter{n}.png" for n in range(3)
    }


@pytest.mark.parametrize("name", ["new/result.jpg", "result.JPEG", "result.v2.webp"])
def test_one_file_in_a_smaller_format(name, photo, small_weights, tmp_path, capsys):
    one = tmp_path / name
    assert run("code", photo, "--layer", "relu1_1", "-o", one, weights=small_weights) == 0
    assert capsys.readouterr().out == f"{one}\n"
    kind = {"jpg": "JPEG", "jpeg": "JPEG", "webp": "WEBP"}[one.suffix[1:].lower()]
    with Image.open(one) as image:
        assert (image.format, image.size) == (kind, (48, 36))
    assert one.with_suffix(".json").is_file()
    assert cli.main(["repeat", str(one)]) == 2
    assert f"{one} contains no record of fmi; give the JSON file" in capsys.readouterr().err
    again = tmp_path / f"again{one.suffix}"
    assert cli.main(["repeat", str(one.with_suffix(".json")), "-o", str(one)]) == 2
    words = [one.with_suffix(".json"), "--picture", photo, "--weights", small_weights]
    assert cli.main(["repeat", *map(str, words), "-o", str(again)]) == 0
    assert again.read_bytes() == one.read_bytes()


def test_the_photograph_is_not_replaced(photo, painting, small_weights, capsys):
    before = photo.read_bytes()
    for words in (
        ["code", photo, "--layer", "relu1_1"],
        ["gatys", painting, "--style", photo],
    ):
        assert run(*words, "-o", photo, weights=small_weights) == 2
        assert f"would replace {photo}" in capsys.readouterr().err.splitlines()[-1]
    assert photo.read_bytes() == before


@pytest.mark.parametrize(
    "words",
    [
        ("random", "--init", "given.png", "-o", "given.png"),
        ("random", "--mask", "given.png", "-o", "given.png"),
        ("random", "--init", "given.gif", "--gif", "-o", "given.png"),
        ("random", "--mask", "photo_relu1_1_draw0.png"),
        ("sheet", "--mask", "given.png", "--filters", "0", "-o", "given.png"),
        ("sheet", "-o", "photo.png", "--filters", "0"),
    ],
)
def test_no_picture_that_is_given_is_replaced(words, photo, small_weights, monkeypatch, capsys):
    monkeypatch.chdir(photo.parent)
    for name in ("given.png", "given.gif", "photo_relu1_1_draw0.png"):
        Image.fromarray(smooth_picture(60, 80, seed=3)).save(name)
    before = {path: path.read_bytes() for path in photo.parent.iterdir()}
    command, *rest = words
    assert run(command, "photo.png", "--layer", "relu1_1", *rest, weights=small_weights) == 2
    assert " would replace " in capsys.readouterr().err.splitlines()[-1]
    assert {path: path.read_bytes() for path in photo.parent.iterdir()} == before


def test_a_folder_may_have_the_name_of_a_file(photo, small_weights, tmp_path, capsys):
    folder = tmp_path / "folder.png"
    folder.mkdir()
    words = ["--layer", "relu1_1", "--filters", "0", "-o", folder]
    assert run("feature-map", photo, *words, weights=small_weights) == 0
    (picture,) = folder.glob("*.png")
    assert run("sheet", photo, *words, weights=small_weights) == 2  # before anything is computed
    assert capsys.readouterr().err.splitlines()[-1] == (
        f"fmi: -o {folder} is a folder; name a .png file in it"
    )
    again = ["repeat", picture, "-o", folder, "--weights", small_weights, "--picture", photo]
    assert cli.main([*map(str, again)]) == 0
    assert capsys.readouterr().out == f"{folder / picture.stem}_repeated.png\n"


@pytest.mark.parametrize("suffix", [".tif", ".bmp", ".GIF"])
def test_formats_that_are_only_read_are_refused(suffix, photo, small_weights, tmp_path, capsys):
    assert run("code", photo, "--layer", "relu1_1", "-o", tmp_path, weights=small_weights) == 0
    (record,) = tmp_path.glob("*.json")
    out = tmp_path / f"out{suffix}"
    for words in (["code", photo, "--layer", "relu1_1"], ["repeat", record, "--picture", photo]):
        assert cli.main([*map(str, [*words, "-o", out, "--weights", small_weights])]) == 2
        line = capsys.readouterr().err.splitlines()[-1]
        assert line.startswith(f"fmi: {out}: pictures are saved as .png, ")
    assert not out.exists()


@pytest.mark.parametrize(
    "word, meant",
    [
        ("--lr", "; did you mean --learning-rate?"),
        ("--iterations=3", "; did you mean --steps?"),
        ("--presettings", "; did you mean --settings?"),
        ("--xy", ""),
    ],
)
def test_an_unknown_option_is_answered_with_the_one_that_was_meant(word, meant, capsys):
    with pytest.raises(SystemExit):
        cli.main(["code", "photo.png", "--layer", "relu1_1", word])
    line = capsys.readouterr().err.splitlines()[-1]
    assert line == f"fmi code: error: unrecognized arguments: {word}{meant}"


def test_a_repetition_replaces_no_picture_that_is_given(photo, small_weights, tmp_path, capsys):
    before = photo.read_bytes()
    out = tmp_path / "out.png"
    assert run("code", photo, "--layer", "relu1_1", "-o", out, weights=small_weights) == 0
    words = ["repeat", out, "--weights", small_weights, "--picture", photo, "-o", photo]
    assert cli.main([*map(str, words)]) == 2
    assert f"would replace {photo}" in capsys.readouterr().err.splitlines()[-1]
    assert photo.read_bytes() == before


@pytest.mark.parametrize("command", ["feature-map", "maximise", "sheet"])
def test_all_filters_beside_some_are_refused(command, photo, small_weights, capsys):
    words = ["--layer", "relu1_1:0,1", "--filters", "all"]
    assert run(command, photo, *words, weights=small_weights) == 2
    assert "filters are given twice" in capsys.readouterr().err.splitlines()[-1]


def test_a_telephone_photograph_with_12_megapixels(small_weights, tmp_path):
    path = tmp_path / "phone.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6  # the top is at the right
    noise = np.random.RandomState(0).randint(0, 256, (30, 40, 3), dtype=np.uint8)
    Image.fromarray(noise).resize((4000, 3000)).save(path, exif=exif, quality=60)
    out = tmp_path / "out.png"
    words = ["--layer", "relu1_2", "--filters", "1", "-o", out]
    assert run("feature-map", path, *words, weights=small_weights) == 0
    assert Image.open(out).size == (36, 48)


def test_previews_and_films(photo, small_weights, tmp_path, capsys):
    out = tmp_path / "out"
    words = ["--layer", "relu1_2", "--filters", "0,1", "--save-every", "2", "--gif", "--mp4"]
    imageio = pytest.importorskip("imageio.v3")
    pytest.importorskip("imageio_ffmpeg")
    assert run("feature-map", photo, *words, "-o", out, weights=small_weights) == 0
    stem = "photo_relu1_2_filter"
    for number in (0, 1):
        assert (out / f"{stem}{number}_step0002.png").exists()
        final = np.asarray(Image.open(out / f"{stem}{number}_step0004.png"))
        with Image.open(out / f"{stem}{number}.gif") as film:
            assert film.n_frames >= 4 and film.size == (48, 36)
        frames = imageio.imread(out / f"{stem}{number}.mp4", plugin="FFMPEG")
        assert len(frames) == 24 and frames.shape[1:3] == (36, 48)
        first = np.asarray(Image.open(out / f"{stem}{number}_step0002.png"))
        far = [np.abs(frames[-1].astype(int) - other).mean() for other in (final, first)]
        assert far[0] < far[1]  # videos are compressed
    assert not [path for path in out.iterdir() if path.name.startswith(".")]
    one = np.asarray(Image.open(out / f"{stem}0_step0004.png"))
    assert not np.array_equal(one, final)
    (alone,) = fmi.invert.feature_map(
        photo, "relu1_2", 1, weights=small_weights, long_edge=48, steps=4, settings="fast"
    )
    np.testing.assert_array_equal(final, np.asarray(alone.undenoised))


def test_long_films_are_thinned_out(tmp_path):
    from types import SimpleNamespace

    from fmi.cli import film

    one = film.Film([tmp_path / "x"], None, gif=True, mp4=False)
    for step in range(1, 1001):
        array = np.full((4, 6, 3), step % 256, np.float32)
        one(SimpleNamespace(step=step, arrays=[array]))
    frames = one._frames[0]
    assert film.MOST / 2 <= len(frames) <= film.MOST
    kept = Image.new("RGB", (6, 4), (7, 7, 7))  # a diverged descent keeps an earlier picture
    assert one.save([SimpleNamespace(undenoised=kept)]) == [tmp_path / "x.gif"]
    with Image.open(tmp_path / "x.gif") as made:
        made.seek(made.n_frames - 1)
        assert (np.asarray(made.convert("RGB")) == 7).all()


@pytest.mark.parametrize(
    "steps, words",
    [
        (3, []),
        (203, []),
        (401, []),
        (900, ["--stop", ".012", "--decay", ".9", "--decay-every", "20"]),
        (203, ["--chain"]),
    ],
)
def test_films_end_with_the_result(photo, small_weights, tmp_path, monkeypatch, steps, words):
    imageio = pytest.importorskip("imageio.v3")
    monkeypatch.setattr(
        imageio, "imwrite", lambda path, frames, **_: path.write_bytes(frames.tobytes())
    )
    given = ["--layer", "relu1_1", "--filters", "0,1", "--denoise", "0", "--long-edge", "16"]
    given += ["--steps", steps, "--stop", "0", "--decay", "1", "--learning-rate", "3", "--gif"]
    command = ["feature-map", photo, "-o", tmp_path, "--weights", small_weights, *given, *words]
    assert cli.main(list(map(str, command))) == 0
    films = sorted(tmp_path.glob("*.gif"))
    assert len(films) == 2
    for path in films:
        result = np.asarray(Image.open(path.with_suffix(".png")))
        frames = np.frombuffer(path.read_bytes(), np.uint8).reshape(-1, *result.shape)
        last = len(frames) - (frames[::-1] != result).any((1, 2, 3)).argmax()
        assert 20 <= len(frames) - last <= 22  # a second at 20 frames a second
        taken = json.loads(path.with_suffix(".json").read_text())["outcome"]["steps"]
        assert taken < steps if "--stop" in words else taken == steps


def test_results_can_be_opened_and_kept_in_a_store(photo, small_weights, tmp_path, monkeypatch):
    import webbrowser

    shown = []
    monkeypatch.setattr(webbrowser, "open", shown.append)
    words = ["--layer", "relu1_1", "-o", tmp_path / "a.png", "--open", "--store", tmp_path / "s"]
    assert run("code", photo, *words, weights=small_weights) == 0
    assert shown == [(tmp_path / "a.png").as_uri()]
    kept = list((tmp_path / "s").rglob("array.npy"))
    times = [path.stat().st_mtime_ns for path in kept]
    assert len(kept) == 1 and run("code", photo, *words, weights=small_weights) == 0
    assert times == [path.stat().st_mtime_ns for path in kept]


@pytest.mark.parametrize(
    "words, fact",
    [
        (["code", "PHOTO", "--layer", "relu9_9"], "relu9_9"),
        (["code", "missing.jpg", "--layer", "relu1_1"], "missing.jpg"),
        (["code", "no*where.png", "--layer", "relu1_1"], "no*where.png"),
        (["feature-map", "PHOTO", "--layer", "relu1_1"], "filter"),
        (["feature-map", "PHOTO", "--layer", "relu1_1", "--filters", "x"], "x"),
        (["feature-map", "PHOTO", "--layer", "relu1_1", "--filters", "9"], "9"),
        (["feature-map", "PHOTO", "--layer", "relu1_1", "--filters", "5-2"], "5-2"),
        (["feature-map", "PHOTO", "--layer", "relu1_1", "--filters", "0-99999999"], "99999999"),
        (["feature-map", "PHOTO", "--layer", "relu1_1:1", "--filters", "1"], "twice"),
        (
            ["feature-map", "PHOTO", "--layer", "relu1_1", "--filters", "0,1", "-o", "x.png"],
            "x.png",
        ),
        (["code", "PHOTO", "--layer", "relu1_1", "--steps", "many"], "many"),
        (["code", "PHOTO", "--layer", "relu1_1", "--save-every", "0"], "0"),
        (["code", "PHOTO", "--layer", "relu1_1", "--settings", "slow"], "slow"),
        (["random", "PHOTO", "--layer", "relu1_1", "--draws", "2", "--gif"], "draw"),
        (["code", "PHOTO", "--layer", "relu1_1", "--ctx", "gpu(7)"], "gpu"),
        (["code", "PHOTO", "--layer", "relu1_1", "--store", ""], "--store"),
        (["code", "PHOTO", "--layer", "relu1_1", "--store", "s", "--gif"], "--store"),
        (["code", "a" * 300 + "*", "--layer", "relu1_1"], "match"),
        (["feature-map", "PHOTO", "--layer", "relu1_1", "--gif"], "filter"),
        (["feature-map", "PHOTO", "--layer", "relu1_1", "--filters", "\u00b2-\u00b3"], "filters"),
        (["feature-map", "PHOTO", "--layer", "relu1_1", "--filters", "1" * 5000 + "-2"], "filters"),
        (["random", "PHOTO", "--layer", "relu1_1", "--draws", "200000"], "200000"),
        (["purposeful", "PHOTO", "--style", "PHOTO", "--style-weights", ""], "style_weights"),
        (["sheet", "*.p?g", "--layer", "relu1_1"], "2 match"),
    ],
)
def test_mistakes_are_told_in_a_line(
    words, fact, photo, small_weights, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    photo.with_name("second.png").write_bytes(photo.read_bytes())
    before = set(tmp_path.rglob("*"))
    words = [str(photo) if word == "PHOTO" else word for word in words]
    extra = FAST if "--steps" not in words and "--settings" not in words else FAST[:2]
    assert cli.main([*words, "--weights", str(small_weights), *extra]) == 2
    error = capsys.readouterr().err
    assert fact in error.splitlines()[-1] and "Traceback" not in error
    assert {p for p in tmp_path.rglob("*") if p.is_file()} <= before


def test_a_descent_that_diverges_is_an_error(photo, small_weights, tmp_path, capsys):
    words = ["--layer", "relu1_1", "-o", str(tmp_path / "a.png"), "--weights", str(small_weights)]
    more = ["--learning-rate", "1e6", "--clip", "1e30", "--long-edge", "48", "--steps", "60"]
    assert cli.main(["code", str(photo), *words, *more]) == 2
    assert "learning-rate" in capsys.readouterr().err
    assert not (tmp_path / "a.png").exists()


def test_what_diverges_takes_nothing_else_with_it(
    photo, small_weights, tmp_path, capsys, monkeypatch
):
    function, out = fmi.invert.feature_map, tmp_path / "out"

    def some_diverge(*arguments, **options):
        found = function(*arguments, **options)
        for one in found[:2]:
            one.stopped = "diverged"
        return found

    monkeypatch.setattr(fmi.invert, "feature_map", some_diverge)
    words = [photo, "--layer", "relu1_1", "--filters", "0-3"]
    assert run("feature-map", *words, "-o", out, weights=small_weights) == 2
    (line,) = capsys.readouterr().err.splitlines()[-1:]
    assert "2 of 4" in line and "filter0" in line and "learning-rate" in line
    names = sorted(path.name for path in out.glob("*.png"))
    assert names == ["photo_relu1_1_filter2.png", "photo_relu1_1_filter3.png"]
    assert run("sheet", *words, "-o", out / "sheet.png", weights=small_weights) == 2
    (line,) = capsys.readouterr().err.splitlines()[-1:]
    assert "2 of 4" in line and "relu1_1:0" in line and (out / "sheet.png").is_file()


def test_a_sheet_that_lacks_panels_is_none(photo, small_weights, tmp_path, monkeypatch):
    function = fmi.invert.feature_map
    monkeypatch.setattr(fmi.invert, "feature_map", lambda *a, **k: function(*a, **k)[:2])
    words = [photo, "--layer", "relu1_1", "--filters", "0-3", "-o", tmp_path / "sheet.png"]
    assert run("sheet", *words, weights=small_weights) == 130
    assert not (tmp_path / "sheet.png").exists()


def test_no_result_takes_the_name_of_another_one(photo, small_weights, tmp_path, capsys):
    names = ("a_b.png", "a.png", "c.png", "b_c.png")
    one, two, three, four = (tmp_path / name for name in names)
    for path in (one, two, three, four):
        path.write_bytes(photo.read_bytes())
    out = tmp_path / "out"
    styles = ["--style", three, "--style", four]
    assert run("purposeful", one, two, *styles, "-o", out, weights=small_weights) == 0
    assert len(set(capsys.readouterr().out.split())) == len(list(out.glob("*.png"))) == 4
    for words in (
        ["feature-map", "--layer", "relu1_1", "--filters", "0"],
        ["feature-map", "--layer", "relu1_1", "--filters", "0", "--chain"],
        ["maximise", "--layer", "relu1_1", "--filters", "0"],
        ["rank-match", "--layer", "relu1_1", "--style", three],
        ["rank-match", "--layer", "relu2_1", "--style", three],
    ):
        before = len(list(out.glob("*.png")))
        assert run(words[0], photo, *words[1:], "-o", out, weights=small_weights) == 0
        assert len(list(out.glob("*.png"))) == before + 1


def test_dots_in_the_name_of_a_sheet(photo, small_weights, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    dated = photo.rename(tmp_path / "IMG.20240101.png")
    mine = tmp_path / "IMG.png"
    mine.write_bytes(b"mine")
    words = ["--layer", "relu1_1", "--filters", "0,1"]
    assert run("sheet", dated, *words, weights=small_weights) == 0
    assert run("sheet", dated, *words, "-o", "my.sheet.png", weights=small_weights) == 0
    assert mine.read_bytes() == b"mine"
    for stem in ("IMG.20240101_relu1_1", "my.sheet"):
        assert all((tmp_path / f"{stem}.{form}").is_file() for form in ("png", "pdf"))


def test_a_video_of_a_narrow_picture(tmp_path):
    from fmi.cli import film

    frames = [np.full((1, 33, 3), 10 * n, np.uint8) for n in range(3)]
    film._write(tmp_path / "x.mp4", ".mp4", frames)
    assert (tmp_path / "x.mp4").stat().st_size > 100


def test_ctrl_c_keeps_what_is_finished(photo, small_weights, tmp_path, monkeypatch):
    function = fmi.invert.code
    calls = []

    def interrupted(*arguments, **options):
        calls.append(arguments)
        found = function(*arguments, **options)
        if len(calls) == 2:
            found.stopped = "interrupted"
        return found

    monkeypatch.setattr(fmi.invert, "code", interrupted)
    Image.fromarray(smooth_picture(40, 40)).save(tmp_path / "second.png")
    out = tmp_path / "out"
    words = [photo, tmp_path / "second.png", "--layer", "relu1_1", "-o", out]
    assert run("code", *words, weights=small_weights) == 130
    assert [path.name for path in out.glob("*.png")] == ["photo_relu1_1_code.png"]


def test_ranges():
    def numbers(text):
        return checks.checked("filters", text, checks.Numbers)

    assert numbers("0-3,17") == (0, 1, 2, 3, 17) and numbers("4") == (4,)
    assert numbers([2, "5-6"]) == (2, 5, 6)
    assert checks.checked("filters", "0-2", checks.Filters) == (0, 1, 2)


def test_help_is_quick_and_names_defaults_and_an_example():
    code = "import sys; from fmi.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass\n"
    code += "print({'mxnet', 'pydantic'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "set()"
    for name in inversions.COMMANDS:
        assert name in done.stdout
        command = [sys.executable, "-m", "fmi", name, "--help"]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        assert f"fmi {name} " in text.split("example:")[1]
        assert "(512)" in text and "--learning-rate" in text


@pytest.mark.parametrize("shell, check", [("bash", ["bash", "-n"]), ("zsh", None)])
def test_completion(shell, check, capsys, tmp_path):
    pytest.importorskip("shtab")
    assert cli.main(["completion", shell]) == 0
    text = capsys.readouterr().out
    assert "feature-map" in text and "--long-edge" in text and "--style-layers" in text
    if check:
        (tmp_path / "completion").write_text(text)
        subprocess.run([*check, str(tmp_path / "completion")], check=True)


# --- contact sheets ---


def test_a_sheet_of_filters(photo, small_weights, tmp_path, capsys, monkeypatch):
    from fmi import sheets

    blocks = []
    monkeypatch.setattr(
        sheets, "sheet", lambda b, note, draw=sheets.sheet: draw(blocks.append(b) or b, note)
    )
    out = tmp_path / "new" / "sheet.png"
    words = ["--layer", "relu2_1", "--filters", "0,2-4", "--columns", "3", "--energy-shares"]
    assert run("sheet", photo, *words, "-o", out, weights=small_weights) == 0
    assert capsys.readouterr().out.split() == [str(out), str(out.with_suffix(".pdf"))]
    ((block,),) = blocks
    wanted = fmi.invert.feature_map(
        photo,
        "relu2_1",
        [0, 2, 3, 4],
        weights=small_weights,
        long_edge=48,
        steps=4,
        settings="fast",
    )
    assert [len(row) for row in block.panels] == [3, 1]
    flat = [panel for row in block.panels for panel in row]
    titles = [title for row in block.titles for title in row]
    for panel, title, one in zip(flat, titles, wanted):
        np.testing.assert_array_equal(panel, np.asarray(one.image))
        assert title.startswith(f"relu2_1:{one.record['filter']} ")
        told = re.fullmatch(r"\S+  \((\S+) % of the energy\)", title)
        assert float(told.group(1)) == pytest.approx(100 * one.energy_share, rel=0.005)
    assert block.caption == "photo, small, preset fast, long_edge=48, steps=4"
    with Image.open(out) as drawn:
        drawn.load()
    monkeypatch.chdir(tmp_path)
    assert run("sheet", photo, "--layer", "relu1_1:1", weights=small_weights) == 0
    assert (tmp_path / "photo_relu1_1.png").exists()


def test_the_scale_bar_is_as_long_as_the_receptive_field():
    from fmi import sheets

    panel = np.full((30, 100, 3), 90, np.uint8)
    for pixels, share in ((25, 0.25), (500, 0.94)):
        block = sheets.Block([[panel]], titles=[["x"]], scale=sheets.Scale(pixels, "field"))
        figure = sheets.sheet([block])
        (axes,) = [axes for axes in figure.axes if axes.lines]
        for line in axes.lines:
            assert np.ptp(line.get_xdata()) == pytest.approx(share)
        assert [text.get_text() for text in axes.texts] == ["field"]
        assert axes.get_title() == "x"


@pytest.mark.parametrize(
    "words, fact",
    [
        (["--layer", "relu1_1,relu2_1"], "relu1_1,relu2_1"),
        (["--layer", "relu1_1", "--columns", "0"], "0"),
        (["--layer", "relu1_1", "-o", "sheet.jpg"], "sheet.jpg"),
        (["--layer", "relu1_1", "--filters", "44"], "44"),
    ],
)
def test_mistakes_in_a_sheet(words, fact, photo, small_weights, capsys):
    assert run("sheet", photo, *words, weights=small_weights) == 2
    assert fact in capsys.readouterr().err.splitlines()[-1]


def test_masks_mixtures_and_colours(photo, painting, small_weights, tmp_path, capsys):
    second, mask, out = (tmp_path / name for name in ("second.png", "mask.png", "out"))
    Image.fromarray(smooth_picture(50, 50, seed=5)).save(second)
    Image.fromarray(np.repeat([0, 255], 30).astype(np.uint8)[None].repeat(45, 0)).save(mask)
    words = [
        photo,
        "--style",
        painting,
        "--style",
        second,
        "--style-weights",
        "3,1",
        "--mask",
        mask,
    ]
    more = ["--preserve-color", "--strength", "0.7", "--total-variation", "0.1", "-o", out]
    assert run("purposeful", *words, *more, weights=small_weights) == 0
    wanted = fmi.invert.purposeful(
        photo,
        [painting, second],
        style_weights=[3, 1],
        strength=0.7,
        mask=mask,
        preserve_color=True,
        total_variation=0.1,
        weights=small_weights,
        long_edge=48,
        steps=4,
        settings="fast",
    )
    same(out / "photo_painting_second_purposeful.png", wanted)
    assert cli.main(["gatys", str(photo), "--style", str(painting), "--strength", "7"]) == 2
    assert "7" in capsys.readouterr().err


def test_all_filters(photo, small_weights, tmp_path, capsys):
    out = tmp_path / "out"
    words = [photo, "--layer", "relu1_1", "--filters", "all", "-o", out]
    assert run("feature-map", *words, weights=small_weights) == 0
    given = {"weights": small_weights, "long_edge": 48, "steps": 4, "settings": "fast"}
    wanted = fmi.invert.feature_map(photo, "relu1_1", "all", **given)
    assert len(wanted) == len(list(out.glob("*.png"))) > 2
    for number, one in enumerate(wanted):
        same(out / f"photo_relu1_1_filter{number}.png", one)
