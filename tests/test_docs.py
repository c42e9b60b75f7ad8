"""README and docs/: links, commands and keywords exist, and Sphinx builds without a warning."""

import argparse
import ast
import importlib.util
import inspect
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import fmi
import fmi.invert
from fmi import cli, settings
from fmi.cli import inversions
from fmi.runs import experiment

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(path for path in DOCS.rglob("*.md") if "_build" not in path.parts)
TEXTS = [*sorted(ROOT.glob("*.md")), *PAGES]
FENCE = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.M | re.S)
VARIABLE = re.compile(r"[A-Z_]+=")


def name(path):
    return path.relative_to(ROOT).as_posix()


def blocks(path):
    """The code blocks of a page: language or directive, and content."""
    return FENCE.findall(path.read_text(encoding="utf-8"))


def prose(path):
    return FENCE.sub("", path.read_text(encoding="utf-8"))


def links(path):
    text = re.sub(r"`[^`\n]*`", "", prose(path))
    return re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'<img\s[^>]*src="([^"]+)"', text)


def anchors(path):
    heads = re.findall(r"^#+ (.+)$", prose(path), re.M)
    return {re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in heads}


def commands(path):
    """The words of each line of a shell block, without the variables before it and comments."""
    for language, content in blocks(path):
        if language not in ("", "sh", "bash"):
            continue
        for line in content.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            while words and VARIABLE.match(words[0]):
                del words[0]
            if words:
                yield words


FMI = sorted({tuple(words[1:]) for path in TEXTS for words in commands(path) if words[0] == "fmi"})
MAKE = sorted(
    {tuple(words[1:]) for path in TEXTS for words in commands(path) if words[0] == "make"}
)


@pytest.fixture(scope="module")
def parser():
    """The parser of the command line."""

    class Found(Exception):
        """Ends the command before it has parsed anything."""

    found = []

    def note(self, *_):
        found.append(self)
        raise Found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "parse_args", note)
        with pytest.raises(Found):
            cli.main(["doctor"])
    return found[0]


@pytest.fixture(scope="module")
def places(parser):
    (found,) = (a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    return found.choices


@pytest.fixture(scope="module")
def targets():
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    text = text.replace("$(FIGURES)", " ".join(experiment.FIGURES))
    return {word for line in re.findall(r"^([\w -]+):", text, re.M) for word in line.split()}


@pytest.mark.parametrize("path", TEXTS, ids=name)
def test_links_lead_somewhere(path):
    for link in links(path):
        if re.match(r"[a-z]+:", link):
            assert link.startswith("https://"), link
            continue
        target, _, anchor = link.partition("#")
        file = (path.parent / target).resolve() if target else path
        assert file.exists() and ROOT in file.parents, link
        if anchor:
            assert anchor in anchors(file), link


def test_included_files_exist():
    for path in PAGES:
        for language, _ in blocks(path):
            if language.startswith("{include}"):
                assert (path.parent / language.split()[1]).is_file(), language


def test_no_page_is_an_orphan():
    listed = set()
    for path in PAGES:
        for language, content in blocks(path):
            if language.startswith("{toctree}"):
                for line in content.split():
                    listed |= set(path.parent.glob(f"{line}.md"))
    assert set(PAGES) - listed == {DOCS / "index.md"}


def test_commands_are_found():
    assert (
        "feature-map",
        "photo.jpg",
        "--layer",
        "relu3_2",
        "--filters",
        "4,17",
        "-o",
        "out/",
    ) in FMI
    assert ("demo",) in MAKE and ("fig3", "SETTINGS=paper") in MAKE


@pytest.mark.parametrize("words", FMI, ids=" ".join)
def test_commands_of_fmi_can_be_parsed(words, parser):
    chosen = parser.parse_args(words)
    if words[0] in inversions.COMMANDS:
        given = inversions.options_of(chosen)
        single = {key: given[key] for key in settings.overridable() if key in given}
        settings.override(settings.preset(given.get("settings", "code")), single)
    if words[0] == "figure":
        experiment.read(experiment.packaged(chosen.name), chosen.overrides)


@pytest.mark.parametrize("words", MAKE, ids=" ".join)
def test_commands_of_make_can_be_run(words, targets):
    assert words[0] in targets
    own = ("PYTHON=", "MXNET=", "BENCH=")
    given = [word for word in words[1:] if not word.startswith(own)]
    if words[0] in experiment.FIGURES:
        experiment.read(ROOT / f"experiments/{words[0]}.yaml", given)


@pytest.mark.parametrize("path", TEXTS, ids=name)
def test_commands_in_sentences_exist(path, places, targets):
    for words in re.findall(r"`((?:fmi|make) [^`]+)`", prose(path)):
        program, first = words.split()[:2]
        if not VARIABLE.match(first) and first != "--help":
            assert first in (places if program == "fmi" else targets), words


def test_every_command_has_its_help_in_the_reference(places):
    text = (DOCS / "reference/command-line.md").read_text(encoding="utf-8")
    shown = re.findall(r"^```{program-output} python -m fmi (.*?) ?--help$", text, re.M)
    assert {words.split()[0] for words in shown if words} == set(places)


def calls(path):
    """The calls of functions of fmi.invert in Python blocks."""
    for language, content in blocks(path):
        if language != "python":
            continue
        for node in ast.walk(ast.parse(content)):
            if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("fmi.invert."):
                yield node


@pytest.mark.skipif(sys.version_info < (3, 9), reason="ast.unparse needs Python 3.9")
@pytest.mark.parametrize("path", TEXTS, ids=name)
def test_python_examples_use_what_there_is(path):
    for call in calls(path):
        function = getattr(fmi.invert, call.func.attr)
        keywords = {keyword.arg: None for keyword in call.keywords}
        inspect.signature(function).bind(*call.args, **keywords)


def test_citation():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    needed = {"cff-version", "message", "title", "type", "version", "license", "authors"}
    assert needed <= set(cited)
    assert cited["version"] == fmi.__version__
    paper = cited["preferred-citation"]
    assert "1608.04170" in paper["url"] and paper["year"] == 2016
    assert [one["family-names"] for one in paper["authors"]] == ["Xia", "Zhu", "Wang", "Guo", "Liu"]


def test_services_run_what_there_is():
    read = yaml.safe_load((ROOT / ".readthedocs.yaml").read_text(encoding="utf-8"))
    assert (ROOT / read["sphinx"]["configuration"]).is_file()
    extras = read["python"]["install"][0]["extra_requirements"]
    setup = (ROOT / "setup.py").read_text(encoding="utf-8")
    assert all(f'"{extra}":' in setup for extra in extras)
    flow = yaml.safe_load((ROOT / ".github/workflows/test.yml").read_text(encoding="utf-8"))
    run = [step["run"] for job in flow["jobs"].values() for step in job["steps"] if "run" in step]
    assert run and all((ROOT / command).is_file() for command in run)


def test_each_dependency_is_explained():
    setup = (ROOT / "setup.py").read_text(encoding="utf-8")
    wanted = {text for text in re.findall(r'"([\w-]+)[<>=;~].*?"', setup) if "nvidia" not in text}
    assert {"pillow", "sphinx", "torch"} <= wanted
    text = (DOCS / "dependencies.md").read_text(encoding="utf-8")
    assert [word for word in sorted(wanted) if word not in text] == []


def test_the_pages_are_built_without_a_warning(tmp_path):
    for module in ("sphinx", "myst_nb", "numpydoc", "furo", "sphinxcontrib.programoutput"):
        try:
            found = importlib.util.find_spec(module)
        except ModuleNotFoundError:
            found = None
        if found is None:
            pytest.skip(f"{module} is not installed: pip install -e '.[docs]'")
    command = [
        sys.executable,
        "-m",
        "sphinx",
        "-q",
        "-W",
        "--keep-going",
        "-d",
        f"{tmp_path}/trees",
        "-D",
        "nb_execution_mode=off",  # tests/test_notebooks.py runs them
    ]
    done = subprocess.run(
        [*command, "-b", "html", str(DOCS), f"{tmp_path}/html"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    page = (tmp_path / "html/reference/invert.html").read_text(encoding="utf-8")
    assert "fmi.invert.feature_map" in page and "**" in page
    helps = (tmp_path / "html/reference/command-line.html").read_text(encoding="utf-8")
    assert "such as 4,17 or 0-15" in helps
