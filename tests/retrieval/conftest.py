"""The fixtures of tests/feeders: a package with stand-in models, an items file, a server that records."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1] / "feeders"))

from feeding import *  # noqa: F403
