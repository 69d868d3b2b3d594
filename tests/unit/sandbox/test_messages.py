"""Requests as values, and the way from a path to its handler: no connection anywhere."""

import subprocess
import sys

import pytest
from yarl import URL

from engine.sandbox.messages import Route, Routes, SandboxAnswer, SandboxRequest

ROUTES = Routes(
    Route(method, path, kind, lambda _: SandboxAnswer())
    for method, path, kind in [
        ("GET", "/tasks", "list"),
        ("POST", "/tasks", "create"),
        ("GET", "/tasks/fixed.json", "fixed"),
        ("GET", "/tasks/{task_id}.json", "task"),
        ("GET", "/apps/{app:[^/]+/[^/]+(?:/[0-9]{1,3})?}", "app"),
    ]
)


def _find(method, path):
    return ROUTES.find(SandboxRequest(method, URL(f"http://localhost{path}", encoded=True), {}))


@pytest.mark.parametrize(
    ("method", "path", "kind", "params"),
    [
        ("GET", "/tasks", "list", {}),
        ("GET", "/tasks?name=a/b", "list", {}),
        ("POST", "/tasks", "create", {}),
        ("GET", "/tasks/fixed.json", "fixed", {}),
        ("GET", "/tasks/a%20b%2Fc.json", "task", {"task_id": "a b/c"}),
        ("GET", "/apps/owner/app", "app", {"app": "owner/app"}),
        ("GET", "/apps/owner/app/12", "app", {"app": "owner/app/12"}),
    ],
)
def test_a_path_leads_to_the_first_route_that_fits_with_its_named_parts(method, path, kind, params):
    call = _find(method, path)
    assert (call.kind, call.request.params) == (kind, params)


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/task", 404), ("GET", "/tasks/", 404), ("PUT", "/tasks", 405)]
)
def test_what_no_route_serves_is_a_status(method, path, status):
    assert _find(method, path) == status


def test_the_logic_of_the_services_knows_no_sockets():
    script = "import sys, engine.sandbox.sama, engine.sandbox.sevenbridges; print('aiohttp' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", script]) == b"False\n"
