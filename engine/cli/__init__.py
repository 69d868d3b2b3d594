"""The command line: words typed in, an operation performed, a last screen (or one JSON object) and an exit code out."""
