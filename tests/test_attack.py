"""A few attacks of each kind; ``python tests/attack.py --kills 60 --inputs 300`` makes more."""

import re
import subprocess
import sys
from pathlib import Path


def test_no_attack_succeeds():
    script = Path(__file__).with_name("attack.py")
    words = [sys.executable, str(script), "--kills", "2", "--inputs", "8", "--seed", "7"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    counts = dict(re.findall(r"^(\S.*?) +(\d+) +0$", done.stdout, re.MULTILINE))
    kinds = {"kill -9", "SIGTERM", "SIGINT", "race", "damage", "umask"}
    assert kinds | {"odd commands", "odd environments", "odd calls"} <= set(counts)
