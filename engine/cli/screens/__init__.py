"""Last screens: what happened, what to do next, and where the files are; each as text and as data."""
