"""Keep the attacks to the system whose memory, files and processors they look at."""

from __future__ import annotations

import sys

if sys.platform != "linux":
    collect_ignore_glob = ["test_*.py"]
