"""What the stand-ins for vendors share: who may call, how time moves them on, and a server for each."""

import contextlib
import re
import time
from abc import abstractmethod
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from functools import partial

from msgspec import Struct

from engine.sandbox.behaviour import Behaviour, RateLimit
from engine.sandbox.journal import EntryKind, Journal
from engine.sandbox.messages import Handler, Route, SandboxAnswer, SandboxRefusal, SandboxRequest, WrongInput
from engine.sandbox.server import serving
from engine.sandbox.traffic import CallKinds, RateWindow, SandboxService, Traffic

RouteRow = tuple[str, str, str, Handler]
"""Method, path, kind of call, handler."""


class VendorService(SandboxService):
    """One vendor's API. A subclass has `error`, `refused`, and handlers; it may have `catch_up`."""

    def __init__(
        self,
        behaviour: Behaviour,
        journal: Journal,
        clock: Callable[[], float],
        calls: CallKinds,
        rows: Iterable[RouteRow],
        own_limits: Sequence[RateLimit] = (),
    ) -> None:
        """`own_limits` are the vendor's; they hold for calls of which the behaviour says nothing."""
        traffic = Traffic(behaviour, calls=calls, error=self.error, clock=clock, own_limits=own_limits)
        super().__init__(
            traffic, [Route(method, path, kind, partial(self._handle, handler)) for method, path, kind, handler in rows]
        )
        self.behaviour, self.clock = behaviour, clock
        self._journal, self._numbers = journal, 0

    @abstractmethod
    def error(self, kind: str, status: int, message: str) -> SandboxAnswer:
        """Word an error as the vendor does."""

    @abstractmethod
    def refused(self, request: SandboxRequest) -> SandboxAnswer | None:
        """Return what an unknown caller is told; None for one that is known."""

    def catch_up(self) -> None:
        """Do what has become due."""

    def advance(self) -> bool:
        """Do what was put off, and what is due by the clock."""
        self.traffic.agenda.advance()
        self.catch_up()
        return False

    def number(self) -> int:
        """Return the next of a count that all ids of this server share."""
        self._numbers += 1
        return self._numbers

    def write(self, task: object, batch_id: str, task_id: str, position: int, kind: EntryKind = "task") -> None:
        """Write into the journal that a record was created ("task"), or that it was only written over ("run")."""
        if kind == "task":
            self.traffic.stats.tasks_created += 1
        entry = self._journal.entry(
            task, at=self.clock(), batch_id=batch_id, task_id=task_id, position=position, kind=kind
        )
        self._journal.append([entry])

    def failure(self, task: object) -> tuple[str, str] | None:
        """Return the kind and the words of the error that the behaviour has for a record; None if it has none."""
        found = next((rule for rule in self.behaviour.failures if rule.hits(task)), None)
        return None if found is None else (found.type, found.message)

    @property
    def window(self) -> RateWindow | None:
        """The first limit of requests, about which headers tell."""
        return self.traffic.limits.windows[0] if self.traffic.limits.windows else None

    def _handle(self, handler: Handler, request: SandboxRequest) -> SandboxAnswer:
        self.catch_up()
        if (answer := self.refused(request)) is not None:
            return answer
        if request.body is None:
            return self.error("", 413, f"A body may have {self.behaviour.max_body_bytes} bytes at most.")
        try:
            return handler(request)
        except WrongInput as wrong:
            return self.error("", 400, str(wrong))


def bearer(request: SandboxRequest) -> str:
    """Return the bearer token that a request carries, "" if it carries none."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def refuse(answer: SandboxAnswer) -> SandboxRefusal:
    """Make of an answer an error to raise in a handler."""
    return SandboxRefusal(answer)


MakeVendor = Callable[[Behaviour, Journal, Callable[[], float]], VendorService]


@contextlib.asynccontextmanager
async def serving_vendor(
    make: MakeVendor, behaviour: Behaviour | None = None, clock: Callable[[], float] = time.time
) -> AsyncIterator[tuple[str, VendorService]]:
    """Serve a vendor's stand-in on a free port of loopback until the block ends; give its address and itself."""
    behaviour = behaviour or Behaviour()
    with contextlib.closing(Journal(behaviour.journal)) as journal:
        service = make(behaviour, journal, clock)
        async with serving(service, behaviour) as address:
            yield address, service


class FormPart(Struct, frozen=True):
    """A part of a form; `file` is the name of the file that it is said to be, "" of a plain field."""

    content: bytes
    file: str = ""


_NAMED = re.compile(rb'[; ]name="([^"]*)"(?:; *filename="([^"]*)")?')


def parts_of(request: SandboxRequest) -> Mapping[str, FormPart]:
    """Return the parts of a multipart/form-data body, by name. Raise WrongInput."""
    kind, _, boundary = request.headers.get("Content-Type", "").partition("boundary=")
    if not kind.lower().startswith("multipart/form-data") or not boundary:
        raise WrongInput("the body must be multipart/form-data")
    parts = {}
    for piece in b"\r\n".join((b"", request.body or b"")).split(b"\r\n--" + boundary.strip().strip('"').encode())[1:-1]:
        head, separator, content = piece.removeprefix(b"\r\n").partition(b"\r\n\r\n")
        named = _NAMED.search(head)
        if not separator or named is None:
            raise WrongInput("a part of the body has no name")
        parts[named[1].decode()] = FormPart(content, (named[2] or b"").decode())
    return parts
