"""Measurements: each figure a ratio of things measured in turn in one run."""
