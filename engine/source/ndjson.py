r"""The NDJSON format: each line that is not blank is a record. Lines end with \n or \r\n."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from io import BytesIO
from itertools import accumulate, islice

from engine.model.record import at
from engine.model.settings import SourceSettings
from engine.source.json_text import BLANKS, parse, proven
from engine.source.splitter import BOM, CUT_RECORDS, Cut, RecordProof, SourceFile, Window


def open_splitter(_file: SourceFile, settings: SourceSettings) -> NdjsonSplitter:
    """Return the splitter of an NDJSON file: it has no header to be read."""
    return NdjsonSplitter(settings.max_record_bytes)


class NdjsonSplitter:
    """One object a line; a `Splitter`."""

    def __init__(self, max_record_bytes: int) -> None:
        self._max_record_bytes = max_record_bytes

    def cuts(self, window: Window) -> Iterator[Cut]:
        """Yield the whole lines of a window."""
        start = _text_start(window)
        offset, line = window.offset + start, window.line
        if offset == window.source.end:  # a byte order mark and nothing else
            yield Cut((), (), (), (), (), {}, offset, line)
        stream = BytesIO(window.data)  # as quick as memchr; split() looks at each byte and takes twice the time
        stream.seek(start)
        while lines := list(islice(stream, CUT_RECORDS)):
            if not window.last and not lines[-1].endswith(b"\n"):
                lines.pop()
            if lines:
                cut = self._cut(lines, offset, line, window.proof)
                offset, line = cut.end, cut.end_line
                yield cut

    def _cut(self, lines: Sequence[bytes], offset: int, line: int, proof: RecordProof | None) -> Cut:
        raws = list(map(bytes.strip, lines))
        lengths = list(map(len, raws))
        offsets = list(accumulate(map(len, lines), initial=offset))
        end = offsets.pop()
        numbers: Sequence[int] = range(line, line + len(lines))
        if end - offset > sum(lengths) + len(lines) - 1 + lines[-1].endswith(b"\n"):  # not only newlines were stripped
            raws = [text.strip(BLANKS) for text in lines]  # and JSON knows fewer blanks than Python
            lengths = list(map(len, raws))
            offsets = [start + len(text) - len(text.lstrip(BLANKS)) for start, text in zip(offsets, lines, strict=True)]
        if not all(raws):
            kept = [position for position, raw in enumerate(raws) if raw]
            raws, lengths, offsets, numbers = at(kept, raws), at(kept, lengths), at(kept, offsets), at(kept, numbers)
        most = self._max_record_bytes
        rows, flaws = (None, {}) if proven(raws, most, proof) else parse(raws, most)
        return Cut(offsets, lengths, numbers, raws, rows, flaws, end, line + len(lines))

    def skip(self, window: Window) -> LineSkip:
        """Return what finds the end of the line."""
        return LineSkip(_text_start(window))

    def raws(self, slices: Sequence[bytes]) -> Sequence[bytes]:
        """Return `slices`: they are JSON."""
        return slices


class LineSkip:
    """Finds the end of a line."""

    unclosed = ""

    def __init__(self, start: int) -> None:
        self.start = start

    def feed(self, data: bytes) -> int | None:
        """Return where the newline stands in `data`."""
        found = data.find(b"\n")
        return None if found < 0 else found


def _text_start(window: Window) -> int:
    return len(BOM) if window.first and window.data.startswith(BOM) else 0
