"""Ready answers in, the address of an nginx that gives them out: a server in C which reads every body whole.

It answers as the services would for a batch of a known number of tasks: the work is the client's. The number of tasks
is the project's id, so `/v2/projects/1000/` is one whose batches have 1,000 tasks each. Every batch gets a name of its
own, and tasks show the data that every batch of the workload has.
"""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import orjson

from benchmarks.harness import NotMeasured, needs
from benchmarks.workload import BATCH_RECORDS, BLOCK_RECORDS, batch_records

START_SECONDS = 10.0
SHOWN_TASKS = 100
"""On a page of the list of tasks, as at Sama."""

CONFIG = """
daemon off; master_process off; pid {folder}/nginx.pid; error_log {folder}/error.log warn; worker_rlimit_nofile 4096;
events {{ worker_connections 1024; }}
http {{
  access_log off; default_type application/json; keepalive_requests 1000000000; keepalive_timeout 300s;
  client_max_body_size 64m; client_body_buffer_size 32m; client_body_temp_path {folder}/bodies;
  proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  upstream answers {{ server unix:{folder}/answers.sock; keepalive 64; }}
  map $arg_page $wanted {{ default tasks; "" counts; }}
  server {{
    listen 127.0.0.1:{port};
    location ~ ^/v2/projects/(?<tasks>[0-9]+)/batches/[^/]+[.]json$ {{
      root {folder}; try_files /$tasks.$wanted =404;
    }}
    location ~ ^/v2/projects/(?<tasks>[0-9]+)/tasks[.]json$ {{ root {folder}; try_files /$tasks.shown =404; }}
    location ~ /batches/[^/]+/ {{ return 200 '{{"batch_id":1}}'; }}
    location / {{
      proxy_pass http://answers; proxy_pass_request_body off; proxy_http_version 1.1; proxy_method GET;
      proxy_set_header Connection ''; proxy_set_header Content-Length '';
    }}
  }}
  server {{
    listen unix:{folder}/answers.sock;
    location ~ /batches[.]json$ {{
      return 200 '{{"batch_id":"$request_id","tasks_put_url":"http://127.0.0.1:{port}/put"}}';
    }}
    location /v2/tasks {{ return 200 '{{"id":"$request_id","status":"DRAFT"}}'; }}
    location /put {{ add_header ETag '"0"'; return 200; }}
    location ~ /_bulk$ {{
      add_header X-Elastic-Product Elasticsearch;
      default_type application/vnd.elasticsearch+json;
      root {folder}; try_files /bulk =404;
    }}
    location / {{ return 200 '{{}}'; }}
  }}
}}
"""


@contextmanager
def nginx(folder: Path, kind: str = "typical") -> Iterator[str]:
    """Serve on a free port of the loopback until the block ends; yield `http://host:port`.

    `kind`: of the records that are sent; the list of tasks shows them.

    Raises:
        NotMeasured: it is not installed or does not start.
    """
    needs("nginx")
    place = folder / "nginx"
    place.mkdir(exist_ok=True)
    port = _free_port()
    _write_answers(place, kind)
    config = place / "nginx.conf"
    config.write_text(CONFIG.format(folder=place, port=port))
    (place / "answers.sock").unlink(missing_ok=True)
    with subprocess.Popen(["nginx", "-p", str(place), "-c", str(config)], stderr=subprocess.DEVNULL) as process:  # noqa: S607 - Debian's
        try:
            _until_it_listens(port, process, place)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


def answers(kind: str) -> Mapping[str, bytes]:
    """Return what Sama says of a batch of these records when its tasks are created.

    `counts` without its tasks, `tasks` with them, and `shown`: the first tasks of the project's list, with their data.
    """
    sent = batch_records(kind)
    counts = {"state": "completed", "total": len(sent), "created": len(sent), "failed": 0}
    tasks = [{"id": f"{number:024x}", "state": "created"} for number in range(len(sent))]
    shown = [{**orjson.loads(record), **task} for record, task in zip(sent[:SHOWN_TASKS], tasks, strict=False)]
    told = {"counts": counts, "tasks": {**counts, "tasks": tasks}, "shown": {"tasks": shown}}
    return {name: orjson.dumps(answer) for name, answer in told.items()}


def _write_answers(place: Path, kind: str) -> None:
    for name, answer in answers(kind).items():
        (place / f"{BATCH_RECORDS[kind]}.{name}").write_bytes(answer)
    items = [{"index": {"_index": "tasks", "_id": f"{number}", "status": 201}} for number in range(BLOCK_RECORDS)]
    (place / "bulk").write_bytes(orjson.dumps({"took": 1, "errors": False, "items": items}))


def _until_it_listens(port: int, process: subprocess.Popen[bytes], place: Path) -> None:
    until = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < until:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    log = place / "error.log"
    raise NotMeasured(f"nginx did not start: {log.read_text()[-300:] if log.exists() else ''}")


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])
