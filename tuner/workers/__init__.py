"""How workers share a search: over KerasTuner's protocol, as processes of this machine, or on a Ray cluster."""
