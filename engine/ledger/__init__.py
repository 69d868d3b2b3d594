"""The durable memory of jobs, one module per kind of store."""
