"""Descriptions that hold."""

GOOD = """
[service]
kind = "http"
base_url = "https://api.example.com"
auth = { kind = "bearer", secret = "${env:NO_SUCH_VARIABLE}" }
record = { key = "${task.id}", template = { id = "${key}", data = "${task}" } }
release = { call = "POST /items", payload = true, again = "exists" }

[service.results]
items = "items"
match = "key"
key = "id"
id = ["number"]
ok = { state = ["made", "kept"] }
error = ["message"]
exists = { code = "duplicate" }
busy = { code = "busy" }

[[service.rules]]
status = [400]
path = "code"
equals = ["E1"]
means = "whole"

[[service.rules]]
status = [400]
means = "by_index"
at = "errors"
index = "at"
error = ["message"]
"""

SAFE = """
[service]
kind = "http"
base_url = "https://api.example.com"
auth = { kind = "bearer", secret = "${env:BULK_KEY}" }
record = { key = "${task.id}", template = { id = "${key}", properties = "${task}" } }
body = { under = "inputs" }
release = { call = "POST /records/batch/upsert", payload = true, again = "safe" }

[service.results]
items = "results"
match = "key"
key = "key"
failures = { items = "errors", key = "context.key", error = ["message"] }
"""
