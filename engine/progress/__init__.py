"""What happens in a run, as events, and what shows them: displays and log lines."""
