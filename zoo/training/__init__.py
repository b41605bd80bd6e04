"""One run: a network trained on a backend's engine, its checkpoints, and what it records."""
