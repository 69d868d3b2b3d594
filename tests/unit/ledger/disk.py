"""A file system that fails at a chosen write, for ledgers opened with `vfs=disk.name`."""

from contextlib import contextmanager

import apsw


class Disk(apsw.VFS):
    """Counts writes, syncs and truncations; from number `fail_at` on, or only there, it raises `error`."""

    name = "failing"

    def __init__(self, fail_at=None, error=apsw.FullError, *, once=False):
        self.fail_at = fail_at
        self.error = error
        self.once = once
        self.writes = 0
        self.fail_reads = False
        super().__init__(self.name, "")

    def xOpen(self, name, flags):  # noqa: N802 - apsw looks for these names
        return _File(self, name, flags)

    def write(self):
        self.writes += 1
        if self.fail_at and (self.writes == self.fail_at or (self.writes > self.fail_at and not self.once)):
            raise self.error("injected")

    def read(self):
        if self.fail_reads:
            raise self.error("injected")


class _File(apsw.VFSFile):
    def __init__(self, disk, name, flags):
        self._disk = disk
        super().__init__("", name, flags)

    def xWrite(self, data, offset):  # noqa: N802 - apsw's name
        self._disk.write()
        super().xWrite(data, offset)

    def xSync(self, flags):  # noqa: N802 - apsw's name
        self._disk.write()
        super().xSync(flags)

    def xTruncate(self, size):  # noqa: N802 - apsw's name
        self._disk.write()
        super().xTruncate(size)

    def xRead(self, amount, offset):  # noqa: N802 - apsw's name
        self._disk.read()
        return super().xRead(amount, offset)


@contextmanager
def failing_disk(fail_at=None, error=apsw.FullError, *, once=False):
    disk = Disk(fail_at, error, once=once)
    try:
        yield disk
    finally:
        disk.unregister()
