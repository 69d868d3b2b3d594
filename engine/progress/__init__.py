"""What happens in a run, as events, and those who show them: displays and log lines."""
