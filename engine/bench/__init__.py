"""A service's speed, measured: loads, their timing, what was seen of them, and the documents that show it."""
