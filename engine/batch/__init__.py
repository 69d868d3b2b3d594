"""Records → frozen batches → the exact bytes that are sent."""
