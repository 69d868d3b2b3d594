"""Run the measurements: `python -m benchmarks [--quick]`. Figures go to standard output."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from benchmarks import memory


def main() -> None:
    """Measure what there is to measure; `--quick` with a tenth of the bytes."""
    options = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    options.add_argument("--quick", action="store_true", help="a tenth of the bytes")
    large = (100 if options.parse_args().quick else 1000) * memory.MEGABYTE
    with tempfile.TemporaryDirectory(prefix="bulksubmit-bench-") as folder:
        print("Peak memory of submit")
        print(memory.table(memory.measure(Path(folder), (large // 10, large))))


if __name__ == "__main__":
    main()
