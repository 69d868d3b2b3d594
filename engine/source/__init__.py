"""Bytes → records: which files there are, what their format is, and where each record lies."""
