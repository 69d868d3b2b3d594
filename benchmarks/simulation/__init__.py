"""Rules for the number of calls in flight against servers described as data, in virtual time."""
