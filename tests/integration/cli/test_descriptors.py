"""A process that may open few files says so before anything else; one whose shell grants it few takes more."""

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(("soft", "hard", "code"), [(12, 12, 2), (63, 63, 2), (12, 64, 0), (64, 64, 0)])
def test_too_few_descriptors_are_an_error_before_anything_is_sent(tmp_path, soft, hard, code):
    (tmp_path / "c.toml").write_text(
        '[service]\nkind = "sama"\nbase_url = "http://127.0.0.1:9/v2"\nproject_id = 1\naccess_key = "${env:KEY}"\n'
    )
    (tmp_path / "t.ndjson").write_text('{"data": {}}\n')
    done = subprocess.run(
        [sys.executable, "-m", "engine", "validate", "t.ndjson", "--config", "c.toml"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "KEY": "secret"},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard)),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == code, done.stderr
    assert ("allow more (ulimit -n 64)" in done.stderr) == (code == 2)
    assert "Traceback" not in done.stderr
