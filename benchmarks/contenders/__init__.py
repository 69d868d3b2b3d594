"""What is measured besides bulksubmit: each module is a program of its own, as short as its users would write it."""
