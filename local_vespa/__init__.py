"""An embedded engine that deploys a Vespa application package and speaks Vespa's HTTP API in one process."""

import os

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # before onnxruntime is loaded: it reports to its makers by default
