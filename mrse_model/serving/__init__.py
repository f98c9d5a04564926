"""The exported model in the client's process: texts, images and histories to vectors, in ONNX Runtime; no torch."""
