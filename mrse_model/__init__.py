"""The learned model, from Parquet to ONNX (Jiang et al. 2024, arXiv 2408.14968)."""

from mrse_model.environment import prepare

prepare()  # before torch, onnxruntime or an HTTP client is loaded
