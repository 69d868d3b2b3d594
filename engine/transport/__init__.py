"""Calls onto the wire: deadlines, pacing, retries, and what is known of a call that failed."""
