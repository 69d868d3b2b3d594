"""Services of the world, served locally: one module for each, written from its vendor's own documents.

The shipped descriptions (`services/described/shipped`) are run against them. They are small: the calls that a bulk
load makes, with the vendor's status words, errors, limits and lags. Each docstring names the pages, and what of it is a
guess. What a `Behaviour` says of faults, latency, rate limits, lags and failures holds here, too.
"""
