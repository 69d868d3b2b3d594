"""Every error of the engine, in one tree: what happened, where, and what to do about it.

The docstring of a class is its default message. Errors of other libraries are mapped to these where they enter:
HTTP in `http`, SQLite in `ledger`, files in `source`, the configuration in `commands.configuration`.

A call that does not succeed ends in one of these ways:

    refused        `Refused`           the service did nothing, and would refuse it again; `Blame` says what follows
    unauthorized   `Unauthorized`      it did nothing, for the credentials do not hold: the run stops, exit code 9
    job refused    `JobRefused`        nothing was done, and no record is at fault: the run stops, exit code 9
    unavailable    `Unavailable`       the service cannot be reached, or keeps pushing back: the run stops, exit code 5
    wrong address  `WrongAddress`      what answers is not the service: the run stops, exit code 9
    lost           `PossiblyApplied`   no answer came, and it may have been done: the service is asked
    unexpected     `UnexpectedAnswer`  the answer makes no sense, and it may have been done: the service is asked

*Pushed back* is a 429: the call is made again later. It is no refusal, and `Unavailable` only if it lasts for too long.
*By a proxy*: a firewall or a load balancer answered, and not whoever was called. That says nothing of a record, which
is a *suspect* at most. *Declined* (`model.doubt`) is a batch whose newest call was refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from enum import IntEnum
from typing import Any

from engine.model.error_hints import Blame

RESUME = "`bulksubmit resume`"
"""How messages name the command that goes on; `commands.paths` writes it out, with the job and the ledger."""


class Exit(IntEnum):
    """Exit codes of the command line; part of the contract with whoever schedules it."""

    ALL_CREATED = 0
    """All created, or nothing was new.

    Is done."""
    ERROR = 1
    """Anything else.

    Tells a person."""
    USAGE = 2
    """Usage or configuration, or a job has taken these records already. Nothing was sent.

    Does not try again: tell a person."""
    SOME_FAILED = 3
    """Finished; some records failed or were rejected: see `rejects.ndjson`, or `rejects.csv`. `undo`: some tasks were
    begun, and stay.

    Does not try again: `retry` wants mended records."""
    SOME_UNCERTAIN = 4
    """Finished; some records are uncertain: what became of them cannot be found out. `audit`: nothing is wrong, but a
    source is gone or another file, so that not all can be proven.

    Does not try again: tell a person."""
    STOPPED_EARLY = 5
    """Stopped early, go on later (service down, request budget, deadline, closed window, `--max-records`). No record is
    lost.

    Tries again later, by the same `nightly`, or by `resume`."""
    LOCKED = 6
    """Another process holds the job, its family or its nights, or works on the same records.

    Tries again later, or lets it be."""
    LIMIT = 7
    """A limit is met that a person has set (`--max-failed`), or that guards a family against a load that is all new.
    What was under way is settled.

    Does not try again: a person looks, and goes on with another limit."""
    NOTHING = 8
    """With `--fail-if-empty`: the command has sent no record, for there was none, or none that is new.

    Does not try again: ask whoever writes the file."""
    MEND_FIRST = 9
    """Stopped; a person must mend something (key, project, configuration, source, disk, address), then `resume`. No
    record is lost. `check`: something failed.

    Tells a person."""
    TASKS_FAILED = 10
    """All created, and some of the tasks failed later.

    Does not try again: tell a person."""


class BulkSubmitError(Exception):
    """Something went wrong."""

    exit_code = Exit.ERROR
    heard = False
    """The hooks of the configuration have heard of it."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or " ".join((type(self).__doc__ or "").split()))

    def __reduce__(self) -> tuple[Any, ...]:
        """Make the same error again in another process, whatever its class is made of."""
        return _again, (type(self), self.args, vars(self))

    @property
    def exit_status(self) -> int:
        """What the process tells its parent."""
        return self.exit_code


def _again(kind: type[BulkSubmitError], args: Sequence[Any], attributes: Mapping[str, Any]) -> BulkSubmitError:
    error = kind.__new__(kind, *args)
    vars(error).update(attributes)
    return error


class ConfigError(BulkSubmitError):
    """The configuration cannot be used. Mend the named key and run the command again."""

    exit_code = Exit.USAGE


class SourceError(BulkSubmitError):
    """A source cannot be read. Check the path and its permissions."""

    exit_code = Exit.USAGE


class SourceUnreachable(SourceError):
    """A source that is elsewhere cannot be fetched just now. Run the command again later."""

    exit_code = Exit.STOPPED_EARLY


class SourceChanged(SourceError):
    """A source is not what it was when it was frozen, or cannot be read. Put it back, then run `bulksubmit resume`."""

    PUT_BACK = (
        f"Put the old file back and run {RESUME}. The new one may hold records that are tasks already: submit only "
        "those of it that outcomes.ndjson does not call created, as a new job."
    )
    """What to do about a file that is another one."""


class Overwritten(SourceChanged):
    """A source was written anew. What was released of the job is followed, and then the job is closed."""

    exit_code = Exit.STOPPED_EARLY


class ReaderLost(BulkSubmitError):
    """The process that reads the sources ended before its work. Nothing is lost: `bulksubmit resume` goes on."""

    exit_code = Exit.STOPPED_EARLY


class JobError(BulkSubmitError):
    """The job cannot be used this way. `bulksubmit status` lists the jobs and their states."""

    exit_code = Exit.USAGE


class NoLedger(JobError):
    """There is no ledger yet. `bulksubmit submit` makes one."""


class AlreadyTaken(JobError):
    """A job has taken these records already. `--again` creates every task a second time."""


class OtherJobs(JobError):
    """There is a job that whoever makes one does not know of. Look at it, then make yours."""


class JobCanceled(JobError):
    """The job was canceled. `bulksubmit resume` goes on with it, after asking."""


class JobLocked(BulkSubmitError):
    """Another process is working on this job. Wait until it ends, or stop it first."""

    exit_code = Exit.LOCKED


class AnswerNotKept(BulkSubmitError):
    """The file that an answer is written to cannot be written. Make room on the disk, then run `bulksubmit resume`."""

    exit_code = Exit.MEND_FIRST


class LedgerError(BulkSubmitError):
    """The ledger cannot be written or read. Check the disk; `bulksubmit resume` goes on where the job stopped."""

    exit_code = Exit.MEND_FIRST


class LedgerAway(LedgerError):
    """The database cannot be reached just now. Nothing is lost; `bulksubmit resume` goes on when it is there again."""

    exit_code = Exit.STOPPED_EARLY


class NameTaken(LedgerError):
    """The service gave a batch a name that another batch of the job has. `bulksubmit resume` asks what became of it."""


class LeaseLost(LedgerError):
    """Another worker has what this one was sending. Nothing is lost: that one goes on; `bulksubmit status` names it."""

    exit_code = Exit.LOCKED

    @classmethod
    def of(cls, job: str, first: int) -> LeaseLost:
        """Return the error about the shard of a job that begins with a batch."""
        return cls(
            f"job {job!r}: the lease of the shard from batch {first} on has ended, and another worker may have it. "
            "Nothing more of it is sent here"
        )


class ShardsParked(BulkSubmitError):
    """Workers were lost with some batches, one after the other. See why; `bulksubmit resume JOB --parked` goes on."""

    exit_code = Exit.MEND_FIRST


class DamagedRow(LedgerError, ValueError):
    """A row of the ledger holds what no bulksubmit writes. Put a backup back; `bulksubmit audit` says what is wrong."""


class StrictRejects(BulkSubmitError):
    """A record is not fit to be sent, and `--strict` allows none. Nothing was sent."""

    exit_code = Exit.SOME_FAILED


class TooManyNew(BulkSubmitError):
    """More records are new to the family than a changed load explains. Nothing was sent; see --accept-new."""

    exit_code = Exit.LIMIT


class StillWaiting(BulkSubmitError):
    """Nothing moves, and the service does not begin with what it has accepted. `bulksubmit resume` follows it on."""

    exit_code = Exit.STOPPED_EARLY


class Interrupted(BulkSubmitError):
    """The run was interrupted; what was under way has finished. `bulksubmit resume` goes on."""

    def __init__(self, signal_number: int) -> None:
        super().__init__()
        self.signal_number = signal_number

    @property
    def exit_status(self) -> int:
        """The shell's way to say which signal."""
        return 128 + self.signal_number


class Stopped(BulkSubmitError):
    """The program has ended the run; what was under way has finished. `bulksubmit resume` goes on."""

    exit_code = Exit.STOPPED_EARLY


class DeadlineReached(BulkSubmitError):
    """The run took longer than send.deadline_seconds. `bulksubmit resume` goes on."""

    exit_code = Exit.STOPPED_EARLY


class WindowClosed(BulkSubmitError):
    """The window in which work may be done is closed. `bulksubmit resume` goes on once it is open."""

    exit_code = Exit.STOPPED_EARLY


class RecordsSent(BulkSubmitError):
    """As many records were sent as one run may send. `bulksubmit resume` sends the next ones."""

    exit_code = Exit.STOPPED_EARLY


class SendingEnded(BulkSubmitError):
    """The process that plans a job has met a limit, so its workers send nothing more of it. Says which."""

    exit_code = Exit.STOPPED_EARLY


class TooManyFailed(BulkSubmitError):
    """More records failed than may. Look at rejects.ndjson; `bulksubmit resume --max-failed LIMIT` goes on."""

    exit_code = Exit.LIMIT


class CallFailed(BulkSubmitError):
    """A call to the service did not succeed."""

    exit_code = Exit.STOPPED_EARLY

    def __init__(self, message: str | None = None, *, call: str = "", status: int | None = None) -> None:
        super().__init__(message)
        self.call = call
        self.status = status
        self.code = ""
        """The service's own code for what went wrong, as text."""
        self.timed_out = False
        """It may have got there, but not in time: something smaller might."""
        self.reset = False
        """The connection broke under it: something smaller, or with another content, might get through."""
        self.by_proxy = False
        """It was answered by something that does not word its errors as whoever was called: a proxy, a firewall."""
        self.earlier_lost = False
        """An attempt of the same call had no answer, and may have been applied."""


class NotApplied(CallFailed):
    """Nothing was done; or something may have been, and a repeat of the call is harmless (`Call.repeatable`)."""


class Refused(NotApplied):
    """The service understood the call and refused it; the same call would be refused again."""

    def __init__(
        self,
        message: str | None = None,
        *,
        call: str = "",
        status: int | None = None,
        blame: Blame = Blame.RECORDS,
        too_large: bool = False,
        released_before: bool = False,
    ) -> None:
        super().__init__(message, call=call, status=status)
        self.blame = blame
        """Whose fault it is; of a call that went out, the table of `http.classify` says so."""
        self.too_large = too_large
        """It was refused for its size."""
        self.released_before = released_before
        """It was refused because the batch is not waiting any more: the evidence that an earlier release arrived."""
        self.batch_not_found = False
        """A release was refused because there is no such batch: it is gone, or not there yet."""
        self.exists = False
        """It was refused because what it would have made is there already."""
        self.task_id = ""
        """The service's id of that; "" where it is not said."""
        self.flaws: Mapping[int, str] = {}
        """Position in what the call carried → why it is at fault; {}: the service does not say which."""


class Unauthorized(NotApplied):
    """The service does not accept the credentials. Renew them, then run `bulksubmit resume`."""

    exit_code = Exit.MEND_FIRST


class JobRefused(NotApplied):
    """The job was refused as it is configured; no record is at fault. Mend what is named, then `bulksubmit resume`."""

    exit_code = Exit.MEND_FIRST


class Unavailable(NotApplied):
    """The service could not be reached, or pushed back, for longer than allowed. Run `bulksubmit resume` later."""


class WrongAddress(Unavailable):
    """What answers is not the service, or may not be called. Mend the address, then run `bulksubmit resume`."""

    exit_code = Exit.MEND_FIRST


class PossiblyApplied(CallFailed):
    """The answer was lost: the service may or may not have done what the call asked for."""


class UnexpectedAnswer(PossiblyApplied):
    """The service answered something that cannot be understood."""


def cause_of(error: BaseException) -> BaseException:
    """Return what to tell of an error: task groups wrap what they meet, and an error of ours says what to do."""
    found = list(_leaves(error))
    return next((leaf for leaf in found if isinstance(leaf, BulkSubmitError)), found[0])


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error
