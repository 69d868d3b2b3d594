"""The format `lines`, in a package of its own: each line of a file is the title of an item."""

from io import BytesIO
from itertools import accumulate

import orjson

from engine.source.ndjson import LineSkip
from engine.source.splitter import Cut

EXTENSIONS = (".lines",)


class LinesSplitter:
    def cuts(self, window):
        lines = BytesIO(window.data).readlines()
        if lines and not window.last and not lines[-1].endswith(b"\n"):
            lines.pop()
        if lines:
            texts = [line.rstrip(b"\r\n") for line in lines]
            *offsets, end = accumulate(map(len, lines), initial=window.offset)
            raws, end_line = self.raws(texts), window.line + len(lines)
            rows = list(map(orjson.loads, raws))
            yield Cut(offsets, list(map(len, texts)), range(window.line, end_line), raws, rows, {}, end, end_line)

    def skip(self, window):
        return LineSkip(0)

    def raws(self, slices):
        return [orjson.dumps({"title": text.decode(errors="replace")}) for text in slices]


def open_splitter(file, settings):
    return LinesSplitter()
