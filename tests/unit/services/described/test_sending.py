"""One release of several calls: what earlier calls and lost answers have shown of a record is never forgotten."""

import pytest

from engine.model.error_hints import Blame
from engine.model.errors import Refused

from .served import Described

UNIQUE = """
[record]
key = "${task.n}"
[body]
under = "rows"
[release]
call = "POST /rows"
payload = true
again = "exists"
[results]
items = "rows"
match = "order"
exists = { code = "taken" }
busy = { code = "busy" }
[[rules]]
status = [409]
path = "taken"
means = "exists"
at = "taken"
[[rules]]
status = [409]
means = "exists"
[[rules]]
status = [422]
means = "refused"
[[rules]]
status = [400]
means = "whole"
"""


class Table:
    """Rows with unique names: all of a call are made, or none. Of those that are there it names the first."""

    def __init__(self, *, names=True):
        self.rows, self.calls, self.names = {}, 0, names

    def __call__(self, seen):
        self.calls += 1
        sent = [row["n"] for row in seen.json["rows"]]
        taken = [at for at, name in enumerate(sent) if name in self.rows]
        if taken:
            return 409, {"taken": {str(taken[0]): "taken"}} if self.names else {"message": "taken"}
        if "bad" in sent:
            return 422, {"message": "bad row"}
        self.rows.update(dict.fromkeys(sent, 1))
        return 200, {"rows": [{"id": f"t-{name}"} for name in sent]}


def rows(*names):
    return [{"n": name} for name in names]


class TestWhatIsThereAlready:
    async def test_a_batch_of_which_one_record_is_there_already_and_nobody_says_which_goes_in_halves(self):
        described = Described(UNIQUE, server := Table(names=False))
        server.rows = {"a": 1, "b": 1}
        with pytest.raises(Refused) as refused:
            await described.released(rows("a", "b"), sent_before=True)
        assert refused.value.blame is Blame.PAYLOAD, "else both fail, and both exist"

    async def test_one_that_has_no_key_is_not_called_failed_where_it_may_be_ours(self):
        description = UNIQUE.replace('[record]\nkey = "${task.n}"', "")
        described = Described(description, server := Table())
        server.rows = {"a": 1}
        found = await described.settled(rows("a", "b"), sent_before=True)
        assert (found.task_ids, found.errors, list(found.uncertain)) == ([None, "t-b"], {}, [0])

    async def test_that_an_answer_was_lost_is_not_forgotten_over_twenty_refusals(self):
        described = Described(UNIQUE, Table())
        described.wire.loses = [True]
        with pytest.raises(Refused) as refused:
            await described.released(rows(*(f"n{at}" for at in range(30))))
        assert (refused.value.blame, refused.value.earlier_lost) == (Blame.PAYLOAD, True)

    async def test_what_is_ours_stays_so_when_the_others_are_refused(self):
        described = Described(UNIQUE, server := Table())
        server.rows = {"a": 1}
        found = await described.settled(rows("a", "bad"), sent_before=True)
        assert (found.task_ids, list(found.errors)) == (["", None], [1])

    async def test_of_a_single_record_it_is_ours_or_fails(self):
        server = Table(names=False)
        server.rows = {"a": 1}
        assert (await Described(UNIQUE, server).settled(rows("a"), sent_before=True)).task_ids == [""]
        assert list((await Described(UNIQUE, server).settled(rows("a"))).errors) == [0]

    async def test_a_refusal_may_name_its_task(self):
        server = Table(names=False)
        server.rows = {"a": 1}
        described = Described(UNIQUE, server)
        assert (await described.settled(rows("a"), sent_before=True)).task_ids == [""]
        described = Described(UNIQUE.replace('means = "exists"\n[[', 'means = "exists"\nid = ["message"]\n[['), server)
        found = await described.settled(rows("a"), sent_before=True)
        assert found.task_ids == ["taken"]
        assert list((await described.settled(rows("a"))).errors) == [0]

    @pytest.mark.parametrize("ids", ["id = []", 'id = ["n"]\nkey = "n"'])
    async def test_where_its_key_is_its_id_none_needs_to_be_named(self, ids):
        server = Table(names=False)
        server.rows = {"a": 1}
        described = Described(UNIQUE.replace('match = "order"', f'match = "order"\n{ids}'), server)
        found = await described.settled(rows("a"), sent_before=True)
        assert found.task_ids == ["a"]

    async def test_two_with_one_key_that_are_there_already_one_after_the_other_are_not_both_ours(self):
        server = Table()
        server.rows = {"a": 1}
        found = await Described(UNIQUE, server).settled(rows("a", "b", "a"), sent_before=True)
        assert (found.task_ids, sorted(found.uncertain)) == ([None, "t-b", None], [0, 2])


class Bulk:
    """A fate for each row. `busy`: names of rows that it is too busy for once there is one of a call before."""

    def __init__(self, *busy, later=None):
        self.rows, self.calls, self.busy, self.later = set(), 0, busy, later

    def __call__(self, seen):
        self.calls += 1
        sent = [row["n"] for row in seen.json["rows"]]
        if self.later is not None and self.calls > 1:
            return self.later(seen, self)
        return 200, {"rows": [self.made(name) for name in sent]}

    def made(self, name):
        if name in self.busy and self.calls > 1:
            return {"code": "busy", "error": "busy"}
        if name in self.rows:
            return {"code": "taken", "error": "taken"}
        self.rows.add(name)
        return {"id": f"t-{name}"}


class TestBusyRecords:
    async def test_one_that_stays_busy_is_uncertain_where_an_earlier_attempt_may_have_made_it(self):
        described = Described(UNIQUE, server := Bulk("b"))
        described.wire.loses = [True]
        found = await described.settled(rows("a", "b"))
        assert server.rows == {"a", "b"}
        assert (found.task_ids, found.errors, list(found.uncertain)) == (["", None], {}, [1])

    async def test_a_page_after_a_lost_second_call_fails_nothing(self):
        def later(seen, server):
            if server.calls > 2:
                return 403, b"<html>blocked</html>"
            server.rows.add("b")
            return 200, {"rows": [{"id": "t-b"}]}

        server = Bulk(later=later)
        server.made = lambda name: {"id": "t-a"} if name == "a" else {"code": "busy", "error": "busy"}
        described = Described(UNIQUE, server)
        described.wire.loses = [False, True]
        with pytest.raises(Refused) as refused:
            await described.released(rows("a", "b"))
        assert (refused.value.blame, refused.value.earlier_lost) == (Blame.SUSPECT, True)

    async def test_where_a_repeat_is_harmless_several_that_are_refused_as_a_whole_go_in_halves(self):
        server = Bulk(later=lambda seen, server: (400, {"message": "one of them"}))
        server.made = lambda name: {"id": "t-a"} if name == "a" else {"code": "busy", "error": "busy"}
        with pytest.raises(Refused) as refused:
            await Described(UNIQUE, server).released(rows("a", "b", "c"))
        assert (refused.value.blame, refused.value.earlier_lost) == (Blame.PAYLOAD, True)

    async def test_where_nothing_was_made_a_later_refusal_is_of_a_first_attempt(self):
        server = Bulk(later=lambda seen, server: (403, b"<html>blocked</html>"))
        server.made = lambda name: {"code": "busy", "error": "busy"}
        with pytest.raises(Refused) as refused:
            await Described(UNIQUE, server).released(rows("a"))
        assert (refused.value.blame, refused.value.earlier_lost) == (Blame.SUSPECT, False)


STAGED = """
[stage]
call = "POST /files"
payload = true
take = { id = "id" }
[release]
call = "POST /files/${id}/start"
[results]
items = "rows"
match = "index"
index = "at"
busy = { busy = true }
[[rules]]
status = [400]
path = "wrong"
means = "by_index"
at = "wrong"
"""


class TestCallsThatCarryNoRecord:
    """What was staged is released whole or not at all: a part of it cannot be sent again."""

    async def test_busy_records_of_it_do_not_have_all_of_it_released_again(self):
        starts = []

        def server(seen):
            if seen.path == "/files":
                return 200, {"id": "f"}
            starts.append(seen)
            return 200, {"rows": [{"at": 0, "id": f"a{len(starts)}"}, {"at": 1, "busy": True}]}

        found = await Described(STAGED, server).settled([{"a": 1}, {"a": 2}])
        assert (len(starts), found.task_ids, list(found.errors)) == (1, ["a1", None], [1])

    async def test_where_some_are_named_as_bad_it_goes_in_halves(self):
        def server(seen):
            return (200, {"id": "f"}) if seen.path == "/files" else (400, {"wrong": {"0": "bad"}})

        with pytest.raises(Refused) as refused:
            await Described(STAGED, server).released([{"a": 1}, {"a": 2}])
        assert refused.value.blame is Blame.PAYLOAD


FOLLOWED = """
[release]
call = "POST /imports"
payload = true
take = { id = "id" }
[status]
call = "GET /imports/${id}"
state = "state"
finished = ["done"]
[results]
of = "status"
items = "rows"
match = "index"
index = "at"
[[rules]]
status = [400]
path = "wrong"
means = "by_index"
at = "wrong"
"""


async def test_what_is_followed_later_goes_up_whole_or_in_halves_so_that_places_mean_the_same():
    def server(seen):
        if seen.method == "GET":
            return 200, {"state": "done", "rows": [{"at": 0, "id": "a"}, {"at": 1, "id": "c"}]}
        wrong = {str(at): "bad" for at, task in enumerate(seen.json) if task["a"] == "bad"}
        return (400, {"wrong": wrong}) if wrong else (200, {"id": "i"})

    with pytest.raises(Refused) as refused:
        await Described(FOLLOWED, server).settled([{"a": 1}, {"a": "bad"}, {"a": 3}])
    assert refused.value.blame is Blame.PAYLOAD, "else the second record is called created, and it is not"
    assert (await Described(FOLLOWED, server).released([{"a": "bad"}])).settlement.errors == {0: "bad"}


LOST_WORDS = (
    STAGED.replace("busy = { busy = true }", 'missing = "created"\nid = []').replace(
        'call = "POST /files/${id}/start"', 'call = "POST /files/${id}/start"\nagain = "ask"'
    )
    + """
[record]
key = "${task.n}"
[results.failures]
items = "failed"
index = "at"
[status]
call = "GET /files/${id}"
state = "state"
waiting = ["new"]
finished = ["done"]
failed = ["failed"]
"""
)


class TestResultsThatOnlyTheReleaseBrings:
    """If its answer was lost, the batch is followed to its end, and nothing tells of each record."""

    @staticmethod
    def server(word):
        return lambda seen: (200, {"state": word}) if seen.method == "GET" else (200, {"id": "f"})

    async def test_a_batch_that_has_ended_well_is_uncertain_record_by_record(self):
        described = Described(LOST_WORDS, self.server("done"))
        found = await described.service.settlement(described.asked(rows("a", "b"), "f"))
        assert (found.task_ids, list(found.uncertain)) == ([None, None], [0, 1])

    async def test_one_that_has_failed_as_a_whole_has_failed(self):
        described = Described(LOST_WORDS, self.server("failed"))
        found = await described.service.settlement(described.asked(rows("a", "b"), "f"))
        assert list(found.errors) == [0, 1]


async def test_a_person_s_repeat_that_does_not_get_through_says_nothing_of_the_attempt_before():
    server = Bulk(later=lambda seen, server: (429, {"message": "later"}))
    server.made = lambda name: {"id": "t-a"} if name == "a" else {"code": "busy", "error": "busy"}
    described = Described(UNIQUE.replace('"exists"\n', '"never"\n', 1), server)
    found = await described.settled(rows("a", "b"), sent_before=True)
    assert (found.task_ids, found.errors, list(found.uncertain)) == (["t-a", None], {}, [1])
