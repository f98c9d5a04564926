"""Images to features: frozen encoders behind one interface, extraction to Parquet, the ONNX file for serving."""

DEFAULT_ENCODER = "efficientnet-lite0-colours"  # what reads the images by default
