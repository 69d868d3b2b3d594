"""The server of the toy service: its logic, and a socket for it. It keeps each item that it creates."""

import json
import threading
import tomllib
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

PACKAGE = Path(__file__).parent / "toy_service"
KEY = "toy-key"


@dataclass
class ToyServer:
    """Creates an item for each title, but for those that are `taken`; the answer about one that is `lost` is lost."""

    taken: frozenset = frozenset({"taken"})
    lost: frozenset = frozenset({"lost"})
    items: list = field(default_factory=list)

    def answer(self, method, path, key, body):
        """Return the status and the body of an answer."""
        if key != KEY:
            return 401, {"error": "a key is needed"}
        if (method, path) != ("POST", "/items"):
            return (200, {"name": "toy"}) if path == "/" else (404, {"error": "there is no such place"})
        return 200, {"items": [self._created(task["title"]) for task in json.loads(body)]}

    def _created(self, title):
        if title in self.taken:
            return {"error": f"{title} is taken"}
        self.items.append(title)
        return {"id": f"i{len(self.items)}"}


@contextmanager
def serving(server):
    """Serve a toy on a free port of loopback; give its address."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            status, said = server.answer(self.command, self.path, self.headers.get("X-Api-Key"), body)
            if server.lost.intersection(server.items):
                self.close_connection = True
                return
            text = json.dumps(said).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_POST  # noqa: N815 - the name that http.server calls

        def log_message(self, *_words):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        thread = threading.Thread(target=http.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{http.server_port}"
        finally:
            http.shutdown()
            thread.join()


def install(folder):
    """Put the package's metadata into a folder, as an installer does; return the folders for PYTHONPATH."""
    project = tomllib.loads((PACKAGE / "pyproject.toml").read_text())["project"]
    info = folder / f"bulksubmit_toy-{project['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    points = [
        line
        for group, named in project["entry-points"].items()
        for line in (f"[{group}]", *(f"{name} = {place}" for name, place in named.items()))
    ]
    (info / "entry_points.txt").write_text("\n".join(points) + "\n")
    return [str(folder), str(PACKAGE)]
