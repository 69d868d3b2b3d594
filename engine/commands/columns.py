"""Are the columns there that `[mapping]` and `delta.key` name? `submit` and `validate` ask before a job is made.

A column that is misspelt would be passed over in silence: what it should rename, drop or pick goes up unchanged. A
header tells at once. Records without one may lack a column now and then, so it is missed only if none of many has it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from difflib import get_close_matches
from itertools import chain

import anyio.to_thread

from engine.batch.mapping import named_columns
from engine.model.errors import ConfigError
from engine.model.record import Block, Position, Source
from engine.model.settings import Settings, SourceSettings
from engine.progress.text import count
from engine.run.context import Stop
from engine.source.reader import read_blocks
from engine.source.sources import header_of

MOST_RECORDS = 1000
"""Records that are looked at before a warning."""
_MOST_BYTES = 32 << 20
"""Likewise, where each of them is long."""
_SHOWN_COLUMNS = 20


async def check_columns(
    sources: Sequence[Source], settings: Settings, source: SourceSettings, *, thorough: bool, stop: Stop | None = None
) -> str:
    """Return what to warn of; "" if nothing is missed.

    `thorough`: records are read until one has the column, to the end if need be, and what none has is an error.

    Raises:
        ConfigError: a header lacks a column, or `thorough` and no record has it; names the key and what it may mean.
    """
    named = named_columns(settings.mapping)
    if settings.delta.key is not None:
        named = {**named, settings.delta.key: "delta.key"}
    if not named:
        return ""
    headers = await anyio.to_thread.run_sync(lambda: [(one, header_of(one, source)) for one in sources])
    for one, columns in headers:
        for column in named if columns else ():
            if column not in (columns or ()):
                raise ConfigError(_missed(column, named[column], f"the header of {one.path} lacks", columns or ()))
    blocks = _blocks([one for one, columns in headers if columns is None], source)
    met, records = await _met(blocks, frozenset(named), thorough=thorough, stop=stop)
    unmet = [column for column in named if column not in met] if records else []
    which = f"none of the {'' if thorough else 'first '}{count(records, 'record')} has"
    words = "; ".join(_missed(column, named[column], which, met) for column in unmet)
    if words and thorough:
        raise ConfigError(words)
    return words


def _blocks(sources: Sequence[Source], settings: SourceSettings) -> Iterator[Block]:
    return chain.from_iterable(read_blocks([one], Position(one.base), settings) for one in sources)


async def _met(
    blocks: Iterator[Block], named: Collection[str], *, thorough: bool, stop: Stop | None
) -> tuple[set[str], int]:
    """Read until all columns are met, or enough is read; return the columns of the records, and how many those were."""
    met: set[str] = set()
    records = size_bytes = 0
    while not met.issuperset(named) and (thorough or (records < MOST_RECORDS and size_bytes < _MOST_BYTES)):
        block = await anyio.to_thread.run_sync(next, blocks, None)
        if block is None or (stop is not None and stop.error is not None):
            break
        rows = (block.rows or ())[: None if thorough else MOST_RECORDS - records]
        met.update(*rows)
        records, size_bytes = records + len(rows), size_bytes + sum(block.lengths)
    return met, records


def _missed(column: str, key: str, where: str, known: Collection[str]) -> str:
    near = get_close_matches(column, known, 1)
    shown = sorted(known)[:_SHOWN_COLUMNS]
    more = f" and {len(known) - len(shown)} more" if len(known) > len(shown) else ""
    hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(map(repr, shown))}{more}"
    return f"{key} names column {column!r}, which {where}; {hint}"
