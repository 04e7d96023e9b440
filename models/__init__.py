"""What a model is: specifications, checkpoints, artifacts, families, tasks and data. The bottom layer."""
