"""How a trial runs, and how the best one is confirmed."""
