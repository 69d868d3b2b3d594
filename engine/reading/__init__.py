"""Bytes in, records out: sources, formats, mapping and the cut into batches."""
