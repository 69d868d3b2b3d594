"""Sources enter, frozen batch boundaries leave, a window at a time: reader → mapper → chunker in one iterator."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass

from engine.batch.chunker import Chunker, ReferenceOf, no_reference
from engine.batch.mapping import Mapper
from engine.model.batch import Batch, Limits
from engine.model.record import Position, Reject, Source
from engine.model.settings import SourceSettings
from engine.source.reader import WINDOW_BYTES, read_blocks

_QUIET_BLOCKS = 32
"""Blocks, or 4 MiB, without a batch before a step ends all the same: each step costs a change of threads."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What one step of planning brought; often no batch."""

    batches: Sequence[Batch]
    rejects: Sequence[Reject]
    """Those within the boundaries of `batches`."""
    reached: Position
    """How far reading came; the batches may end before."""
    last: bool
    """The sources end here."""


def plan_batches(  # noqa: PLR0913 - everything that boundaries depend on
    sources: Sequence[Source],
    settings: SourceSettings,
    mapper: Mapper,
    limits: Limits,
    *,
    start: Position | None = None,
    sequence: int = 0,
    reference: ReferenceOf = no_reference,
    stop: int | None = None,
    window_bytes: int = WINDOW_BYTES,
) -> Iterator[Plan]:
    """Yield batches from `start` up to `stop`, numbered from `sequence` on; the last step, and only that, says so.

    To go on after a batch, pass its `end` and its sequence + 1. It blocks for some milliseconds a step, so iterate it
    in a worker thread.

    Raises:
        SourceError: a source cannot be read, or changed while it was.
    """
    reached = start or Position()
    chunker = Chunker(limits, reached, sequence, reference)
    quiet = 0
    for block in read_blocks(sources, reached, settings, window_bytes, stop=stop):
        chunk = chunker.feed(mapper.apply(block))
        reached = block.end
        quiet = 0 if chunk.batches else (quiet + 1) % _QUIET_BLOCKS
        if not quiet:
            yield Plan(chunk.batches, chunk.rejects, reached, last=False)
    chunk = chunker.finish(reached)
    yield Plan(chunk.batches, chunk.rejects, reached, last=True)


def replanned(
    plans: Callable[[Batch | None, int], Generator[Plan, None, None]], last: Batch | None, most_bytes: Callable[[], int]
) -> Iterator[Plan]:
    """Yield plans from the end of the batch `last` on, of batches with no more bytes than `most_bytes` says just then.

    Whenever it says something else, planning begins anew behind the batch yielded last, as it does when a job is
    resumed: what was read beyond is read again. `plans` takes the last batch and the bytes.
    """
    while True:
        limit = most_bytes()
        with closing(plans(last, limit)) as steps:
            for step in steps:
                yield step
                last = step.batches[-1] if step.batches else last
                if most_bytes() != limit and not step.last:
                    break
            else:
                return
