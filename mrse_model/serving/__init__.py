"""The exported model beside its caller: texts, images and histories to vectors, in ONNX Runtime. Needs no torch."""
