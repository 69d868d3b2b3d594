"""A JSON array of objects: windows enter, one record for each element leaves.

Reading may go on before a separator, where a block ended, or at an element, where a batch ended.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from engine.source.array_window import ArrayWindow, Separator, first_element
from engine.source.scanning import ElementScan
from engine.source.splitter import Cut, Window


class JsonArraySplitter:
    """Elements of one array."""

    def __init__(self, max_record_bytes: int) -> None:
        self._max_record_bytes = max_record_bytes
        self._separator: Separator | None = None
        self._guess_key = True

    def cuts(self, window: Window) -> Iterator[Cut]:
        """Yield the whole elements of a window."""
        elements = ArrayWindow(window, self._max_record_bytes, self._separator, guess_key=self._guess_key)
        while elements.advance():
            if elements.full:
                yield elements.cut()
        if elements.pending:
            yield elements.cut()
        self._separator = None if elements.misguessed else elements.separator
        self._guess_key ^= elements.misguessed

    def skip(self, window: Window) -> ElementSkip:
        """Return what finds the end of the element."""
        return ElementSkip(first_element(window))

    def raws(self, slices: Sequence[bytes]) -> Sequence[bytes]:
        """Return `slices`: they are JSON."""
        return slices


class ElementSkip(ElementScan):
    """Finds the end of an element."""

    unclosed = " and without an end: its brackets or quotes do not balance, so it takes the rest of the file with it"

    def __init__(self, start: int) -> None:
        super().__init__()
        self.start = start
