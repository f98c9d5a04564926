"""Helpers of one test module are used by another: small() of test_model."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent))
