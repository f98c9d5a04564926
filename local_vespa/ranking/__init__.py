"""Scores: rank features, ONNX models, and the phases that evaluate a rank profile over the matches."""
