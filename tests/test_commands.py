"""Each command of README and docs, run as it is printed, page by page, in a folder like a clone.

Only what the commands are given is small: the pictures are wide and low, 512 x 32 pixels. Commands
that take minutes, or need what is not everywhere, run with FMI_FULL=1: in a clone of its own, whose
environment ``make setup`` makes, with pictures of usual size. There FMI_MODELS says which weights
are found: with none and FMI_OFFLINE=1, all figures are drawn with the embedded network.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import random_arrays, smooth_picture
from PIL import Image
from test_docs import FENCE, ROOT, TEXTS, name
from test_make import USUAL

from fmi import cli
from fmi.device.mxnet import mx

FULL = os.environ.get("FMI_FULL") == "1"
SIZE = (384, 512) if FULL else (32, 512)
PAPERS = ("golden_gate", "tubingen", "starry_night", "the_scream", "frida_kahlo", "seated-nude")
PUBLISHED = {
    "feature_map_golden_gate.png": "fig3_golden_gate.png",
    "fig4.png": "fig4.png",
    "fig5.png": "fig5.png",
}
# Why the commands that begin so are left to FMI_FULL=1.
CI, FETCHED, MINUTES = ".ci/run does it", "it fetches something", "it takes minutes"
VGG = "it needs VGG-19, or what is drawn with it"
LONG = {
    "make setup": CI,
    "make test": CI,
    "make lint": CI,
    "make models": FETCHED,
    "make pictures": FETCHED,
    "fmi figure fig3\n": MINUTES,
    "fmi weights fetch": FETCHED,
    "fmi pictures fetch": FETCHED,
    "pip install": FETCHED,
    "make demo": MINUTES,
    "make bench": MINUTES,
    "make verify": "tests/test_verify.py does it",
    "make atlas": MINUTES,
    "fmi sweep experiments/atlas.yaml --workers": MINUTES,
    "fmi sweep experiments/atlas.yaml WEIGHTS=vgg19": VGG,
    "fmi feature-map photo.jpg --layer relu3_2 --filters 4 --long-edge 4096": MINUTES,
    "make fig3\n": MINUTES,  # without variables
    "make fig3 LONG_EDGE=4096": MINUTES,
    "make fig3 PRECISION=auto": MINUTES,
    "make fig3 PROCESSES=1": MINUTES,
    "make fig3 SETTINGS=paper": MINUTES,
    "make fig3 NETWORK=resnet18_v1": MINUTES,
    "make fig5 STYLE_LAYERS": MINUTES,
    "python -m experiments.precisions": MINUTES,
    "make fig3 WEIGHTS=vgg19": VGG,
    "make fig4 WEIGHTS=vgg19": VGG,
    "make fig5 WEIGHTS=vgg19": VGG,
    "python -m experiments.compare": VGG,
    "python -m experiments.descents": VGG,
}
# What cannot work everywhere; the message is one line.
REFUSED = {
    "FMI_CTX='gpu(1)' make fig3": 2,
    "fmi sweep experiments/atlas.yaml --scheduler tcp://host:8786": 2,
}


def bare(line):
    """A command without the comment behind it, and with single spaces."""
    return " ".join(re.sub(r"\s#.*", "", line).split())


def printed(path):
    """The commands in the shell blocks of a page, in their order."""
    for language, content in FENCE.findall(path.read_text(encoding="utf-8")):
        if language in ("", "sh", "bash"):
            for line in content.replace("\\\n", " ").splitlines():
                if bare(line) and bare(line) != "source .venv/bin/activate":
                    yield line


def left(line):
    """Why a command is left to FMI_FULL=1, or nothing."""
    return next((why for word, why in LONG.items() if f"{bare(line)}\n".startswith(word)), "")


def lacking(text, why):
    """What a command or a program needs that is not here even with FMI_FULL=1, or nothing."""
    offline = os.environ.get("FMI_OFFLINE") == "1"
    if why == CI or (why == FETCHED and offline):
        return why
    if why == VGG and not [*Path(os.environ.get("FMI_MODELS") or "/nowhere").glob("vgg19*")]:
        return why
    papers = "PICTURES=golden_gate" in text and offline and not os.environ.get("FMI_PICTURES")
    return "it needs the paper's pictures" if papers else ""


def skip_unless_here(text, why):
    """Skip a command or a program that is left to FMI_FULL=1, or cannot run even then."""
    reason = lacking(text, why) if FULL else why
    if reason:
        pytest.skip(reason if FULL else f"{reason}; FMI_FULL=1 runs it")


# `make clean-results`, which store.md prints, comes last.
PAGES = sorted(TEXTS, key=lambda path: path.name == "store.md")
LINES = [(path, line) for path in PAGES for line in printed(path)]


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """A folder like a fresh clone, with its environment, and the files that the pages speak of."""
    folder = tmp_path_factory.mktemp("clone") / "fmi"
    ignored = (".git", ".venv", "results", "pictures", "*.h5", "*cache*", "_build", "*.egg-info")
    shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(*ignored))
    if FULL:
        subprocess.run(["make", "setup"], cwd=folder, env=surroundings(folder), check=True)
    else:
        if not (Path(sys.prefix) / ".ready").exists():
            pytest.skip("these tests do not run in an environment that make setup has made")
        (folder / ".venv").symlink_to(sys.prefix)
        os.utime(folder / "setup.py", (0, 0))  # the environment is newer
        (folder / "pictures").mkdir()
        for seed, paper in enumerate(PAPERS):
            save(folder / f"pictures/{paper}.png", seed)
    (folder / "photos").mkdir(exist_ok=True)
    (folder / "my/folder").mkdir(parents=True, exist_ok=True)
    for seed, file in enumerate(("photo.jpg", "painting.jpg", "photos/one.jpg", "photos/two.jpg")):
        save(folder / file, seed)
    for seed, paper in enumerate(PAPERS):
        save(folder / f"my/folder/{paper}.png", seed)
    Image.linear_gradient("L").save(folder / "mask.png")
    np.savez(folder / "my/vgg19.npz", **random_arrays(filters=(5,) * 5))
    network = mx.gluon.model_zoo.vision.resnet18_v1(prefix="resnet_")
    network.initialize(mx.init.Xavier())
    network.hybridize()
    network(mx.nd.zeros((1, 3, 64, 64)))
    network.export(str(folder / "net"))
    network.save_parameters(str(folder / "resnet18_v1-a0666292.params"))
    for own, theirs in PUBLISHED.items():
        if (Path(os.environ.get("FMI_PUBLISHED", "/nowhere")) / theirs).is_file():
            shutil.copy(Path(os.environ["FMI_PUBLISHED"]) / theirs, folder / own)
    few = ["WEIGHTS=embedded", "FILTERS=0", "LONG_EDGE=40", "STEPS=2"]
    words = [str(ROOT / "experiments/atlas.yaml"), f"RESULTS={folder}/results/vgg19", *few]
    assert cli.main(["sweep", *words, "LAYERS=relu3_1"]) == 0
    return folder


def save(path, seed):
    Image.fromarray(smooth_picture(*SIZE, seed)).save(path)


def surroundings(folder):
    """The variables of a new shell; with FMI_FULL=1, the folders of weights and pictures too."""
    own = [word for word in os.environ if word.startswith("FMI_") and not FULL]
    found = {k: v for k, v in USUAL.items() if k not in (*own, "FMI_STORE", "PYTHONPATH")}
    # The environment that is borrowed knows the original.
    return {**found, "FMI_FULL": "0"} if FULL else {**found, "PYTHONPATH": str(folder)}


@pytest.fixture(scope="module")
def shell(clone):
    """Run a command in the clone, after `source .venv/bin/activate`."""

    def run(line):
        line = f"source .venv/bin/activate\n{line}"
        command = ["bash", "-c", line]
        return subprocess.run(
            command, cwd=clone, env=surroundings(clone), capture_output=True, text=True, check=False
        )

    return run


@pytest.mark.parametrize(
    "line", [line for _, line in LINES], ids=[f"{name(path)}: {bare(line)}" for path, line in LINES]
)
def test_command_runs_as_it_is_printed(line, shell, clone):
    skip_unless_here(line, left(line))
    done = shell(line)
    finished = FULL and "--scheduler" in line  # the sweep, by the commands before
    wanted = 0 if finished else REFUSED.get(bare(line), 0)
    assert (done.returncode, "Traceback" in done.stderr) == (wanted, False), done
    if wanted:
        assert done.stderr.startswith("fmi: ") or "\nfmi: " in done.stderr, done
    if bare(line).split()[0] in ("fmi", "make") and not wanted:
        for file in re.findall(r"^\S+\.(?:png|pdf|json|gif|mp4)$", done.stdout, re.M):
            assert (clone / file).is_file(), file


def test_every_exception_is_printed_somewhere():
    lines = [bare(line) for _, line in LINES]
    for word in LONG:
        assert any(f"{line}\n".startswith(word) for line in lines), word
    assert set(REFUSED) < set(lines)
    assert len([line for line in lines if not left(line)]) >= 40


# --- Python ---

HEAVY = {  # why examples with such words are left to FMI_FULL=1
    "long_edge=6000": MINUTES,
    "dask_jobqueue": FETCHED,
    "codes.directions(256": FETCHED,  # a network with so many filters
    "vgg16-hed": FETCHED,
}
BEFORE = """
import fmi.invert, fmi.networks.catalogue
import mxnet
from PIL import Image

picture = Image.open("photo.jpg")
net = mxnet.gluon.model_zoo.vision.resnet18_v1(prefix="")
net.initialize()
"""
EXAMPLES = [
    (path, content)
    for path in TEXTS
    for language, content in FENCE.findall(path.read_text(encoding="utf-8"))
    if language == "python"
]


@pytest.mark.parametrize(
    "code", [content for _, content in EXAMPLES], ids=[name(path) for path, _ in EXAMPLES]
)
def test_python_examples_run_as_they_are_printed(code, shell, clone):
    skip_unless_here(code, next((why for word, why in HEAVY.items() if word in code), ""))
    whole = "import fmi" in code or "from fmi" in code  # and not a line of a longer program
    (clone / "example.py").write_text(code if whole else BEFORE + code)
    done = shell("python example.py")
    assert done.returncode == 0, done.stderr
