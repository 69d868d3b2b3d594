"""Records into frozen batches, and each batch into the exact bytes that are sent."""
