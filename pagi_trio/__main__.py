"""``python -m pagi_trio``."""

from __future__ import annotations

import sys

from pagi_trio.cli import main

if __name__ == "__main__":
    sys.exit(main())
