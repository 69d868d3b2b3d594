"""Descriptions, done: each way to create records, from its first call to the fate of each record."""

from datetime import UTC, datetime
from email.utils import format_datetime

import pytest

from engine.model.doubt import Again, RemoteStatus
from engine.model.error_hints import Blame
from engine.model.errors import PossiblyApplied, Refused, Unavailable, UnexpectedAnswer

from .served import TOKEN, Described

BULK = """
[record]
key = "${job}-${token}-${index}"
head = { create = { _id = "${key}" } }
[body]
framing = "ndjson"
[limit]
records = 100
[release]
call = "POST /tasks/_bulk"
payload = true
again = "exists"
[results]
items = "items"
id = ["*._id"]
ok = { "*.status" = [200, 201] }
exists = { "*.error.type" = "version_conflict_engine_exception" }
busy = { "*.status" = [429, 503] }
error = ["*.error.reason", "*.error.type"]
"""


class Index:
    """Elasticsearch's `_bulk`, as far as it matters: a status for each item."""

    def __init__(self):
        self.documents, self.bulks, self.busy = {}, 0, {}

    def __call__(self, seen):
        assert (seen.method, seen.path) == ("POST", "/tasks/_bulk")
        assert seen.headers["Content-Type"] == "application/x-ndjson"
        self.bulks += 1
        heads, documents = seen.lines[::2], seen.lines[1::2]
        items = [self.created(head["create"]["_id"], one) for head, one in zip(heads, documents, strict=True)]
        return 200, {"errors": False, "items": [{"create": item} for item in items]}

    def created(self, name, document):
        if self.busy.get(name, 0):
            self.busy[name] -= 1
            return {"_id": name, "status": 429, "error": {"type": "es_rejected_execution_exception"}}
        if name in self.documents:
            return {"_id": name, "status": 409, "error": {"type": "version_conflict_engine_exception", "reason": "is"}}
        if document.get("bad"):
            return {"_id": name, "status": 400, "error": {"type": "mapper_parsing_exception", "reason": "bad field"}}
        self.documents[name] = document
        return {"_id": name, "status": 201}


def key(index):
    return f"j-{TOKEN}-{index}"


class TestOneCallWithResults:
    async def test_each_record_has_the_fate_that_its_item_says(self):
        described = Described(BULK, Index())
        found = await described.settled([{"a": 1}, {"bad": True}, {"a": 3}])
        assert (found.task_ids, found.errors) == ([key(100), None, key(102)], {1: "bad field"})
        assert described.intents == 1

    async def test_what_is_there_already_fails_unless_an_earlier_attempt_may_have_arrived(self):
        server = Index()
        server.documents[key(101)] = {}
        found = await Described(BULK, server).settled([{"a": 1}, {"a": 2}])
        assert list(found.errors) == [1]
        assert found.errors[1].startswith("it is there already")
        found = await Described(BULK, server).settled([{"a": 1}, {"a": 2}], sent_before=True)
        assert (found.task_ids, found.errors) == ([key(100), key(101)], {})

    async def test_a_lost_answer_is_asked_for_again_and_what_is_there_then_is_ours(self):
        described = Described(BULK, server := Index())
        described.wire.loses = [True]
        found = await described.settled([{"a": 1}, {"a": 2}])
        assert (found.task_ids, server.bulks, len(server.documents)) == ([key(100), key(101)], 2, 2)

    async def test_busy_records_go_again_after_a_pause_and_nothing_else_does(self):
        described = Described(BULK, server := Index())
        server.busy = {key(101): 2}
        found = await described.settled([{"a": 1}, {"a": 2}, {"a": 3}])
        assert found.task_ids == [key(100), key(101), key(102)]
        assert [len(seen.lines) // 2 for seen in described.wire.seen] == [3, 1, 1]
        assert described.clock.slept[-2:] == [1.0, 2.0]
        assert described.intents == 3

    async def test_a_record_that_stays_busy_fails_at_last(self):
        described = Described(BULK, server := Index())
        server.busy = {key(101): 99}
        found = await described.settled([{"a": 1}, {"a": 2}])
        assert found.errors == {1: "es_rejected_execution_exception (11 times)"}
        assert server.bulks == 11

    async def test_an_answer_of_another_form_settles_nothing(self):
        for body in ({}, [], {"items": []}, b"<html>"):
            with pytest.raises(UnexpectedAnswer):
                await Described(BULK, lambda seen, body=body: (200, body)).released([{"a": 1}])

    async def test_it_has_no_other_ability(self):
        service = Described(BULK, Index(), max_records=500).service
        assert (service.staging, service.polling, service.canceling, service.drafting) == (None,) * 4
        assert service.referencing is service
        assert (service.again, service.limits.records, service.key_seconds) == (Again.EXISTS, 100, float("inf"))
        learnt = await service.learn()
        assert len(learnt) == 16
        assert service.reference(0) is None
        assert service.task_url("a/b") == "https://api.example.com/a%2Fb"


BY_KEY = """
[record]
key = "${task.name}"
[limit]
records = 100
[body]
under = "docs"
[release]
call = "POST /docs"
payload = true
again = "exists"
[results]
match = "key"
key = "id"
ok = { ok = true }
exists = { error = "conflict" }
"""


class Documents:
    """CouchDB's `_bulk_docs`, in the order of PouchDB's server: what is refused comes first."""

    def __init__(self):
        self.known, self.sent = set(), []

    def __call__(self, seen):
        names = [one["name"] for one in seen.json["docs"]]
        self.sent.append(names)
        refused = [one for at, one in enumerate(names) if one in self.known or one in names[:at]]
        done = [one for one in dict.fromkeys(names) if one not in self.known]
        self.known |= set(done)
        told = [{"id": one, "error": "conflict"} for one in refused] + [{"id": one, "ok": True} for one in done]
        return 201, told


class TestKeysThatStandTwice:
    NAMES = ({"name": "a"}, {"name": "b"}, {"name": "a"}, {"name": "c"}, {"name": "a"})

    async def test_the_first_goes_and_the_others_of_its_batch_fail_unsent(self):
        server = Documents()
        found = await Described(BY_KEY, server).settled(self.NAMES)
        assert (found.task_ids, server.sent) == (["a", "b", None, "c", None], [["a", "b", "c"]])
        twice = "its key stands twice in the source: record 100 has it, too"
        assert (found.errors, found.uncertain) == ({2: twice, 4: twice}, {})

    async def test_so_they_do_where_the_first_is_somebody_elses(self):
        server = Documents()
        server.known = {"a"}
        found = await Described(BY_KEY, server).settled(self.NAMES)
        assert found.task_ids == [None, "b", None, "c", None]
        assert found.errors[0].startswith("it is there already")

    async def test_a_repeat_counts_the_first_and_not_its_twins(self):
        described = Described(BY_KEY, Documents())
        described.wire.loses = [True]
        found = await described.settled(self.NAMES)
        assert (found.task_ids, sorted(found.errors)) == (["a", "b", None, "c", None], [2, 4])


JOBS = """
uploads_to = ["store.example.com"]
task_page = "https://app.example.com/${id}"
[record]
key = "${task.K}"
[body]
framing = "csv"
columns = ["K", "Name"]
[stage]
call = "POST /jobs"
json = { object = "Contact", label = "${mark}" }
take = { id = "id", where = "contentUrl" }
[upload]
call = "PUT ${where}"
payload = true
[release]
call = "PATCH /jobs/${id}"
json = { state = "UploadComplete" }
again = "ask"
[status]
call = "GET /jobs/${id}"
state = "state"
waiting = ["Open"]
running = ["UploadComplete", "InProgress"]
finished = ["JobComplete"]
failed = ["Failed", "Aborted"]
created = "done"
error = ["errorMessage"]
[cancel]
call = "PATCH /jobs/${id}"
json = { state = "Aborted" }
[results]
of = "fetch"
format = "csv"
match = "key"
key = "K"
id = ["sf__Id"]
[results.pages]
cursor_header = "Sforce-Locator"
cursor_query = "locator"
[[results.fetch]]
call = "GET /jobs/${id}/successfulResults"
[[results.fetch]]
call = "GET /jobs/${id}/failedResults"
error = ["sf__Error"]
"""


PAGE = b"<!DOCTYPE html>\n<html><body>Please sign in, to go on</body></html>"


class Jobs:
    """Salesforce's Bulk API 2.0, as far as it matters: jobs, a CSV, and CSVs of results in pages."""

    def __init__(self, *, words=("InProgress", "JobComplete")):
        self.jobs, self.words, self.done = {}, list(words), 0

    def __call__(self, seen):
        if seen.method == "POST":
            name = f"750{len(self.jobs)}"
            self.jobs[name] = {"state": "Open", "rows": []}
            return 200, {"id": name, "contentUrl": f"jobs/{name}/batches"}
        _, _, name, *rest = seen.path.split("/")
        job = self.jobs.get(name)
        if job is None:
            return 404, [{"errorCode": "NOT_FOUND"}]
        if seen.method == "PUT":
            job["rows"] = seen.rows
            return 201, b""
        if seen.method == "PATCH":
            job["state"] = seen.json["state"]
        if not rest:
            if job["state"] == "UploadComplete" and seen.method == "GET":
                return 200, {
                    "id": name,
                    "state": self.words.pop(0),
                    "done": self.done,
                    "errorMessage": "no such object",
                }
            return 200, {"id": name, "state": job["state"], "done": 0}
        return self.results(rest[0], job["rows"], seen.query)

    def results(self, kind, rows, query):
        wanted = [row for row in reversed(rows) if (row["Name"] == "bad") == (kind == "failedResults")]
        if kind == "failedResults":
            return 200, "".join(["sf__Id,sf__Error,K\n", *(f'"",wrong name,{row["K"]}\n' for row in wanted)]).encode()
        at = int(query.get("locator", 0))
        lines = "".join(
            ["sf__Id,sf__Created,K\n", *(f"id-{row['K']},true,{row['K']}\n" for row in wanted[at : at + 2])]
        )
        more = str(at + 2) if at + 2 < len(wanted) else "null"
        return 200, lines.encode(), {"Sforce-Locator": more}


ROWS = [{"K": "a", "Name": "x"}, {"K": "b", "Name": "bad"}, {"K": "c", "Name": "y"}, {"K": "d", "Name": "z, z"}]


class TestJobsWithFilesOfResults:
    async def test_it_is_staged_uploaded_released_followed_and_its_results_are_fetched(self):
        described = Described(JOBS, server := Jobs())
        found = await described.settled(ROWS)
        assert (found.task_ids, found.errors) == (["id-a", None, "id-c", "id-d"], {1: "wrong name"})
        assert server.jobs["7500"]["rows"] == ROWS
        made = described.wire.seen[0]
        assert made.json == {"object": "Contact", "label": f"j-{TOKEN}-7"}
        assert [seen.query for seen in described.wire.seen if "successful" in seen.path] == [{}, {"locator": "2"}]

    async def test_many_results_are_read_by_a_thread(self):
        rows = [{"K": f"k{at}", "Name": "x"} for at in range(5000)]
        page = JOBS.replace("[results.pages]\ncursor_header", '[results.pages]\nmore = "never"\ncursor_header')
        server = Jobs()
        server.results = lambda kind, rows, query: (
            200,
            "".join(
                ["sf__Id,K\n", *(f"id-{row['K']},{row['K']}\n" for row in rows if kind != "failedResults")]
            ).encode(),
        )
        found = await Described(page, server).settled(rows)
        assert found.task_ids == [f"id-k{at}" for at in range(5000)]

    async def test_its_words_say_where_a_batch_stands(self):
        described = Described(JOBS, Jobs(words=["Queued", "InProgress", "Failed", "Failed", "JobComplete"]))
        batch, payload = described.batch(ROWS)
        staged = await described.service.stage(batch, payload)
        assert await described.service.remote_status(staged.remote_id) is RemoteStatus.WAITING
        assert await described.service.remote_status("none") is RemoteStatus.NOT_THERE
        await described.service.upload(staged, payload)
        await described.service.release(batch, staged.remote_id, None, described.intend)
        asked = described.asked(ROWS, staged.remote_id)
        (one,) = await described.service.progress([asked])
        assert (one.said, one.understood, one.finished, one.waiting) == ("Queued", False, False, False)
        (one,) = await described.service.progress([asked])
        assert (one.said, one.understood, one.finished) == ("InProgress", True, False)
        (one,) = await described.service.progress([asked])
        assert (one.said, one.finished) == ("Failed", True)
        assert await described.service.remote_status(staged.remote_id) is RemoteStatus.ENDED
        assert await described.service.remote_status(staged.remote_id) is RemoteStatus.STARTED

    async def test_what_the_results_of_a_failed_batch_do_not_name_was_not_created(self):
        server = Jobs(words=["Failed"])
        server.results = lambda kind, rows, query: (
            200,
            b"sf__Id,K\nid-a,a\n" if kind != "failedResults" else b"sf__Id,K\n",
        )
        found = await Described(JOBS, server).settled(ROWS[:2])
        assert (found.task_ids, found.errors) == (["id-a", None], {1: "no such object"})

    async def test_a_failed_batch_that_counts_what_it_does_not_name_is_uncertain(self):
        server = Jobs(words=["Failed"])
        server.done = 1
        server.results = lambda kind, rows, query: (200, b"sf__Id,K\n")
        found = await Described(JOBS, server).settled(ROWS[:2])
        assert list(found.uncertain) == [0, 1]
        assert "counts 1 created" in found.uncertain[0]

    async def test_a_page_in_the_place_of_results_says_nothing_of_a_record(self):
        server = Jobs()
        server.results = lambda kind, rows, query: (200, PAGE if kind == "successfulResults" else b"sf__Id,K\n")
        described = Described(JOBS.replace('key = "K"\n', 'key = "K"\nmissing = "not done"\n'), server)
        with pytest.raises(UnexpectedAnswer, match="no column 'K'"):
            await described.settled(ROWS[:2])

    async def test_where_no_page_of_results_is_there_yet_nothing_is_concluded(self):
        server = Jobs(words=["JobComplete"])
        server.results = lambda kind, rows, query: (404, {"error": "no such file"})
        description = JOBS.replace('match = "key"', 'match = "key"\nmissing = "not made"')
        description = description.replace("[results.pages]", "[results.pages]\nstop_status = [404]")
        with pytest.raises(UnexpectedAnswer):
            await Described(description, server).settled(ROWS)

    async def test_a_page_in_the_place_of_an_answer_is_no_word_that_a_job_was_started_or_canceled(self):
        described = Described(JOBS, Jobs())
        batch, payload = described.batch(ROWS)
        staged = await described.service.stage(batch, payload)
        described.wire.server = lambda seen: (200, PAGE)
        with pytest.raises(UnexpectedAnswer, match="release: a page"):
            await described.service.release(batch, staged.remote_id, None, described.intend)
        with pytest.raises(UnexpectedAnswer, match="cancel: a page"):
            await described.service.canceling.cancel(staged.remote_id)

    async def test_a_batch_can_be_canceled(self):
        described = Described(JOBS, server := Jobs())
        batch, payload = described.batch(ROWS)
        staged = await described.service.stage(batch, payload)
        await described.service.canceling.cancel(staged.remote_id)
        assert server.jobs[staged.remote_id]["state"] == "Aborted"

    async def test_a_release_that_is_lost_is_not_repeated_and_the_service_can_be_asked(self):
        described = Described(JOBS, Jobs())
        batch, payload = described.batch(ROWS)
        staged = await described.service.stage(batch, payload)
        described.wire.loses = [True]
        with pytest.raises(PossiblyApplied):
            await described.service.release(batch, staged.remote_id, None, described.intend)
        assert described.service.again is Again.ASK

    async def test_a_release_of_a_batch_that_is_gone_says_so(self):
        described = Described(JOBS, Jobs())
        batch, _ = described.batch(ROWS)
        with pytest.raises(Refused) as refused:
            await described.service.release(batch, "none", None, described.intend)
        assert refused.value.batch_not_found

    async def test_a_record_without_its_key_is_rejected(self):
        service = Described(JOBS, Jobs()).service
        assert "K" in service.check({"Name": "x"})
        assert service.check({"K": "a", "Name": "x"}) is None
        assert service.plain_task is not None


FILES = """
[record]
key = "${job}-${token}-${index}"
template = { custom_id = "${key}", body = "${task}" }
[body]
framing = "ndjson"
part = "file"
fields = { purpose = "batch" }
[stage]
call = "POST /files"
payload = true
take = { id = "id" }
[release]
call = "POST /batches"
json = { input_file_id = "${id}", metadata = { bulksubmit = "${mark}" } }
take = { id = "id" }
again = "search"
[search]
call = "GET /batches"
query = { limit = "2" }
items = "data"
where = { "metadata.bulksubmit" = "${mark}" }
stop_before = "created_at"
[search.pages]
cursor = "data.-1.id"
cursor_query = "after"
more = "has_more"
[status]
call = "GET /batches/${id}"
state = "status"
running = ["validating", "in_progress"]
finished = ["completed", "expired"]
failed = ["failed"]
created = "request_counts.completed"
error = ["errors.data.0.message"]
take = { output = "output_file_id?", errors = "error_file_id?" }
[results]
of = "fetch"
format = "ndjson"
match = "key"
key = "custom_id"
id = ["response.body.id"]
ok = { "response.status_code" = 200 }
error = ["response.body.error.message", "error.message"]
missing = "the batch ended before this request was made"
[[results.fetch]]
call = "GET /files/${output}/content"
[[results.fetch]]
call = "GET /files/${errors}/content"
"""


class Files:
    """OpenAI's Batch API, as far as it matters: files, batches of them, and files of results in another order."""

    def __init__(self, *, status="completed", at=1_800_000_000):
        self.files, self.batches, self.status, self.at = {}, {}, status, at

    def __call__(self, seen):
        match seen.method, *seen.path.strip("/").split("/"):
            case "POST", "files":
                assert seen.headers["Content-Type"].startswith("multipart/form-data; boundary=")
                assert b'name="purpose"\r\n\r\nbatch\r\n' in seen.body
                name = f"file-{len(self.files)}"
                self.files[name] = [line for line in seen.body.splitlines() if line.startswith(b"{")]
                return 200, {"id": name}
            case "POST", "batches":
                return 200, self.made(seen.json)
            case "GET", "batches":
                return 200, self.page(seen.query)
            case "GET", "batches", name if name in self.batches:
                return 200, self.batches[name]
            case "GET", "files", name, "content":
                return 200, b"".join(self.files[name])
        return 404, {"error": {"message": "no such place"}}

    def made(self, asked):
        name = f"batch_{len(self.batches)}"
        batch = {"id": name, "status": self.status, "metadata": asked.get("metadata"), "created_at": self.at}
        if self.status == "failed":
            batch["errors"] = {"data": [{"message": "line 1 is no request"}]}
        else:
            batch["output_file_id"] = f"out-{name}"
            self.files[f"out-{name}"] = list(reversed(list(map(self.answered, self.files[asked["input_file_id"]]))))
        self.batches[name] = batch
        return batch

    def answered(self, line):
        name = line.split(b'"custom_id":"')[1].split(b'"')[0].decode()
        if b"bad" in line:
            said = f'{{"custom_id":"{name}","response":{{"status_code":400,"body":{{"error":{{"message":"no"}}}}}}}}'
        else:
            said = f'{{"custom_id":"{name}","response":{{"status_code":200,"body":{{"id":"r-{name}"}}}},"error":null}}'
        return f"{said}\n".encode()

    def page(self, query):
        newest = list(reversed(self.batches.values()))
        names = [batch["id"] for batch in newest]
        start = names.index(query["after"]) + 1 if "after" in query else 0
        return {"data": newest[start : start + 2], "has_more": start + 2 < len(newest)}


class TestFilesAndBatches:
    async def test_the_batch_has_another_name_after_release_and_its_lines_are_matched_by_key(self):
        described = Described(FILES, server := Files())
        released = await described.released([{"a": 1}, {"bad": 1}])
        assert released.remote_id == "batch_0"
        found = await described.settled([{"a": 1}, {"bad": 1}], sequence=8)
        assert (found.task_ids, found.errors) == ([f"r-{key(100)}", None], {1: "no"})
        assert server.batches["batch_1"]["metadata"] == {"bulksubmit": f"j-{TOKEN}-8"}

    async def test_a_batch_that_failed_as_a_whole_has_no_files(self):
        found = await Described(FILES, Files(status="failed")).settled([{"a": 1}, {"a": 2}])
        assert found.errors == dict.fromkeys((0, 1), "line 1 is no request")

    async def test_a_record_that_no_line_is_about_failed_as_the_description_says(self):
        server = Files(status="expired")
        server.answered = lambda line: Files.answered(server, line) if b'"a": 1' in line else b"\n"
        found = await Described(FILES, server).settled([{"a": 1}, {"a": 2}])
        assert found.errors == {1: "the batch ended before this request was made"}

    async def test_a_search_finds_the_batch_by_its_mark_page_by_page(self):
        described = Described(FILES, Files())
        for sequence in range(5):
            await described.released([{"a": 1}], sequence=sequence)
        batch, payload = described.batch([{"a": 1}], 1)
        located = await described.service.referencing.locate(batch, payload, described.clock.now())
        assert (located.names, located.settlement) == (["batch_1"], None)
        batch, payload = described.batch([{"a": 1}], 9)
        assert (await described.service.locate(batch, payload, described.clock.now())).names == []

    async def test_a_search_ends_where_what_it_lists_is_older_than_the_release(self):
        described = Described(FILES, server := Files())
        for sequence in range(5):
            await described.released([{"a": 1}], sequence=sequence)
        server.batches["batch_4"]["created_at"] -= 1000
        batch, payload = described.batch([{"a": 1}], 0)
        before = len(described.wire.seen)
        assert (await described.service.locate(batch, payload, described.clock.now())).names == []
        assert len(described.wire.seen) == before + 1

    @pytest.mark.parametrize("behind", [3600.0, -3600.0])
    async def test_what_is_older_is_told_by_the_clock_of_the_service(self, behind):
        server = Files()
        date = format_datetime(datetime.fromtimestamp(server.at - behind, UTC), usegmt=True)
        described = Described(FILES, lambda seen: (*server(seen), {"Date": date}))
        for sequence in range(3):
            await described.released([{"a": 1}], sequence=sequence)
            server.batches[f"batch_{sequence}"]["created_at"] -= behind
        batch, payload = described.batch([{"a": 1}], 0)
        assert (await described.service.locate(batch, payload, described.clock.now())).names == ["batch_0"]

    async def test_without_a_token_nothing_can_be_found(self):
        assert Described(FILES, Files(), learnt="").service.again is Again.NEVER


TASKS = """
[record]
key = "${index}"
[body]
under = "tasks"
[release]
call = "POST /tasks"
payload = true
again = "search"
[search]
call = "GET /found"
query = { q = "${mark}" }
mark = "data.tag"
items = "results"
key = "data.n"
[record.add]
n = "${key}"
[results]
items = "ids"
format = "ids"
"""


class TestASearchForRecords:
    DESCRIPTION = (
        TASKS.replace('[record.add]\nn = "${key}"\n', "")
        .replace('key = "data.n"', 'key = "n"')
        .replace('key = "${index}"', 'key = "${task.n}"')
    )

    async def test_it_brings_the_fates_of_those_that_it_finds(self):
        marks = {"tag": f"j-{TOKEN}-7"}
        found = [
            {"id": "t1", "n": "1", "data": marks},
            {"id": "t9", "n": "0", "data": {"tag": "another's"}},
            {"id": "t8", "n": "0"},
        ]
        described = Described(self.DESCRIPTION, lambda seen: (200, {"results": found}))
        batch, payload = described.batch([{"n": "0", "data": {}}, {"n": "1", "data": {}}])
        located = await described.service.locate(batch, payload, 0.0)
        assert located.settlement.task_ids == [None, "t1"]
        assert located.settlement.uncertain == {0: "a search by its mark has not found it"}

    @pytest.mark.parametrize("first", [0, 1])
    async def test_places_are_counted_as_in_the_results(self, first):
        description = self.DESCRIPTION.replace('key = "n"', 'index = "at"') + f"first_index = {first}\n"
        found = [{"id": f"t{at}", "at": first + at, "data": {"tag": f"j-{TOKEN}-7"}} for at in (1, 0)]
        described = Described(description, lambda seen: (200, {"results": found}))
        batch, payload = described.batch([{"n": "0", "data": {}}, {"n": "1", "data": {}}])
        located = await described.service.locate(batch, payload, 0.0)
        assert located.settlement.task_ids == ["t0", "t1"]

    @pytest.mark.parametrize(
        "items",
        [
            [{"id": None, "n": "0"}],
            [{"id": "x" * 300, "n": "0"}],
            [{"id": "t1", "n": "0"}, {"id": "t2", "n": "0"}],
            [{"id": "t1", "n": "1"}, {"id": "t1", "n": "0"}],
        ],
        ids=["no id", "no fit id", "twice", "one id for two"],
    )
    async def test_what_is_found_and_not_clear_is_not_missing(self, items):
        found = [{**item, "data": {"tag": f"j-{TOKEN}-7"}} for item in items]
        described = Described(self.DESCRIPTION, lambda seen: (200, {"results": found}))
        batch, payload = described.batch([{"n": "0", "data": {}}, {"n": "1", "data": {}}])
        located = await described.service.locate(batch, payload, 0.0)
        assert 0 in located.settlement.uncertain
        assert 0 in located.unclear, "else it is called failed, or sent a second time"

    async def test_what_has_the_mark_and_is_no_record_s_leaves_all_unclear(self):
        found = [{"id": "t1", "n": "O", "data": {"tag": f"j-{TOKEN}-7"}}]
        described = Described(self.DESCRIPTION, lambda seen: (200, {"results": found}))
        batch, payload = described.batch([{"n": "0", "data": {}}, {"n": "1", "data": {}}])
        with pytest.raises(UnexpectedAnswer):
            await described.service.locate(batch, payload, 0.0)
        found.append({"id": "t2", "n": "1", "data": {"tag": f"j-{TOKEN}-7"}})
        assert (await described.service.locate(batch, payload, 0.0)).unclear == {0}

    async def test_where_nothing_of_ours_marks_them_others_are_none_of_the_batch(self):
        description = self.DESCRIPTION.replace('mark = "data.tag"\n', "")
        description = description.replace("payload = true\n", 'payload = true\nquery = { tag = "${mark}" }\n')
        found = [{"id": "t1", "n": "9"}]
        described = Described(description, lambda seen: (200, {"results": found}))
        batch, payload = described.batch([{"n": "0"}, {"n": "1"}])
        assert (await described.service.locate(batch, payload, 0.0)).settlement is None
        found.append({"id": "t2", "n": "1"})
        located = await described.service.locate(batch, payload, 0.0)
        assert (located.settlement.task_ids, located.unclear) == ([None, "t2"], frozenset())

    async def test_a_record_that_results_call_by_its_key_is_called_so_by_a_search(self):
        """Else the tasks of a settled batch would not be known again, and the search would count as one that fails."""
        found = [{"id": 7, "n": "0", "data": {"tag": f"j-{TOKEN}-7"}}]
        by_keys = self.DESCRIPTION.replace('items = "ids"\nformat = "ids"', "id = []")
        described = Described(by_keys, lambda seen: (200, {"results": found}))
        batch, payload = described.batch([{"n": "0", "data": {}}])
        assert (await described.service.locate(batch, payload, 0.0)).settlement.task_ids == ["0"]

    async def test_nothing_found_is_no_settlement(self):
        described = Described(self.DESCRIPTION, lambda seen: (200, {"results": []}))
        batch, payload = described.batch([{"n": "0", "data": {}}])
        located = await described.service.locate(batch, payload, 0.0)
        assert (located.names, located.settlement) == ((), None)

    async def test_a_list_of_ids_settles_in_order(self):
        described = Described(self.DESCRIPTION, lambda seen: (200, {"ids": [5, 6]}))
        found = await described.settled([{"n": "0", "data": {}}, {"n": "1", "data": {}}])
        assert found.task_ids == ["5", "6"]
        assert described.wire.seen[0].json["tasks"][0]["data"] == {"tag": f"j-{TOKEN}-7"}


KEYED = """
[release]
call = "POST /items"
payload = true
again = "key"
key_header = "Idempotency-Key"
[results]
items = "items"
busy = { busy = true }
error = ["why"]
"""


class TestIdempotencyKeys:
    async def test_each_attempt_carries_the_same_one_and_another_content_another_one(self):
        answers = [{"items": [{"id": "a"}, {"busy": True}]}, {"items": [{"id": "b"}]}]
        described = Described(KEYED, lambda seen: (200, answers[0] if len(seen.json) == 2 else answers[1]))
        described.wire.loses = [True]
        found = await described.settled([{"a": 1}, {"a": 2}])
        assert found.task_ids == ["a", "b"]
        keys = [seen.headers["Idempotency-Key"] for seen in described.wire.seen]
        assert keys == [f"j-{TOKEN}-7", f"j-{TOKEN}-7", f"j-{TOKEN}-7-1"]

    async def test_a_conflict_may_be_the_first_call_with_this_key_which_is_still_at_work(self):
        described = Described(KEYED, lambda seen: (409, {"message": "in progress"}))
        with pytest.raises(Refused) as refused:
            await described.released([{"a": 1}, {"a": 2}])
        assert refused.value.released_before, "else halves go up with keys of their own, beside the first call"

    async def test_where_a_rule_is_about_conflicts_it_says_what_they_mean(self):
        rule = '[[rules]]\nstatus = [409]\npath = "code"\nequals = ["in_use"]\nmeans = "pause"\n'
        described = Described(KEYED + rule, lambda seen: (409, {"message": "taken"}))
        with pytest.raises(Refused) as refused:
            await described.released([{"a": 1}, {"a": 2}])
        assert not refused.value.released_before

    async def test_it_holds_for_a_day_where_nothing_else_is_said(self):
        assert Described(KEYED, None).service.key_seconds == 86_400


BY_INDEX = """
[release]
call = "POST /batch"
payload = true
again = "never"
[results]
id = ["id"]
[limit]
bytes = 60
[[rules]]
status = [400]
path = "data.requests"
means = "by_index"
at = "data.requests"
error = ["message"]
"""


def all_or_none(seen):
    bad = {str(at): {"message": f"{task['a']} is bad"} for at, task in enumerate(seen.json) if task["a"] < 0}
    if bad:
        return 400, {"data": {"requests": dict(list(bad.items())[:1])}}
    return 200, [{"id": f"t{task['a']}"} for task in seen.json]


class TestRefusalsThatNameRecords:
    async def test_those_fail_and_the_others_go_again_at_once(self):
        described = Described(BY_INDEX, all_or_none)
        found = await described.settled([{"a": 1}, {"a": -2}, {"a": 3}, {"a": -4}])
        assert (found.task_ids, found.errors) == (["t1", None, "t3", None], {1: "-2 is bad", 3: "-4 is bad"})
        assert len(described.wire.seen) == 3

    async def test_a_batch_of_nothing_but_bad_ones_settles_without_a_success(self):
        found = await Described(BY_INDEX, all_or_none).settled([{"a": -1}, {"a": -2}])
        assert list(found.errors) == [0, 1]

    async def test_after_twenty_it_is_halved(self):
        description = BY_INDEX.replace("bytes = 60", "bytes = 6000")
        described = Described(description, all_or_none)
        with pytest.raises(Refused) as refused:
            await described.released([{"a": -at} for at in range(1, 31)])
        assert refused.value.blame is Blame.PAYLOAD
        assert len(described.wire.seen) == 21

    @pytest.mark.parametrize(("told", "counted"), [(0, 1), (1, 0)])
    async def test_a_service_that_counts_from_another_number_than_is_told_has_no_neighbour_fail(self, told, counted):
        def server(seen):
            bad = {str(at + counted): {"message": "bad"} for at, task in enumerate(seen.json) if task["a"] < 0}
            return 400, {"data": {"requests": bad}}

        described = Described(f"{BY_INDEX.replace('bytes = 60', 'bytes = 6000')}first_index = {told}\n", server)
        with pytest.raises(Refused) as refused:
            await described.released([{"a": -1}, {"a": 2}, {"a": -3}])
        assert (refused.value.blame, len(described.wire.seen)) == (Blame.PAYLOAD, 1)

    async def test_an_index_that_no_record_has_is_none(self):
        described = Described(BY_INDEX, lambda seen: (400, {"data": {"requests": {"7": {"message": "no"}}}}))
        with pytest.raises(Refused):
            await described.released([{"a": 1}])


THERE = """
[record]
key = "r-${token}-${index}"
[release]
call = "POST /batch"
payload = true
again = "exists"
[results]
id = ["id"]
[[rules]]
status = [400]
path = "taken.*.code"
equals = ["not_unique"]
means = "exists"
at = "taken"
error = ["code"]
"""


class TestRefusalsThatNameWhatIsThereAlready:
    @staticmethod
    def server(seen):
        taken = {str(at): {"code": "not_unique"} for at, task in enumerate(seen.json) if task["a"] == 2}
        return (400, {"taken": taken}) if taken else (200, [{"id": f"t{task['a']}"} for task in seen.json])

    async def test_it_fails_and_the_others_are_created(self):
        found = await Described(THERE, self.server).settled([{"a": 1}, {"a": 2}, {"a": 3}])
        assert found.task_ids == ["t1", None, "t3"]
        assert found.errors[1].startswith("it is there already")

    async def test_after_a_loss_it_is_ours(self):
        found = await Described(THERE, self.server).settled([{"a": 1}, {"a": 2}, {"a": 3}], sent_before=True)
        assert (found.task_ids, found.errors) == (["t1", "", "t3"], {})

    async def test_where_nobody_says_which_one_the_batch_is_halved(self):
        description = THERE.replace('at = "taken"\nerror = ["code"]\n', "")
        for sent_before in (False, True):
            with pytest.raises(Refused) as refused:
                await Described(description, self.server).released([{"a": 1}, {"a": 2}], sent_before=sent_before)
            assert refused.value.blame is Blame.PAYLOAD
        found = await Described(description, self.server).settled([{"a": 2}], sent_before=True)
        assert (found.task_ids, found.errors) == ([""], {})


class TestBodies:
    async def test_one_that_is_too_long_is_not_sent_but_halved(self):
        described = Described(BY_INDEX, all_or_none)
        with pytest.raises(Refused) as refused:
            await described.released([{"a": 10**10 + at} for at in range(4)])
        assert (refused.value.blame, refused.value.too_large) == (Blame.PAYLOAD, True)
        assert not described.wire.seen

    async def test_a_record_that_is_too_long_alone_is_not_sent_either(self):
        described = Described(BY_INDEX, all_or_none)
        with pytest.raises(Refused, match=r"would have 119 bytes, and service\.limit\.bytes is 60") as refused:
            await described.released([{"a": 1, "b": "x" * 100}])
        assert refused.value.blame is Blame.PAYLOAD, "it fails, being alone"
        assert not described.wire.seen


class TestFailuresAfterASuccess:
    RULES = '[[rules]]\nstatus = [422]\nmeans = "whole"\n'

    @staticmethod
    def server(second):
        def answer(seen):
            if len(seen.json) == 2:
                return 200, {"items": [{"id": "a"}, {"busy": True}]}
            return second

        return answer

    async def test_a_refusal_fails_what_was_left(self):
        described = Described(KEYED + self.RULES, self.server((422, {"message": "no"})))
        found = await described.settled([{"a": 1}, {"a": 2}])
        assert found.task_ids == ["a", None]
        assert found.errors[1].startswith("the service was busy, and then its call failed")

    async def test_where_a_repeat_is_harmless_all_of_it_is_repeated_later(self):
        described = Described(KEYED, self.server((503, {"message": "down"})))
        with pytest.raises(Unavailable) as failure:
            await described.released([{"a": 1}, {"a": 2}])
        assert failure.value.earlier_lost

    async def test_where_it_is_not_what_was_lost_is_uncertain(self):
        description = KEYED.replace('again = "key"\nkey_header = "Idempotency-Key"', 'again = "never"')
        described = Described(description, self.server((500, {"message": "down"})))
        found = await described.settled([{"a": 1}, {"a": 2}])
        assert found.task_ids == ["a", None]
        assert list(found.uncertain) == [1]


IMPORTS = """
[record]
key = "k-${token}-${index}"
[release]
call = "POST /imports"
payload = true
again = "exists"
take = { id = "id" }
[status]
call = "GET /imports/${id}"
state = "state"
finished = ["done"]
[results]
of = "status"
items = "rows"
exists = { there = true }
"""


class TestWhatIsThereAlreadyByALaterResult:
    @staticmethod
    def server(seen):
        rows = [{"id": "a"}, {"there": True}]
        return (200, {"id": "i"}) if seen.method == "POST" else (200, {"state": "done", "rows": rows})

    async def test_it_fails_where_this_was_the_first_attempt(self):
        found = await Described(IMPORTS, self.server).settled([{"a": 1}, {"a": 2}])
        assert list(found.errors) == [1]

    async def test_it_is_ours_after_a_loss(self):
        described = Described(IMPORTS, self.server)
        described.wire.loses = [True]
        assert (await described.settled([{"a": 1}, {"a": 2}])).task_ids == ["a", ""]

    async def test_it_is_uncertain_where_another_process_released_the_batch(self):
        described = Described(IMPORTS, self.server)
        found = await described.service.settlement(described.asked([{"a": 1}, {"a": 2}], "i"))
        assert list(found.uncertain) == [1]

    async def test_so_it_is_of_uncertain_records_that_are_sent_again_as_a_job_of_their_own(self):
        description = IMPORTS.replace('again = "exists"', 'again = "never"')
        for parent, key in ((None, "errors"), ("before", "uncertain")):
            described = Described(description, self.server, parent=parent)
            found = await described.service.settlement(described.asked([{"a": 1}, {"a": 2}], "i"))
            assert list(getattr(found, key)) == [1]


async def test_the_fates_may_stand_in_the_last_status():
    described = Described(
        """
        [release]
        call = "POST /imports"
        payload = true
        take = { id = "job.id" }
        [status]
        call = "GET /imports/${id}"
        state = "state"
        finished = ["done"]
        [results]
        of = "status"
        items = "rows"
        match = "index"
        index = "row"
        first_index = 1
        error = ["why"]
        """,
        lambda seen: (
            (200, {"job": {"id": 7}})
            if seen.method == "POST"
            else (200, {"state": "done", "rows": [{"row": 2, "id": "b"}, {"row": 1, "why": "no"}]})
        ),
    )
    found = await described.settled([{"a": 1}, {"a": 2}])
    assert (found.task_ids, found.errors) == ([None, "b"], {0: "no"})


async def test_a_look_calls_what_the_description_says_or_else_the_address():
    described = Described(BY_INDEX, lambda seen: (404, {"message": "nothing here"}))
    assert "something answers" in await described.service.look()
    described = Described(BY_INDEX + '[look]\ncall = "GET /health"\n', lambda seen: (200, b"ok"))
    assert await described.service.look() == "the service answers the call of [service.look]"
    assert described.wire.seen[0].path == "/health"


async def test_a_value_that_was_taken_leads_nowhere_else():
    def server(seen):
        return (200, {"id": ".."}) if seen.method == "POST" else (200, {"state": "done"})

    described = Described(JOBS, server)
    service = described.service
    for name in ("..", ".", ""):
        with pytest.raises(UnexpectedAnswer):
            await service.remote_status(name)
    assert not described.wire.seen
    server_seen = Described(JOBS, lambda seen: (200, {"state": "Open"}))
    await server_seen.service.remote_status("a/b?c#d")
    assert server_seen.wire.seen[0].path == "/jobs/a%2Fb%3Fc%23d"


async def test_one_record_goes_to_an_address_of_its_own_and_may_go_twice():
    documents = {}

    def put(seen):
        documents[seen.path] = seen.json
        return 200, {"ok": True, "id": seen.path.rpartition("/")[2], "rev": "1-x"}

    described = Described(
        """
        [record]
        key = "${task.id}"
        [body]
        framing = "single"
        [release]
        call = "PUT /docs/${key}"
        payload = true
        again = "safe"
        [results]
        ok = { ok = true }
        """,
        put,
    )
    settlement = await described.settled([{"id": "a b", "n": 1}])
    assert documents == {"/docs/a%20b": {"id": "a b", "n": 1}}
    assert settlement.task_ids == ["a%20b"]
    assert described.service.limits.records == 1


COUNTED = """
record = { key = "${task.id}" }
release = { call = "POST /documents", payload = true, again = "safe", take = { id = "taskUid" } }
[status]
call = "GET /tasks/${id}"
state = "status"
finished = ["succeeded"]
failed = ["failed"]
error = ["error.message"]
[results]
of = "status"
format = "count"
items = "details.indexed"
"""
UNNAMED = """
record = { key = "${task.id}" }
release = { call = "PUT /points", payload = true, again = "safe" }
results = { missing = "created" }
"""
TWO = [{"id": "a"}, {"id": "b"}]


class TestAnswersThatNameNobody:
    @pytest.mark.parametrize(
        ("status", "ids", "errors", "uncertain"),
        [
            ({"status": "succeeded", "details": {"indexed": 2}}, ["a", "b"], {}, 0),
            ({"status": "succeeded", "details": {"indexed": 1}}, [None, None], {}, 2),
            (
                {"status": "failed", "details": {"indexed": 0}, "error": {"message": "no id"}},
                [None, None],
                {0: "no id", 1: "no id"},
                0,
            ),
            ({"status": "failed", "details": {"indexed": 1}, "error": {"message": "no id"}}, [None, None], {}, 2),
        ],
    )
    async def test_a_count_in_a_status_calls_records_by_their_keys(self, status, ids, errors, uncertain):
        def server(seen):
            return (202, {"taskUid": 7}) if seen.method == "POST" else (200, status)

        found = await Described(COUNTED, server).settled(TWO)
        assert (found.task_ids, found.errors, len(found.uncertain)) == (ids, errors, uncertain)

    @pytest.mark.parametrize("body", [{"status": "ok"}, b"", [], {}])
    async def test_a_success_that_names_nobody_counts_for_all_where_the_description_says_so(self, body):
        found = await Described(UNNAMED, lambda seen: (200, body)).settled(TWO)
        assert found.task_ids == ["a", "b"]

    async def test_a_list_that_is_too_short_is_no_answer_that_names_nobody(self):
        with pytest.raises(UnexpectedAnswer):
            await Described(UNNAMED, lambda seen: (200, [{"id": 1}])).settled(TWO)

    async def test_without_that_word_it_says_nothing(self):
        text = UNNAMED.replace('missing = "created"', "")
        for body in ({"status": "ok"}, b"", []):
            with pytest.raises(UnexpectedAnswer):
                await Described(text, lambda seen, body=body: (200, body)).settled(TWO)


@pytest.mark.parametrize("named", [{"id": ".."}, {"id": "a", "by": "two\nlines"}])
async def test_a_record_that_no_call_can_name_fails_and_is_not_in_doubt(named):
    described = Described(
        """
        [record]
        key = "${task.id}"
        [body]
        framing = "single"
        [release]
        call = "PUT /docs/${key}"
        headers = { X-By = "${task.by}" }
        payload = true
        """,
        lambda seen: (200, {"id": "x"}),
    )
    with pytest.raises(Refused, match="it was not sent") as refused:
        await described.settled([{"by": "me", **named}])
    assert refused.value.blame is Blame.PAYLOAD
    assert not described.wire.seen
