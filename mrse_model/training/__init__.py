"""Training, from checked inputs to a checkpoint: the pipeline, its stages, the loop they share."""
