"""``python -m fmi``: the command line."""

import sys

from fmi.cli import main

sys.exit(main())
