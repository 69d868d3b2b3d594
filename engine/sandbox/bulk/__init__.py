"""Six stand-ins for bulk APIs, one for each way in which a repeated call can be made safe, all served at once.

    /safe     an upsert: repeat it                              `safe.py`
    /key      an idempotency key makes a repeat harmless        `keyed.py`
    /exists   keys are unique there: repeat it                  `exists.py`
    /ask      a job says whether it was started                 `jobs.py`
    /search   a list finds the records by their mark            `search.py`
    /never    nothing to ask by                                 `never.py`

Each module's head says what its face takes and answers, as a vendor's page would. The core is `records.py`. A record
whose field `bad` says "batch" has the whole batch refused; "index": too, and the records at fault are named; "busy": it
is not done the first two times; anything else: it fails alone, with that word in its reason.
"""

from collections.abc import Callable
from itertools import chain

from engine.sandbox.behaviour import Behaviour
from engine.sandbox.bulk.exists import ExistsFace
from engine.sandbox.bulk.face import BulkFace
from engine.sandbox.bulk.jobs import AskFace
from engine.sandbox.bulk.keyed import KeyFace
from engine.sandbox.bulk.never import NeverFace
from engine.sandbox.bulk.records import FaceParts
from engine.sandbox.bulk.safe import SafeFace
from engine.sandbox.bulk.search import SearchFace
from engine.sandbox.journal import Journal
from engine.sandbox.messages import SandboxAnswer, json_answer
from engine.sandbox.traffic import CallKinds, SandboxService, Traffic

FACES: tuple[type[BulkFace], ...] = (SafeFace, KeyFace, ExistsFace, AskFace, SearchFace, NeverFace)
BULK_CALLS = CallKinds(
    frozenset({"look"}).union(*(face.calls for face in FACES)),
    outside=frozenset().union(*(face.outside for face in FACES)),
    deferrable=frozenset().union(*(face.deferrable for face in FACES)),
)


class BulkService(SandboxService):
    """Serves the six faces."""

    name = "six bulk services"

    def __init__(self, behaviour: Behaviour, journal: Journal, clock: Callable[[], float]) -> None:
        """Raise BehaviourError for what cannot be served."""
        traffic = Traffic(behaviour, calls=BULK_CALLS, error=self._error, clock=clock)
        parts = FaceParts(behaviour, journal, traffic.stats, traffic.agenda, clock)
        self._faces = [face(parts) for face in FACES]
        self._of_call = {kind: face for face in self._faces for kind in face.calls}
        super().__init__(traffic, chain.from_iterable(face.routes() for face in self._faces))

    def advance(self) -> bool:
        """Do what was put off, and create what is due of jobs."""
        self.traffic.agenda.advance()
        return max(face.advance() for face in self._faces)

    def _error(self, kind: str, status: int, message: str) -> SandboxAnswer:
        face = self._of_call.get(kind)
        return face.error(status, message) if face else json_answer({"error": {"message": message}}, status)
