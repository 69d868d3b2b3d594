"""Measures how fast a service creates tasks. Nothing of it is loaded by a run."""
