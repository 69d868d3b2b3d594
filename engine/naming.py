"""A service in, the same service out, but no batch gets a name there that another batch of its job has.

Everything that is asked about a batch is asked by its name: a second batch of that name would be given the fates of the
first. So an answer with a name that is taken counts as none, and the batch is staged again, or searched for. It is for
services where a lost beginning is empty; where it is searched for by a mark of ours, what is found is known to be ours.
"""

from __future__ import annotations

from typing import Any

import anyio

from engine.model.batches import Batch, batch_name
from engine.model.errors import UnexpectedAnswer
from engine.ports import Intent, Ledger, Released, Service, Staged, no_intent

_EARLIER = -1


class NamedOnce:
    """Wraps a `Service`; all that is not staging or releasing is the service's own."""

    def __init__(self, service: Service, ledger: Ledger, job: str) -> None:
        """Take the ledger that knows the names of the job."""
        self._service = service
        self._ledger = ledger
        self._job = job
        self._given: dict[int, int] = {}
        """Hash of a name → sequence of the batch that got it in this run, or `_EARLIER`: 100 bytes a batch."""
        self._looked = anyio.Lock()
        self._is_known = False

    def __getattr__(self, name: str) -> Any:
        """Return what the service has."""
        return getattr(self._service, name)

    async def stage(self, batch: Batch, payload: bytes, *, known: str | None = None) -> Staged:
        """Stage a batch.

        Raises:
            UnexpectedAnswer: the service gives it the name of another one; what was staged is empty, or not this one's.
        """
        staged = await self._service.stage(batch, payload, known=known)
        if staged.remote_id != known:
            await self._check(batch, staged.remote_id, "create")
        return staged

    async def release(
        self, batch: Batch, remote_id: str | None, payload: bytes | None, intent: Intent = no_intent
    ) -> Released:
        """Release a batch.

        Raises:
            UnexpectedAnswer: the service gives one that had no name that of another one.
        """
        released = await self._service.release(batch, remote_id, payload, intent)
        if remote_id is None:
            await self._check(batch, released.remote_id, "post")
        return released

    async def _check(self, batch: Batch, remote_id: str, call: str) -> None:
        await self._look_up()
        if self._given.setdefault(hash(remote_id), batch.sequence) != batch.sequence:
            name = batch_name(batch.sequence)
            raise UnexpectedAnswer(
                f"{call}: the service gives batch {name} the name {remote_id}, which another batch has", call=call
            )

    async def _look_up(self) -> None:
        """Read once what earlier runs have named."""
        async with self._looked:
            if not self._is_known:
                self._given.update({hash(name): _EARLIER for name in await self._ledger.names_of(self._job)})
                self._is_known = True
