"""What a command prints at its end: what happened, what to do next, where the files are; as text and as data."""
