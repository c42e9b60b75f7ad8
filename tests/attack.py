"""Attack the command line, the store and the API, and count what fails.

``python tests/attack.py --kills 60 --inputs 300 --seed 1`` kills and interrupts figures at random
moments, lets several processes share a store, fills disks, damages stores at random places, and
hands odd inputs to commands and functions, under odd environments. It prints a table of what was
tried and what failed, and each failure. The exit status is 1 if there is one.

Every figure is drawn with the embedded network. A figure that was attacked is drawn once more,
and its store, sheet and panels must then be those of a figure that was left in peace.
"""

from __future__ import annotations

import argparse
import collections
import concurrent.futures
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

import attack_inputs as odd
from PIL import Image

from fmi import files
from fmi.runs.store import FILES, Store

ROOT = Path(__file__).resolve().parent.parent
FMI = (sys.executable, "-m", "fmi")
SECONDS = 120  # of one command; one that hangs is ended, and has failed
INTERRUPTED = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGKILL: -9}

SMALL = ("WEIGHTS=embedded", "LONG_EDGE=48", "STOP=0", "PICTURES=skimage:coffee")
FIGURES: Tuple[Tuple[str, ...], ...] = (
    ("fig3", "LAYERS=relu1_2,relu2_2", "FILTERS=0,1,2", "STEPS=25"),  # chained
    ("fig3", "LAYERS=relu1_2,relu2_1", "FILTERS=0,1,2,3", "STEPS=25", "SETTINGS=paper", "BATCH=2"),
    ("fig4", "LAYERS=relu1_1,relu2_1,relu3_1", "DRAWS=2", "STEPS=25"),
    ("fig5", "STYLES=skimage:rocket,skimage:retina", "STEPS=15"),
)


class Failure(Exception):
    """Something that must not happen."""


@dataclass
class Run:
    """A command that has ended."""

    words: Sequence[str]
    status: int
    out: str
    err: str

    def fail(self, why: str) -> Failure:
        """Return the failure of this command."""
        words = " ".join(ascii(word)[1:-1][:200] for word in self.words)
        return Failure(f"{why}\n    {words}\n    status {self.status}: {self.err[-1500:]}")

    def check(self, *statuses: int) -> Run:
        """Fail unless the status is one of these, and what is wrong is said in a line or two."""
        if "Traceback (most recent call last)" in self.err and "/fmi/" in self.err:
            raise self.fail("a traceback")
        if self.status not in statuses:
            raise self.fail(f"the status is not among {statuses}")
        if self.status == 2:
            lines = re.split(r"[\n\r]", self.err.rstrip())
            said = [n for n, line in enumerate(lines) if re.match(r"fmi( \w+)*: ", line)]
            if len(said) != 1 or len(lines) - said[0] > 2 or sum(map(len, lines[said[0] :])) > 700:
                raise self.fail("the message is not one or two lines")
        return self


def environment(**variables: str) -> Dict[str, str]:
    """The environment of commands: one thread, and no folders of the user."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("FMI_")}
    always = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    return {**kept, **always, **variables}


def run(words: Sequence[Any], folder: Path, prefix: Sequence[str] = (), **options: Any) -> Run:
    """Run a command of fmi in a folder."""
    with start(words, folder, prefix, **options) as process:
        return ended(process, words)


def start(
    words: Sequence[Any],
    folder: Path,
    prefix: Sequence[str] = (),
    variables: Optional[Dict[str, str]] = None,
    **options: Any,
) -> subprocess.Popen:
    """Start a command of fmi in a folder."""
    options = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, **options}
    return subprocess.Popen(
        [*prefix, *FMI, *words],
        cwd=folder,
        env=environment(**(variables or {})),
        stderr=subprocess.PIPE,
        **options,
    )


def ended(process: subprocess.Popen, words: Sequence[Any]) -> Run:
    """Wait for the end of a command."""
    try:
        out, err = process.communicate(timeout=SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        err += f"\nended after {SECONDS} seconds".encode()
    texts = [(data or b"").decode(errors="replace") for data in (out, err)]
    return Run([str(word) for word in words], process.returncode, *texts)


# --- what a figure should be ---


@dataclass
class Wanted:
    """A figure that was drawn in peace: digests of its files, and the seconds that it took."""

    words: Tuple[str, ...]
    seconds: float = 0.0
    results: Dict[str, str] = field(default_factory=dict)
    stored: Dict[str, str] = field(default_factory=dict)

    @property
    def sheet(self) -> str:
        """The name of the sheet."""
        return f"results/{self.words[0]}/{self.words[0]}.png"

    def check(self, folder: Path) -> None:
        """Fail unless the figure in a folder is this one, and nothing half-written is there."""
        found = {**pictures(folder), **stored(folder)}
        missing = {**self.results, **self.stored}.items() - found.items()
        if missing:
            names = ", ".join(sorted(name for name, _ in missing)[:4])
            raise Failure(f"{' '.join(self.words)}: another content of {names}")
        left_over(folder)


def pictures(folder: Path) -> Dict[str, str]:
    """Digests of the pictures in the results, by name."""
    found = [
        path
        for path in (folder / "results").rglob("*.png")
        if "store" not in path.parts and path.is_file()
    ]
    return {str(path.relative_to(folder)): files.file_digest(path, "sha256") for path in found}


def stored(folder: Path) -> Dict[str, str]:
    """Digests of the pictures and arrays in the store, by name."""
    store = Store(folder / "results/store")
    found = [store.path(name) / file for name in store.names() for file in FILES[:3]]
    found = [path for path in found if path.is_file()]
    return {str(path.relative_to(folder)): files.file_digest(path, "sha256") for path in found}


def left_over(folder: Path) -> None:
    """Fail if a temporary file or a lock was left behind."""
    found = [p for p in folder.rglob("*") if p.name.startswith(".") and p.name.endswith(".part")]
    locks = folder / "results/store/locks"
    found += locks.iterdir() if locks.is_dir() else []
    if found:
        raise Failure(f"left behind: {', '.join(str(p.relative_to(folder)) for p in found[:4])}")


def in_peace(words: Tuple[str, ...], folder: Path) -> Wanted:
    """Draw a figure without any attack."""
    began = time.perf_counter()
    run(["figure", *words, *SMALL], folder).check(0)
    seconds = time.perf_counter() - began
    wanted = Wanted(words, seconds, pictures(folder), stored(folder))
    if not wanted.stored or wanted.sheet not in wanted.results:
        raise Failure(f"{' '.join(words)} drew nothing")
    return wanted


# --- attacks: each is tried once, with a generator of its own, in a folder of its own ---


class Attacks:
    """The attacks, and the figures that they aim at."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self._known: Dict[Tuple[str, ...], Wanted] = {}
        self._lock = threading.Lock()

    def _wanted(self, words: Tuple[str, ...]) -> Wanted:
        with self._lock:
            if words not in self._known:
                folder = Path(tempfile.mkdtemp(dir=self.base))
                self._known[words] = in_peace(words, folder)
            return self._known[words]

    def _draw(self, wanted: Wanted) -> List[str]:
        return ["figure", *wanted.words, *SMALL]

    def _any(self, chance: random.Random) -> Wanted:
        return self._wanted(chance.choice(FIGURES))

    def kill(self, chance: random.Random, folder: Path, number: signal.Signals) -> None:
        """End a figure at a random moment, perhaps twice, and draw it again."""
        wanted = self._any(chance)
        words = self._draw(wanted)
        for _ in range(chance.choice((1, 1, 2))):
            with start(words, folder) as process:
                time.sleep(chance.uniform(0.2, 1.1 * wanted.seconds))
                process.send_signal(number)
                done = ended(process, words).check(0, INTERRUPTED[number])
            if done.status and number != signal.SIGKILL and "interrupted" not in done.err:
                raise done.fail("nothing is said of the interruption")
            if number != signal.SIGKILL:
                left_over(folder)
        store = Store(folder / "results/store")
        kept = sum(store.intact(name) for name in store.names())
        if kept != len(store.names()):
            raise Failure("a result is damaged")
        again = run(words, folder).check(0)
        counts = re.search(r"(\d+) of (\d+) panels to compute", again.err)
        if not counts or int(counts[1]) != int(counts[2]) - kept:
            raise again.fail(f"{kept} panels were kept, and others are computed")
        wanted.check(folder)

    def race(self, chance: random.Random, folder: Path) -> None:
        """Let two or three processes share a store and a folder of results; one may be killed."""
        wanted = self._any(chance)
        seeded = [self._wanted((*FIGURES[2], f"SEED={chance.randrange(3)}")) for _ in range(2)]
        several = [chance.choice([wanted, *seeded]) for _ in range(chance.choice((2, 3)))]
        processes = [start(self._draw(one), folder) for one in several]
        victim = None
        if chance.random() < 0.4:
            victim = chance.randrange(len(processes))
            time.sleep(chance.uniform(0.5, wanted.seconds))
            processes[victim].kill()
        for place, (one, process) in enumerate(zip(several, processes)):
            with process:
                ended(process, self._draw(one)).check(*((0, -9) if place == victim else (0,)))
        sheets: Dict[str, List[str]] = collections.defaultdict(list)
        for one in several:
            sheets[one.sheet].append(one.results[one.sheet])
        shown, held = pictures(folder), stored(folder)
        for sheet, digests in sheets.items():
            if shown.get(sheet, digests[0]) not in digests:
                raise Failure(f"{sheet} is of several runs")
        for place, one in enumerate(several):
            if place != victim and one.stored.items() - held.items():
                raise Failure(f"{' '.join(one.words)}: a result is missing from the store")
        if victim is None:
            left_over(folder)

    def full_disk(self, chance: random.Random, folder: Path) -> None:
        """Draw on a disk that becomes full; then what fits is there, and nothing half-written."""
        wanted = self._any(chance)
        size = chance.randrange(8, 400)
        words = self._draw(wanted)
        done = run(words, folder, on_a_disk(size))
        done.check(0, 2)
        if done.status == 2 and os.strerror(28) not in done.err:
            raise done.fail("the message does not name the reason")
        saved = folder / "saved"
        left_over(saved)
        store = Store(saved / "results/store")
        if not all(store.intact(name) for name in store.names()):
            raise done.fail("a result is damaged")
        run(words, saved).check(0)
        wanted.check(saved)

    def read_only(self, chance: random.Random, folder: Path) -> None:
        """Draw where nothing can be written, or only the store, or only the results."""
        wanted = self._any(chance)
        words = [*self._draw(wanted), "RESULTS=shown"]
        for name in ("results", "shown"):
            (folder / name).mkdir()
        if chance.random() < 0.3:
            run(words, folder).check(0)
        name = chance.choice(("results", "shown", "."))
        done = run(words, folder, read_only_at(name)).check(2)
        if os.strerror(30) not in done.err and "read" not in done.err:
            raise done.fail("the message does not name the reason")

    def forbidden(self, chance: random.Random, folder: Path) -> None:
        """Draw with an umask that forbids to read or write one's own files, then without."""
        wanted, umask = self._any(chance), chance.choice((0o777, 0o077, 0o222, 0o444, 0o333))
        run(self._draw(wanted), folder, preexec_fn=lambda: os.umask(umask) and None).check(0, 2)
        for path in [folder, *folder.rglob("*")]:
            path.chmod(0o700)
        run(self._draw(wanted), folder).check(0)
        wanted.check(folder)

    def damage(self, chance: random.Random, folder: Path) -> None:
        """Damage one to four places of a complete figure; it must be made whole again."""
        wanted = self._any(chance)
        words = self._draw(wanted)
        run(words, folder).check(0)
        for _ in range(chance.randint(1, 4)):
            spoil(folder / "results", chance)
        done = run(words, folder).check(0)
        try:
            wanted.check(folder)
        except Failure as failure:
            raise done.fail(str(failure)) from None

    def command(self, chance: random.Random, folder: Path) -> None:
        """Hand an odd input to a command."""
        words, sure = odd.command(chance, folder)
        done = run(words, folder).check(*((2,) if sure else (0, 2)))
        for line in done.out.splitlines() if words[:1] in (["draw"], ["figure"]) else ():
            if line.endswith(".png") and done.status == 0:
                with Image.open(folder / line) as image:
                    image.load()
        left_over(folder)

    def variable(self, chance: random.Random, folder: Path) -> None:
        """Run a command under an odd environment."""
        variables, options = odd.environment(chance, folder)
        words = chance.choice(
            (["layers", "embedded"], ["pictures", "list"], ["figure", *FIGURES[2], *SMALL])
        )
        run(words, folder, variables=variables, **options).check(0, 2, 141)

    def function(self, chance: random.Random, folder: Path) -> None:
        """Hand odd values to the functions of fmi.invert, twenty calls in one process."""
        seed = str(chance.randrange(10**9))
        words = [sys.executable, str(Path(__file__).with_name("attack_inputs.py")), seed]
        done = subprocess.run(
            words, cwd=folder, env=environment(), capture_output=True, timeout=600, check=False
        )
        if done.returncode or b"20 calls" not in done.stdout:
            text = (done.stdout + done.stderr).decode(errors="replace")[-1500:]
            raise Failure(f"attack_inputs.py {seed}: status {done.returncode}: {text}")


def in_a_namespace(script: str) -> Tuple[str, ...]:
    """Words that run a script, and then a command, with mounts that nobody else sees."""
    return ("unshare", "-rm", "sh", "-c", script, "sh")


def on_a_disk(kilobytes: int) -> Tuple[str, ...]:
    """Words that run a command on a small disk, and copy what is on it to saved/."""
    return in_a_namespace(
        f"set -e; mkdir disk saved; mount -t tmpfs -o size={kilobytes}k none disk; cd disk;"
        ' "$@" || status=$?; cp -a . ../saved; exit ${status:-0}'
    )


def read_only_at(folder: str) -> Tuple[str, ...]:
    """Words that run a command where a folder is read-only."""
    return in_a_namespace(
        f"set -e; mount --bind {folder} {folder}; mount -o remount,bind,ro {folder};"
        ' cd "$PWD"; exec "$@"'
    )


def spoil(folder: Path, chance: random.Random) -> None:
    """Damage a file or a folder, chosen at random, in one of many ways."""
    found = [path for path in sorted(folder.rglob("*")) if not path.is_symlink()]
    found = [path for path in found if path.is_file() or path.is_dir()]  # not damaged before
    path, other = chance.choice(found), chance.choice(found)
    how = chance.randrange(9)
    result = "store" in path.parts and len(path.parts) > path.parts.index("store") + 2
    if path.is_dir():
        shutil.rmtree(path)
        if result and how < 3:
            path.write_text("a file")
        elif result and how < 6:
            path.symlink_to(other)
        return
    data = bytearray(path.read_bytes())
    if how == 0 or (how == 2 and not result):
        path.unlink()
    elif how == 1 and data:
        path.write_bytes(data[: chance.randrange(len(data))])
    elif how == 2:
        path.unlink()
        path.mkdir()
        (path / "within").write_text("a file")
    elif how == 3 and other.is_file():
        path.write_bytes(other.read_bytes())
    elif how == 4:
        same = [one for one in found if one.name == path.name]
        path.write_bytes(chance.choice(same).read_bytes())
    elif how == 5:
        path.unlink()
        path.symlink_to(chance.choice(["nowhere", path.name, "/dev/zero", "/dev/full"]))
    elif how == 6:
        texts = ["", "null", "[" * 5000, '{"a": NaN}', '{"key": 1e999}', "\xff"]
        path.write_text(chance.choice(texts), encoding="latin-1")
    elif how == 7:
        path.unlink()
        os.mkfifo(path)
    else:
        for _ in range(chance.randint(1, 20)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        path.write_bytes(data)


# --- the whole ---

KINDS = ("kill -9", "SIGTERM", "SIGINT", "race", "full disk", "read-only", "umask", "damage")
KINDS += ("odd commands", "odd environments", "odd calls")


def plan(attacks: Attacks, kills: int, inputs: int) -> List[Tuple[str, Callable[..., None]]]:
    """Return the attacks of each kind: `kills` of them end processes, `inputs` are odd."""
    signals = {"kill -9": signal.SIGKILL, "SIGTERM": signal.SIGTERM, "SIGINT": signal.SIGINT}
    found: List[Tuple[str, Callable[..., None]]] = []

    def add(kind: str, count: int, attack: Callable[..., None], *more: Any) -> None:
        found.extend([(kind, lambda *given: attack(*given, *more))] * max(count, 1))

    for kind, number in signals.items():
        add(kind, kills // 3, attacks.kill, number)
    add("race", kills // 3, attacks.race)
    add("damage", kills // 2, attacks.damage)
    add("umask", kills // 6, attacks.forbidden)
    if mounts():
        add("full disk", kills // 3, attacks.full_disk)
        add("read-only", kills // 6, attacks.read_only)
    add("odd commands", inputs // 3, attacks.command)
    add("odd environments", inputs // 6, attacks.variable)
    add("odd calls", inputs // 2 // 20, attacks.function)
    return found


def mounts() -> bool:
    """Return whether this system allows file systems of one's own."""
    if not shutil.which("unshare"):
        return False
    script = in_a_namespace("mount -t tmpfs none /tmp")
    return not subprocess.run(script, capture_output=True, check=False).returncode


def main() -> int:
    """Attack, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=60)
    parser.add_argument("--inputs", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kind", choices=KINDS, help="only this kind")
    chosen = parser.parse_args()
    tried: Dict[str, int] = collections.Counter()
    failed: Dict[str, int] = collections.Counter()
    lock = threading.Lock()
    with tempfile.TemporaryDirectory() as temporary:
        base = Path(temporary)
        attacks = Attacks(base)

        def attempt(number: int, kind: str, attack: Callable[..., None]) -> None:
            folder = base / f"{number}"
            folder.mkdir()
            why = ""
            try:
                attack(random.Random(f"{chosen.seed} {number}"), folder)
            except Failure as failure:
                why = str(failure)
            except Exception as error:  # of the attack itself, or of what it found
                why = f"{type(error).__name__}: {error}"
            shutil.rmtree(folder, ignore_errors=True)
            with lock:
                tried[kind] += 1
                failed[kind] += bool(why)
                if why:
                    print(f"{kind} {number} FAILED: {why}\n", flush=True)

        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
            todo = enumerate(plan(attacks, chosen.kills, chosen.inputs))
            for number, (kind, attack) in todo:
                if chosen.kind in (None, kind):
                    pool.submit(attempt, number, kind, attack)
    print(f"{'attack':<18}{'tried':>6}{'failed':>8}")
    for kind in KINDS:
        if kind in tried:
            print(f"{kind:<18}{tried[kind]:>6}{failed[kind]:>8}")
        elif chosen.kind in (None, kind):
            print(f"{kind:<18}{'not tried: this system does not allow unshare -rm':>14}")
    return 1 if sum(failed.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
