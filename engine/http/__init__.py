"""A `Call` into an `Answer` or a typed error: pace, retries, deadlines, and what is known of a call that failed."""
