"""`python -m engine.testing FILE`: does a description hold? See `description`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import anyio
import orjson

from engine.batch.planning import service_at
from engine.http.certificates import load_aiohttp
from engine.model.errors import BulkSubmitError
from engine.model.record import Row
from engine.model.settings import SendSettings
from engine.services.described.promise import promise_of
from engine.testing.checks import CHECKS, Check
from engine.testing.description import DESCRIPTION_CHECKS, Description, fresh_records, made_of, read_description
from engine.testing.trial import PromiseBroken, Subject


def main(arguments: Sequence[str]) -> int:
    """Check a description; return 0 if all checks hold, 1 if one does not, 2 if it is none."""
    order = _parser().parse_args(arguments)
    if bool(order.sandbox) != bool(order.journal):
        _say("failed", "--sandbox and --journal go together: the journal tells what was created")
        return 2
    try:
        records = _read(order.source) if order.source else ()
        one = read_description(order.file, records)
        if order.sandbox:
            one = made_of({**one.keys, "base_url": order.sandbox}, records)
    except (ValueError, OSError) as error:
        _say("failed", str(error))
        return 2
    hold = [_holds(check.__name__, check, one) for check in DESCRIPTION_CHECKS]
    if order.sandbox and all(hold):
        load_aiohttp()
        fresh = fresh_records(one, records)
        for check in CHECKS:
            given = next(fresh, None)
            if given is None:
                _say("failed", f"{order.source} has too few records: {3 * len(CHECKS)} are needed")
                return 2
            hold.append(_holds(check.__name__, _tried, check, one, given, order.journal))
    promise = promise_of(one.settings)
    for said in (promise.created, promise.lost, *promise.warnings):
        _say("promise", said)
    return 0 if all(hold) else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m engine.testing", description="Check a description of a service.")
    parser.add_argument("file", type=Path, metavar="FILE", help="TOML with [service], kind http or one that is shipped")
    parser.add_argument("--source", type=Path, help="records that it can send, NDJSON; made up where left out")
    parser.add_argument("--sandbox", metavar="URL", help="base_url of a stand-in, on which records may be created")
    parser.add_argument("--journal", type=Path, help="the file in which `bulksubmit sandbox --journal` notes them")
    return parser


def _read(file: Path) -> Sequence[Row]:
    return [orjson.loads(line) for line in file.read_bytes().splitlines() if line.strip()]


def _holds(name: str, check: Callable[..., object], *arguments: object) -> bool:
    words = name.replace("_", " ")
    try:
        check(*arguments)
    except (PromiseBroken, BulkSubmitError, ValueError, LookupError) as error:
        _say("failed", f"{words}: {error}")
        return False
    _say("ok", words)
    return True


def _tried(check: Check, one: Description, records: Sequence[Row], journal: Path) -> None:
    """Make a check of any service before a server that keeps a journal."""

    async def go() -> None:
        from engine.http.caller import open_caller  # noqa: PLC0415 - aiohttp, which is loaded by now

        def there() -> int:
            lines = journal.read_bytes().splitlines() if journal.exists() else ()
            return sum(orjson.loads(line)["kind"] == "task" for line in lines)

        before, module = there(), service_at("engine.services.described.service")
        async with open_caller(one.settings, SendSettings()) as caller:
            await check(Subject(module, one.keys, caller, records, {}, lambda: there() - before))

    anyio.run(go)


def _say(verdict: str, words: str) -> None:
    sys.stdout.write(f"{verdict:8} {words}\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
