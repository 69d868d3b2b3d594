"""Calls enter, the fault that strikes leaves, and is acted out on the connection; knows no service."""

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from random import Random

from aiohttp import web

from engine.sandbox.agenda import NEVER, put_off
from engine.sandbox.behaviour import ALL_CALLS, Fault, FaultKind

Handler = Callable[[web.Request], Awaitable[web.Response]]
StreamHandler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Sleep = Callable[[float], Awaitable[object]]
# kind of call, status, message -> the service's own form of an error
ErrorAnswer = Callable[[str, int, str], web.Response]

DEFERRING: frozenset[FaultKind] = frozenset({"act_later", "drop_late", "refuse_late", "html_late", "swallow"})
"""Kinds that put the work of a call off."""
_HTML = "<!DOCTYPE html><html><head><title>Error</title></head><body><h1>Something went wrong</h1></body></html>"


class FaultPlan:
    """Counts the calls that one fault looks at and says which of them it strikes."""

    def __init__(self, fault: Fault) -> None:
        """Start counting at the first call."""
        self.fault = fault
        self._seen = 0
        self._random = Random(fault.seed)

    def strikes(self, elapsed_seconds: float = 0.0) -> bool:
        """Count one call, so long after the start; True if the fault strikes it."""
        self._seen += 1
        timed = self.fault.from_seconds <= elapsed_seconds < self.fault.to_seconds
        drawn = self.fault.share > 0 and self._random.random() < self.fault.share
        periodic = self.fault.every > 0 and self._seen % self.fault.every == 0
        return timed or drawn or periodic or self._seen in self.fault.nth


@dataclass(frozen=True, slots=True)
class SandboxCall:
    """One request on its way to the handler that would do its work."""

    kind: str
    request: web.Request
    handler: Handler


class Faults:
    """All faults of a service; when several strike one call, the first listed acts."""

    def __init__(
        self,
        faults: Iterable[Fault],
        error: ErrorAnswer,
        clock: Callable[[], float],
        sleep: Sleep,
        deferrable: frozenset[str] = frozenset(),
    ) -> None:
        """Take the faults in the order of the file, and the service's form of an error; the start is now.

        `deferrable` are the calls whose work can be put off.
        """
        self._deferrable = deferrable
        self._plans = [FaultPlan(fault) for fault in faults]
        self._error, self._clock, self._sleep = error, clock, sleep
        self._started_at = clock()

    def next(self, kind: str) -> Fault | None:
        """Count one call of this kind and return the fault that strikes it."""
        elapsed = self._clock() - self._started_at
        struck = [plan.fault for plan in self._plans if self._concerns(plan.fault, kind) and plan.strikes(elapsed)]
        return struck[0] if struck else None

    def _concerns(self, fault: Fault, kind: str) -> bool:
        if fault.kind in DEFERRING and kind not in self._deferrable:
            return False
        return fault.call in (kind, ALL_CALLS)

    async def act_out(self, fault: Fault, call: SandboxCall) -> web.StreamResponse:
        """Answer a request the way the fault says, doing the work before it, or not at all."""
        if fault.kind in ("refuse", "drop_before", "html"):
            return self._misanswer(fault, call)
        with put_off(_delay_seconds(fault)):
            answer = await call.handler(call.request)
        if fault.kind in ("act_later", "swallow"):
            return answer
        if fault.kind == "truncate":
            return await _truncate(call.request, answer)
        if fault.kind == "hang":
            await self._sleep(fault.seconds)
            return answer
        return self._misanswer(fault, call)

    def _misanswer(self, fault: Fault, call: SandboxCall) -> web.Response:
        if fault.kind in ("drop_before", "drop_after", "drop_late"):
            return _drop(call.request)
        if fault.kind in ("html", "html_late"):
            return html_answer(fault.status)
        answer = self._error(call.kind, fault.status, "The sandbox was told to refuse.")
        return with_retry_after(answer, fault.retry_after_seconds)


def html_answer(status: int) -> web.Response:
    """Return a page such as something between client and service would send."""
    return web.Response(text=_HTML, content_type="text/html", status=status)


def with_retry_after(answer: web.Response, retry_after_seconds: int | None) -> web.Response:
    """Add a Retry-After header, where one is wanted."""
    if retry_after_seconds is not None:
        answer.headers["Retry-After"] = str(retry_after_seconds)
    return answer


def _delay_seconds(fault: Fault) -> float:
    if fault.kind == "swallow":
        return NEVER
    return fault.seconds if fault.kind in DEFERRING else 0.0


def _drop(request: web.Request) -> web.Response:
    if request.transport is not None:
        request.transport.abort()
    return web.Response()  # aiohttp finds the transport closed and sends nothing


async def _truncate(request: web.Request, answer: web.Response) -> web.StreamResponse:
    body = answer.body if isinstance(answer.body, bytes) else b""
    cut = web.StreamResponse(status=answer.status, headers={"Content-Type": answer.content_type})
    cut.content_length = max(len(body), 1)  # an empty body is cut by promising one byte
    await cut.prepare(request)
    await cut.write(body[: len(body) // 2])
    if request.transport is not None:
        request.transport.close()  # sends what is buffered, then closes
    return cut
