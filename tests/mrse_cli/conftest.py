"""The fixtures of tests/feeders: a package with stand-in models, an items file, a server that records."""

from __future__ import annotations

from tests.helpers.feeding import *  # noqa: F403
