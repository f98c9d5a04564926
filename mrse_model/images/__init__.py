"""Pictures to features: frozen encoders behind one interface, extraction to Parquet, the ONNX file for serving."""
