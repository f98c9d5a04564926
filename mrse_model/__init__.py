"""The learned model, from Parquet to ONNX (Jiang et al. 2024, arXiv 2408.14968)."""
