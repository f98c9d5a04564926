"""The fixtures of feeding.py."""

from feeding import *  # noqa: F403
