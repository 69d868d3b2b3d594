"""bulksubmit: bulk submission of tasks to HTTP APIs, each exactly once, each accounted for."""

__version__ = "0.1.0"
