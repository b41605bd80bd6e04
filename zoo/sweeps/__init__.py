"""Sweeps: what one is, its runs and their states, what they cost, and how they are trained, here or on a cluster."""
