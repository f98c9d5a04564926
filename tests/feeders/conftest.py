"""The fixtures of feeding.py."""

from tests.helpers.feeding import *  # noqa: F403
