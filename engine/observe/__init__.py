"""What happens in a run, as facts, and those who show them: progress, log lines."""
