"""Each operation has a twin for programs without a loop, and editors and type checkers know what it takes."""

import ast
import subprocess
import sys
from inspect import iscoroutinefunction, signature
from pathlib import Path

import pytest

import engine
import engine.sync

ROOT = Path(__file__).parents[2]
OPERATIONS = {name for name in engine.__all__ if iscoroutinefunction(getattr(engine, name))}


def test_every_operation_has_a_twin_that_takes_the_same():
    assert set(dir(engine.sync)) == {*OPERATIONS, "SyncRunHandle", "start"}
    for name in OPERATIONS:
        twin = getattr(engine.sync, name)
        assert not iscoroutinefunction(twin)
        assert (twin.__name__, twin.__doc__) == (name, getattr(engine, name).__doc__)
        assert signature(twin) == signature(getattr(engine, name))


def test_every_twin_is_declared_for_type_checkers():
    tree = ast.parse((ROOT / "engine/sync.py").read_text())
    declared = {node.targets[0].id for node in ast.walk(tree) if _is_twin(node)}
    assert declared == OPERATIONS


def _is_twin(node):
    return isinstance(node, ast.Assign) and ast.unparse(node.value).startswith("_blocking(")


TYPED = """
import engine
result: engine.Result = engine.sync.submit("a.csv", config={"service": {}}, job="j")
count: int = result.tally.created
with engine.sync.start(engine.sync.resume, "j", until="finished") as run:
    resumed: engine.Result = run.result()
async def main() -> None:
    async with engine.start(engine.submit, ["a.csv"], config="sama.toml") as run:
        submitted: engine.Result = await run.result()
"""


@pytest.mark.slow
def test_mypy_knows_what_a_twin_takes_and_returns(tmp_path):
    mypy = pytest.importorskip("mypy.api", reason="mypy comes with make check")
    right, wrong = tmp_path / "right.py", tmp_path / "wrong.py"
    right.write_text(TYPED)
    wrong.write_text('import engine\nengine.sync.submit("a.csv")\nengine.sync.submit("a", config="c", job=1)\n')
    said, _, _ = mypy.run(["--strict", "--config-file=", str(right), str(wrong)])
    told = [line for line in said.splitlines() if str(tmp_path) in line]
    assert [line.partition(": error: ")[0].rpartition("/")[2] for line in told] == ["wrong.py:2", "wrong.py:3"]


def test_to_import_it_loads_no_operation():
    program = "import engine.sync, sys; print([name for name in sys.modules if name.startswith(('anyio', 'aiohttp'))])"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=True)
    assert ended.stdout == "[]\n"
