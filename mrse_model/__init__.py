"""The learned model, from Parquet to ONNX (Jiang et al. 2024, arXiv 2408.14968)."""

import os

# Before torch is loaded: its threads then sleep while they wait for each other. Spinning, as is their default, makes
# every small layer ten times slower as soon as another process wants the same cores (a shared machine, CI).
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
