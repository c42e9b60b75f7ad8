"""Odd inputs for attack.py; run with a seed, it makes 20 odd calls of the functions of fmi.invert.

Values that are certainly wrong must be refused with an InputError or status 2; those that are
merely odd may be taken, but must not end in any other exception.
"""

from __future__ import annotations

import os
import random
import sys
from pathlib import Path
from typing import Any, Callable, Dict, List, Sequence, Tuple

# --- commands ---

SMALL = ["WEIGHTS=embedded", "LONG_EDGE=24", "STEPS=2", "PICTURES=skimage:coffee"]
FIGURES = ("fig1", "fig2", "fig3", "fig4", "fig5")
NUMBERS = ["abc", "nan", "inf", "-1", "1e300", "-1e30", "1,2", "1e", "0x10", "½", "9" * 5000]
TEXTS = ["", "a" * 5000, "\n", "é", "\udcff", "$x^{$", "../..", "/dev/null", "-", "\x1b[31m", "[]"]
WRONG = {  # values that no variable of this name takes
    "SEED": [*NUMBERS, "1.5", "4294967296", "true"],
    "DRAWS": [*NUMBERS, "1.5", "0", "99999999999"],
    "TILES": [*NUMBERS, "0"],
    "FILTERS": ["abc", "-1", "0.5", "999", "0,,x", "true", "9" * 5000],
    "STEPS": [*NUMBERS, "0", "2.5"],
    "LONG_EDGE": [*NUMBERS, "0", "999999999999", "32.5"],
    "MOMENTUM": [*NUMBERS, "1", "2", "1e30"],
    "LEARNING_RATE": [*NUMBERS, "0", "1e30"],
    "CLIP": [*NUMBERS, "0"],
    "DENOISE": [*NUMBERS, "1e30"],
    "DECAY": [*NUMBERS, "0", "2"],
    "START": [*NUMBERS, "1e30"],
    "STOP": [*NUMBERS, "1"],
    "BATCH": [*NUMBERS, "1.5"],
    "LAYERS": ["relu9_9", "relu1_2:x", ",", "relu1_1:-1", *TEXTS[1:]],
    "SETTINGS": ["papr", "code,paper", "[code]", *TEXTS[1:]],
    "POOL": ["sum", "3", *TEXTS[1:]],
    "SHARES": ["uniform", *TEXTS[1:]],
    "CTX": ["cpu(7)", "gpu(x)", "tpu", "cpu(-1)", *TEXTS[1:]],
    "PRECISION": ["float8", "16", *TEXTS[1:]],
    "WEIGHTS": ["/nowhere.npz", ".", "no such", "/dev/null", "\udcff.npz", "a" * 5000 + ".npz"],
    "NETWORK": ["vgg99", "/nowhere", *TEXTS[1:]],
    "PICTURES": ["/nowhere.png", "skimage:none", ",", "/dev/null", "a" * 5000, "\udcff.png"],
    "RESULTS": ["a" * 300, "/proc/results", "/dev/null", "/dev/null/x"],
    "STORE": ["a" * 300, "/proc/store", "/dev/null"],
    "FIGURE": ["fig9", "fig3"],
    "OVERRIDES": ["x"],
    "WIEGHTS": ["embedded"],
}
NAMES = ("$x^{lar$", "\\frac{1}{2", "%d%s", "ö" * 60, "-x", " ", "a\nb")
VALUES = ["[1, 2]", "{a: b}", ".inf", "2020-01-01", "!!int abc", "9" * 5000, "[" * 500, "''", "~"]
VALUES += ["true", "1.5", "-3", '"\\0"', "[[relu1_1]]", "!!python/object:os.system x", "&a [*a]"]
KEYS = ("figure", "layers", "pictures", "filters", "seed", "chain", "results", "steps", "weights")


def command(chance: random.Random, folder: Path) -> Tuple[List[str], bool]:
    """Return the words of a command, and whether it must be refused."""
    makers = (_variable, _variable, _variable, _yaml, _yaml, _picture, _words)
    words, sure = chance.choice(makers)(chance, folder)
    return [word.replace("\0", "") for word in words], sure


def _variable(chance: random.Random, _: Path) -> Tuple[List[str], bool]:
    own = {"fig1": ["TILES", "FILTERS"], "fig3": ["FILTERS"], "fig4": ["DRAWS"]}
    alone = {"TILES", "FILTERS", "DRAWS"}
    figure = chance.choice(("fig1", "fig3", "fig4", "fig5"))
    name = chance.choice([n for n in WRONG if n not in alone or n in own.get(figure, ())])
    value = chance.choice(WRONG[name])
    variables = [*(v for v in SMALL if not v.startswith(f"{name}=")), f"{name}={value}"]
    chance.shuffle(variables)
    return ["figure", figure, *variables], (figure, name) != ("fig1", "STORE")  # it computes none


def _yaml(chance: random.Random, folder: Path) -> Tuple[List[str], bool]:
    lines = ["figure: fig3", "pictures: [skimage:coffee]", "layers: [relu1_1]", "filters: [0]"]
    lines += ["chain: false", "weights: embedded", "long_edge: 24", "steps: 2"]
    how = chance.randrange(4)
    if how == 0:  # twice
        lines.append(chance.choice(lines))
    elif how == 1:  # damaged
        text = "\n".join(lines)
        place = chance.randrange(len(text))
        lines = [
            text[:place] + chance.choice(["\0", "\udcff", "\t", ": ", "}", "]"]) + text[place:]
        ]
    else:
        key = chance.choice(KEYS)
        lines = [line for line in lines if not line.startswith(key)]
        lines.append(f"{key}: {chance.choice(VALUES)}")
    path = folder / "own.yaml"
    path.write_bytes("\n".join(lines).encode(errors="surrogateescape"))
    if chance.random() < 0.05:
        path.unlink()
        chance.choice((path.mkdir, lambda: os.mkfifo(path), lambda: path.symlink_to(path)))()
        return ["draw", str(path)], True
    return ["draw", str(path)], how == 0


def _picture(chance: random.Random, folder: Path) -> Tuple[List[str], bool]:
    from PIL import Image

    stem = chance.choice([*NAMES, os.fsdecode(b"\xff\xfe"), "a" * 250])
    path = folder / f"{stem}.png"
    size = chance.choice(((30, 20), (1, 1), (1, 300), (300, 1)))
    Image.new(chance.choice(("RGB", "L", "1", "RGBA", "P", "I;16")), size).save(path)
    sure = chance.random() < 0.3
    if sure:
        path.write_bytes(path.read_bytes()[: chance.randrange(40)])
    figure = chance.choice(("fig2", "fig3", "fig4", "fig5"))
    more = ["STYLES=skimage:coffee"] if figure == "fig5" else []
    return ["figure", figure, *SMALL[:3], f"PICTURES={path}", *more], sure


def _words(chance: random.Random, folder: Path) -> Tuple[List[str], bool]:
    text = chance.choice([text for text in TEXTS if text not in ("", "-")])
    return chance.choice(
        [
            ([text], True),
            ([], True),
            (["draw"], True),
            (["draw", text], True),
            (["figure", text], True),
            (["figure", "fig3", text], True),
            (["figure", "fig3", f"{text}=1"], True),
            (["layers", text], True),
            (["weights", "fetch", text], True),
            (["pictures", "fetch", text], True),
            (["results", "list", "--store", text], False),
            (["results", "prune", "--older-than", text], True),
            (["results", "prune", "--older-than", chance.choice(NUMBERS), "--dry-run"], False),
            (["results", text], True),
            (["--verbose"], True),
        ]
    )


# --- environments ---

RUBBISH = ["abc", "1,2", "1.5", "1000000", "0", "-5", "", " ", "a" * 5000, "é", "\udcff", "1"]
THREADS = ("OMP_NUM_THREADS", "MXNET_CPU_WORKER_NTHREADS", "MXNET_ENGINE_TYPE", "FMI_AMX")
THREADS += ("MXNET_EXEC_BULK_EXEC_TRAIN", "MXNET_CPU_PRIORITY_NTHREADS", "MXNET_SUBGRAPH_BACKEND")
FOLDERS = ("FMI_MODELS", "FMI_PICTURES", "FMI_STORE", "HOME", "TMPDIR", "MPLCONFIGDIR")
OTHERS = ("MPLBACKEND", "FMI_CTX", "COLUMNS", "LC_ALL", "LANG", "PYTHONIOENCODING", "NO_COLOR")
OTHERS += ("DMLC_ROLE", "TZ", "TERM", "MXNET_HOME", "CUDA_VISIBLE_DEVICES", "XDG_CACHE_HOME")
RC = ["text.usetex: True", "backend: nothing", "font.size: 0", "savefig.dpi: 10000", "\xff\xfe"]


def environment(chance: random.Random, folder: Path) -> Tuple[Dict[str, str], Dict[str, Any]]:
    """Return variables, and options of :class:`subprocess.Popen`."""
    variables, options = {}, {}
    how = chance.randrange(6)
    for _ in range(chance.choice((1, 1, 2))):
        if how < 2:
            variables[chance.choice(THREADS)] = chance.choice(RUBBISH)
        elif how == 2:
            value = chance.choice([*RUBBISH, "~", "~nobody", "/dev/null", "/nowhere", "~/x"])
            variables[chance.choice(FOLDERS)] = value
        elif how == 3:
            variables[chance.choice(OTHERS)] = chance.choice(
                [*RUBBISH, "C", "ascii", "dumb", "xx_XX"]
            )
    if how == 4:
        (folder / "matplotlibrc").write_text(chance.choice(RC), encoding="latin-1")
    elif how == 5:
        options = chance.choice([{"stdout": full()}, {"stdout": closed_pipe()}, {"stdin": None}])
        options = options if chance.random() < 0.8 else {"preexec_fn": lambda: os.close(1)}
    return variables, options


def full() -> int:
    """A device that is always full."""
    return os.open("/dev/full", os.O_WRONLY)


def closed_pipe() -> int:
    """A pipe that nobody reads."""
    reader, writer = os.pipe()
    os.close(reader)
    return writer


# --- calls ---


def calls(chance: random.Random) -> List[Tuple[str, Callable[[], Any]]]:
    """Return twenty calls that must be refused, each with a description."""
    import numpy as np

    import fmi.invert

    picture = np.random.RandomState(0).randint(0, 256, (20, 24, 3), np.uint8)
    quick = {"weights": "embedded", "long_edge": 24, "steps": 2, "progress": False, "ctx": "cpu"}
    wrong: Dict[str, Sequence[Any]] = {
        "layer": [3, None, "", "relu9_9", "relu1_1:99", ["relu1_1", 3], b"relu1_1", [], {}, np.nan],
        "filters": [None, "0", 0.0, [0.5], [[0]], np.zeros((1, 1)), True, [-1], [999], [], "all"],
        "draws": ["2", 1.5, float("nan"), 0, -1, True, [2], None],
        "seed": ["1", 1.5, -1, 2**32, True, None, [1]],
        "callback": [3, "print", [print]],
        "init": [np.full((20, 24, 3), np.nan), np.full((20, 24, 3), np.inf), "contents", 3],
        "steps": [float("inf"), 0, "2.5", 1.5, True, [3], 10**30, "abc"],
        "learning_rate": [float("nan"), 1e300, -1, "x", [], {}, 0],
        "momentum": [2, 1e30, "x", -1],
        "clip": [1e300, 0, float("inf")],
        "settings": [["code"], "papr", 3, {"steps": 3}],
        "ctx": ["tpu", 3, "cpu(7)", ["cpu"]],
        "precision": ["float8", 16, None, np.float64],
        "weights": [3, "/nowhere.npz", [], b"x"],
        "network": ["vgg99", 3, [], object()],
        "input": ["bgr", 3],
        "store": [3, "results", []],
        "wieghts": ["embedded"],
        "batch": [-1, 1.5, "x"],
        "content": [3, None, "/nowhere.png", np.zeros(3), np.zeros((0, 4, 3)), [[1]], picture * 1j],
    }

    def call(name: str, value: Any) -> Callable[[], Any]:
        arguments = {"content": picture, "layer": "relu1_1", name: value}
        content, layer = arguments.pop("content"), arguments.pop("layer")
        options = {**quick, **arguments}
        if name == "filters" or (name not in ("draws", "seed") and chance.random() < 0.3):
            filters = options.pop("filters", [0])
            return lambda: fmi.invert.feature_map(content, layer, filters, **options)
        if name in ("draws", "seed") or chance.random() < 0.3:
            return lambda: fmi.invert.random(content, layer, **options)
        return lambda: fmi.invert.code(content, layer, **options)

    found = []
    for _ in range(20):
        name = chance.choice(sorted(wrong))
        value = chance.choice(wrong[name])
        found.append((f"{name}={value!r}"[:200], call(name, value)))
    return found


def main(seed: str) -> int:
    """Make twenty odd calls; return 1 if one is not answered with an InputError."""
    from fmi.errors import InputError

    failed = 0
    found = calls(random.Random(seed))
    for text, call in found:
        why = "it was taken"
        try:
            call()
        except InputError as error:
            message = str(error)
            why = "" if len(message) < 700 and message.count("\n") < 2 else f"too long: {message}"
        except Exception as error:
            why = f"{type(error).__name__}: {error}"
        if why:
            print(f"{text}: {why}")
            failed += 1
    print(f"{len(found)} calls")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
