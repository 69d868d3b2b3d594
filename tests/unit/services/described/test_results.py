"""What lists of results say of each record, by order, index and key; what does not fit is never a success."""

import io
from types import MappingProxyType

import pytest

from engine.model.errors import UnexpectedAnswer
from engine.services.base import Answer
from engine.services.described.results import (
    THERE_ALREADY,
    ListReader,
    RecordFates,
    csv_items,
    json_lines,
)
from engine.services.described.settings import ResultsTable

from .judged import NO_WORDS, fates, settled


class TestInOrder:
    def test_each_item_is_about_the_record_of_its_place(self):
        settlement = settled({"items": [{"id": "a"}, {"id": "b"}]}, items="items")
        assert (settlement.task_ids, settlement.errors, settlement.uncertain) == (["a", "b"], {}, {})

    def test_the_list_may_be_the_answer_itself(self):
        assert settled([{"id": "a"}, {"id": 7}]).task_ids == ["a", "7"]

    def test_an_error_means_no(self):
        found = settled([{"id": "a"}, {"error": {"message": "too long"}}], error=["error.message"])
        assert (found.task_ids, found.errors) == (["a", None], {1: "too long"})

    @pytest.mark.parametrize("nothing", [None, "", [], {}, False])
    def test_an_error_that_says_nothing_is_none(self, nothing):
        assert settled([{"id": "a", "error": nothing}, {"id": "b"}], error=["error"]).task_ids == ["a", "b"]

    @pytest.mark.parametrize(
        ("said", "shown"),
        [
            ("no", "no"),
            (["a", "b"], "a; b"),
            ({"message": "m", "code": 1}, "m"),
            ({"code": 1}, '{"code":1}'),
            (7, "7"),
            (["x"] * 12, "; ".join(["x"] * 10)),
            ("see https://h/p?token=secret-of-mine", "see https://h/p?***"),
        ],
    )
    def test_an_error_is_told_in_words(self, said, shown):
        assert settled([{"id": "a"}, {"error": said}], error=["error"]).errors == {1: shown}

    def test_the_first_path_that_is_there_is_taken(self):
        items = [{"x": {"id": "a"}}, {"id": "b", "x": None}]
        assert settled(items, id=["x.id", "id"]).task_ids == ["a", "b"]

    def test_ok_says_what_is_fine(self):
        items = [{"id": "a", "status": 201}, {"id": "b", "status": 400, "error": "bad"}]
        found = settled(items, ok={"status": [200, 201]}, error=["error"])
        assert (found.task_ids, found.errors) == (["a", None], {1: "bad"})

    def test_what_is_not_ok_and_has_no_words_is_told_by_its_value(self):
        found = settled([{"id": "a", "s": 200}, {"s": 400}], ok={"s": 200})
        assert found.errors == {1: "the service says s is 400"}

    def test_all_of_ok_must_hold(self):
        items = [{"id": "a", "s": 200, "t": "x"}, {"id": "b", "s": 200, "t": "y"}]
        found = settled(items, ok={"s": 200, "t": ["x"]})
        assert (found.task_ids, found.errors) == (["a", None], {1: "the service says s is 200, t is y"})

    @pytest.mark.parametrize("value", [1, "yes", None, [True], {"a": 1}])
    def test_true_is_nothing_but_true(self, value):
        found = settled([{"id": "a", "ok": True}, {"id": "b", "ok": value}], ok={"ok": True})
        assert list(found.errors) == [1]

    def test_one_is_not_true(self):
        found = settled([{"id": "a", "ok": 1}, {"id": "b", "ok": True}], ok={"ok": [1, 2]})
        assert list(found.errors) == [1]

    @pytest.mark.parametrize("item", [None, {}, "text", 7, []])
    def test_an_item_that_says_neither_yes_nor_no_is_uncertain(self, item):
        found = settled([{"id": "a", "s": 1}, item], ok={"s": 1})
        assert (found.task_ids, found.uncertain) == (["a", None], {1: NO_WORDS})

    @pytest.mark.parametrize("item", [{}, {"id": None}, {"id": ""}, {"id": True}, {"id": "a\nb"}, {"id": "x" * 201}, 3])
    def test_a_created_one_without_an_id_of_its_task_is_uncertain(self, item):
        found = settled([{"id": "a"}, item])
        assert found.task_ids == ["a", None]
        assert found.uncertain == {1: "the service calls it done and does not name its task"}

    def test_an_id_of_other_letters_is_one(self):
        assert settled([{"id": "a b/c"}, {"id": "ö"}]).task_ids == ["a b/c", "ö"]

    def test_where_no_id_is_to_be_found_the_key_is_one(self):
        assert settled([{}, {"error": "no"}], id=[], error=["error"]).task_ids == ["k0", None]

    def test_one_task_for_two_records_is_uncertain(self):
        found = settled([{"id": "a"}, {"id": "a"}, {"id": "b"}], count=3)
        assert (found.task_ids, list(found.uncertain)) == ([None, None, "b"], [0, 1])
        assert found.uncertain[0] == "the service names task a for another record, too"

    def test_an_upsert_may_name_one_task_twice(self):
        assert settled([{"id": "a"}, {"id": "a"}], unique_ids=False).task_ids == ["a", "a"]

    @pytest.mark.parametrize("body", [[], [{"id": "a"}], [{"id": "a"}] * 3])
    def test_another_number_of_items_settles_nothing(self, body):
        with pytest.raises(UnexpectedAnswer, match="2 records went up"):
            settled(body)

    @pytest.mark.parametrize("body", [{}, {"items": None}, {"items": {"a": 1}}, {"items": "x"}, [], "x", 7, None])
    def test_no_list_settles_nothing(self, body):
        with pytest.raises(UnexpectedAnswer, match="no list of results at 'items'"):
            settled(body, items="items")

    def test_several_lists_go_on_where_the_one_before_ends(self):
        reader, gathered = ListReader(ResultsTable(id=("id",))), RecordFates(3, list)
        for items in ([{"id": "a"}], [{"id": "b"}, {"id": "c"}]):
            reader.add_value(items, gathered)
        assert gathered.settlement("error", earlier=False).task_ids == ["a", "b", "c"]


class TestThereAlready:
    RULES = MappingProxyType({"ok": {"s": 201}, "exists": {"s": 409}, "error": ["why"]})

    def test_it_fails_where_no_earlier_attempt_may_have_arrived(self):
        found = settled([{"id": "a", "s": 201}, {"id": "b", "s": 409, "why": "conflict"}], **self.RULES)
        assert (found.task_ids, found.errors) == (["a", None], {1: f"{THERE_ALREADY} (conflict)"})

    def test_it_is_created_where_one_may_have(self):
        found = settled([{"id": "a", "s": 201}, {"id": "b", "s": 409}], earlier=True, **self.RULES)
        assert (found.task_ids, found.errors) == (["a", "b"], {})

    def test_it_is_called_by_its_key_then_where_the_service_does_not_name_it(self):
        assert settled([{"id": "a", "s": 201}, {"s": 409}], earlier=True, **self.RULES).task_ids == ["a", "k1"]

    def test_unless_keys_are_no_ids_of_the_service(self):
        items = [{"id": "a", "s": 201}, {"s": 409}]
        found = settled(items, earlier=True, keys_are_ids=False, **self.RULES)
        assert (found.task_ids, found.created) == (["a", ""], 2)
        assert settled([{"s": 409}] * 2, earlier=True, keys_are_ids=False, **self.RULES).task_ids == ["", ""]
        assert list(settled(items, keys_are_ids=False, **self.RULES).errors) == [1]

    def test_a_list_of_failures_may_name_its_task(self):
        failures = {"items": "e", "key": "k", "exists": {"code": "taken"}, "id": ["of.id"], "error": ["code"]}
        body = {"r": [{"id": "a", "k": "k0"}], "e": [{"k": "k1", "code": "taken", "of": {"id": 7}}]}
        rules = {"count": 2, "items": "r", "match": "key", "key": "k", "failures": failures, "keys_are_ids": False}
        found = settled(body, earlier=True, **rules)
        assert found.task_ids == ["a", "7"]
        assert settled(body, **rules).errors == {1: f"{THERE_ALREADY} (taken)"}
        del body["e"][0]["of"]
        assert settled(body, earlier=True, **rules).task_ids == ["a", ""]

    def test_without_ok_it_is_no_success(self):
        found = settled([{"id": "a"}, {"id": "b", "s": 409}], exists={"s": 409})
        assert found.errors == {1: THERE_ALREADY}


class TestBusy:
    def test_it_is_told_apart_and_counts_as_failed(self):
        items = [{"id": "a", "s": 201}, {"s": 429, "why": "slow"}, {"s": 503}]
        found, busy = fates(items, count=3, ok={"s": 201}, busy={"s": [429, 503]}, error=["why"])
        assert (busy, found.task_ids) == ([1, 2], ["a", None, None])
        assert found.errors == {1: "slow", 2: "the service was busy (s is 503)"}


class TestByIndex:
    def test_each_item_says_which_record_it_is_about(self):
        items = [{"id": "b", "at": 1}, {"id": "a", "at": "0"}]
        assert settled(items, match="index", index="at").task_ids == ["a", "b"]

    def test_an_object_has_the_index_as_its_key(self):
        assert settled({"x": {"1": {"id": "b"}, "0": {"id": "a"}}}, items="x", match="index").task_ids == ["a", "b"]

    @pytest.mark.parametrize("place", ["x", "", None, 1.0, True, [1], "9" * 70])
    def test_an_item_of_no_record_makes_those_that_are_left_uncertain(self, place):
        found = settled([{"id": "a", "at": 0}, {"id": "b", "at": place}], match="index", index="at", missing="created")
        assert (found.task_ids, list(found.uncertain)) == (["a", None], [1])
        assert "that no record has" in found.uncertain[1]
        assert found.note.startswith("the results hold 1 item(s)")

    def test_a_place_below_zero_is_nobodys_and_says_nothing_of_the_others(self):
        items = [{"id": "a", "at": 0}, {"id": "b", "at": 1}, {"id": "c", "at": -1}]
        assert settled(items, match="index", index="at").task_ids == ["a", "b"]

    @pytest.mark.parametrize("place", [2, 99, "2"])
    def test_a_place_that_the_batch_does_not_have_disproves_the_others(self, place):
        items = [{"id": "a", "at": 0}, {"id": "b", "at": 1}, {"id": "c", "at": place}]
        with pytest.raises(UnexpectedAnswer, match=rf"the place {place}, .* are 0 to 1: .*first_index"):
            settled(items, match="index", index="at")

    @pytest.mark.parametrize(("told", "counted"), [(0, 1), (1, 0)])
    @pytest.mark.parametrize("missing", ["error", "created", "not made in time"])
    def test_a_service_that_counts_from_another_number_than_is_told_settles_nothing(self, told, counted, missing):
        body = {
            "made": [{"id": f"t{at}", "at": at + counted} for at in (0, 1, 3)],
            "bad": [{"at": 2 + counted, "why": "no"}],
        }
        rules = {"items": "made", "index": "at", "failures": {"items": "bad", "index": "at", "error": ["why"]}}
        with pytest.raises(UnexpectedAnswer, match="first_index"):
            settled(body, count=4, match="index", first_index=told, missing=missing, **rules)
        found = settled(body, count=4, match="index", first_index=counted, missing=missing, **rules)
        assert (found.task_ids, found.errors) == (["t0", "t1", None, "t3"], {2: "no"})

    def test_a_record_that_no_item_names_is_uncertain(self):
        found = settled([{"id": "a", "at": 0}], match="index", index="at")
        assert found.uncertain == {1: "the results do not name it"}

    def test_unless_only_those_are_listed_that_failed(self):
        rules = {"items": "errors", "match": "index", "index": "at", "error": ["why"], "id": [], "missing": "created"}
        found = settled({"errors": [{"at": 1, "why": "no"}]}, **rules)
        assert (found.task_ids, found.errors) == (["k0", None], {1: "no"})
        assert settled({}, **rules).task_ids == ["k0", "k1"]
        with pytest.raises(UnexpectedAnswer):
            settled("a page", **rules)
        rules["items"] = "failed"
        assert settled({"errors": False, "error": None}, **rules).task_ids == ["k0", "k1"]
        for wrong in ({"error": {"message": "gone"}}, {"error": "gone"}, {"errors": [{"title": "gone"}]}):
            with pytest.raises(UnexpectedAnswer, match=r"its error is: .*gone"):
                settled(wrong, **rules)

    def test_or_it_has_failed_as_the_description_says(self):
        found = settled([{"id": "a", "at": 0}], match="index", index="at", missing="not made in time")
        assert found.errors == {1: "not made in time"}

    def test_named_twice_and_not_alike_it_is_uncertain(self):
        items = [{"id": "a", "at": 0}, {"id": "b", "at": 1}, {"id": "c", "at": 1}]
        found = settled(items, match="index", index="at")
        assert (found.task_ids, found.uncertain) == (["a", None], {1: "the results name it twice, and not alike"})


class TestByKey:
    RULES = MappingProxyType({"match": "key", "key": "k", "error": ["why"]})

    def test_the_order_does_not_matter(self):
        assert settled([{"k": "k1", "id": "b"}, {"k": "k0", "id": "a"}], **self.RULES).task_ids == ["a", "b"]

    def test_an_object_has_them_as_its_keys(self):
        assert settled({"k1": {"id": "b"}, "k0": {"id": "a"}}, match="key").task_ids == ["a", "b"]

    def test_a_key_may_be_a_number(self):
        items = [{"k": 8, "id": "b"}, {"k": 7, "id": "a"}]
        assert settled(items, keys=["7", "8"], **self.RULES).task_ids == ["a", "b"]

    def test_yes_and_no_for_one_record_are_uncertain(self):
        items = [{"k": "k0", "id": "a"}, {"k": "k1", "id": "b"}, {"k": "k1", "why": "no"}]
        assert list(settled(items, **self.RULES).uncertain) == [1]

    def test_the_same_said_twice_is_one_word(self):
        items = [{"k": "k0", "id": "a"}, {"k": "k0", "id": "a"}, {"k": "k1", "why": "no"}, {"k": "k1", "why": "no"}]
        found = settled(items, **self.RULES)
        assert (found.task_ids, found.errors) == (["a", None], {1: "no"})

    def test_twice_done_without_an_id_is_uncertain(self):
        found = settled([{"k": "k0"}, {"k": "k0"}, {"k": "k1"}], id=[], **self.RULES)
        assert (found.task_ids, list(found.uncertain)) == ([None, "k1"], [0])

    def test_a_stray_item_beside_all_records_is_noted(self):
        items = [{"k": "k0", "id": "a"}, {"k": "k1", "id": "b"}, {"k": "zz", "id": "c"}, {"id": "d"}]
        found = settled(items, **self.RULES)
        assert found.task_ids == ["a", "b"]
        assert "2 item(s), such as 'zz'" in found.note

    def test_records_that_share_a_key_are_settled_only_where_all_is_said_alike(self):
        items = [{"k": "x", "id": "a"}, {"k": "y", "id": "b"}, {"k": "x", "id": "a"}]
        keys = ["x", "x", "y"]
        assert settled(items, count=3, keys=keys, unique_ids=False, **self.RULES).task_ids == ["a", "a", "b"]
        found = settled([*items[:2], {"k": "x", "why": "no"}], count=3, keys=keys, **self.RULES)
        assert (found.task_ids, list(found.uncertain)) == ([None, None, "b"], [0, 1])
        found = settled(items[:2], count=3, keys=keys, **self.RULES)
        assert list(found.uncertain) == [0, 1]


class TestListsOfFailures:
    def test_by_key_beside_those_created(self):
        body = {"results": [{"k": "k1", "id": "b"}], "errors": [{"c": {"k": ["k0"]}, "message": "no"}]}
        found = settled(
            body,
            items="results",
            match="key",
            key="k",
            failures={"items": "errors", "key": "c.k.0", "error": ["message"]},
        )
        assert (found.task_ids, found.errors) == ([None, "b"], {0: "no"})

    def test_one_without_words_has_failed_all_the_same(self):
        body = {"r": [{"id": "b"}], "e": [{"at": 0}]}
        found = settled(body, items="r", failures={"items": "e", "index": "at", "error": ["message"]})
        assert found.errors == {0: "the service lists it among those that failed"}

    def test_one_failure_may_name_several_records(self):
        body = {"r": [{"id": "b", "k": "k1"}], "e": [{"k": ["k0", "k2"], "message": "no such field"}, {"k": ["k3"]}]}
        failures = {"items": "e", "key": "k", "error": ["message"]}
        found = settled(body, count=4, items="r", match="key", key="k", failures=failures)
        assert found.task_ids == [None, "b", None, None]
        assert found.errors == {
            0: "no such field",
            2: "no such field",
            3: "the service lists it among those that failed",
        }

    def test_failures_may_be_an_object_by_place(self):
        body = {"items": {"0": {"id": "a"}, "2": {"id": "c"}}, "errors": {"1": {"text": {"message": "too long"}}}}
        failures = {"items": "errors", "error": ["*.message"]}
        found = settled(body, count=3, items="items", match="index", failures=failures)
        assert (found.task_ids, found.errors) == (["a", None, "c"], {1: "too long"})

    def test_those_in_order_are_the_others(self):
        body = {"issues": [{"id": "a"}, {"id": "c"}], "errors": [{"n": 1, "why": "no"}]}
        rules = {"items": "issues", "failures": {"items": "errors", "index": "n", "error": ["why"]}}
        found = settled(body, count=3, **rules)
        assert (found.task_ids, found.errors) == (["a", None, "c"], {1: "no"})
        with pytest.raises(UnexpectedAnswer, match="beside 1 that are named otherwise"):
            settled(body, count=4, **rules)

    def test_either_list_may_be_left_out(self):
        rules = {"items": "r", "failures": {"items": "e", "index": "at", "error": ["why"]}}
        assert settled({"r": [{"id": "a"}, {"id": "b"}]}, **rules).task_ids == ["a", "b"]
        assert settled({"e": [{"at": 0, "why": "x"}, {"at": 1, "why": "y"}]}, **rules).errors == {0: "x", 1: "y"}


class TestFirstPlace:
    @pytest.mark.parametrize(
        ("format_", "body"),
        [
            ("ndjson", b'\n{"k": "a", "id": 1}\n{"k": "b"}\n'),
            ("csv", b"k,id\na,1\nb,2\n"),
            ("json", b'{"items": [{"k": "a"}, {"k": "b"}]}'),
        ],
    )
    def test_it_is_the_key_of_the_first_item(self, format_, body):
        items = "items" if format_ == "json" else ""
        reader = ListReader(ResultsTable(match="key", key="k", format=format_, items=items))
        assert reader.first_place(io.BytesIO(body)) == "a"

    @pytest.mark.parametrize(
        ("format_", "body"), [("ndjson", b""), ("csv", b"k\n"), ("json", b"[]"), ("json", b"[{}]")]
    )
    def test_without_one_there_is_none(self, format_, body):
        assert ListReader(ResultsTable(match="key", key="k", format=format_)).first_place(io.BytesIO(body)) == ""


class TestFormats:
    def test_a_list_of_ids(self):
        assert settled(["a", 7], format="ids").task_ids == ["a", "7"]
        assert list(settled(["a", None], format="ids").uncertain) == [1]

    def test_a_number(self):
        rules = {"format": "count", "items": "n", "id": []}
        assert settled({"n": 2}, **rules).task_ids == ["k0", "k1"]
        assert list(settled({"n": 1}, **rules).uncertain) == [0, 1]
        for body in ({}, {"n": "2"}, {"n": True}, []):
            with pytest.raises(UnexpectedAnswer):
                settled(body, **rules)

    def test_lines_of_json(self):
        assert json_lines(b'{"a":1}\n{"a":2}\r\n\n {"a":3}\n') == [{"a": 1}, {"a": 2}, {"a": 3}]
        assert json_lines(b' \n{"a":"x\\ny"}\n') == [{"a": "x\ny"}]
        assert json_lines(b"\n") == []
        with pytest.raises(UnexpectedAnswer):
            json_lines(b'{"a":1}\n{"a":')

    def test_rows(self):
        text = 'sf__Id,Account.Name,Note\n1,"a, b","x\ny"\n\n2,c\n'
        rows = list(csv_items(text.splitlines(keepends=True)))
        assert rows == [
            {"sf__Id": "1", "Account.Name": "a, b", "Note": "x\ny"},
            {"sf__Id": "2", "Account.Name": "c"},
        ]
        assert list(csv_items(["key\n"])) == list(csv_items(["key\n"], column="key")) == []
        for nothing in ([], ["\n"]):
            for column in ("", "key"):
                with pytest.raises(UnexpectedAnswer, match="no header line"):
                    list(csv_items(nothing, column=column))
        with pytest.raises(UnexpectedAnswer, match="no column 'key'"):
            list(csv_items(["a,b\n"], column="key"))
        with pytest.raises(UnexpectedAnswer):
            list(csv_items(["a\n", "b\rc\n"]))

    @pytest.mark.parametrize("missing", ["created", "error", "it was not processed"])
    @pytest.mark.parametrize("match", ["order", "key", "index"])
    def test_an_empty_file_decides_nothing(self, match, missing):
        table = ResultsTable(format="csv", match=match, key="K", index="I", missing=missing)
        gathered = RecordFates(1, lambda: ["k0"])
        with pytest.raises(UnexpectedAnswer, match="no header line"):
            ListReader(table).add(Answer(200, {}, b""), gathered)
        with pytest.raises(UnexpectedAnswer, match="no header line"):
            ListReader(table).add_file(io.BytesIO(b""), gathered)
        with pytest.raises(UnexpectedAnswer, match="no header line"):
            ListReader(table).first_place(io.BytesIO(b""))

    def test_a_path_in_a_row_is_a_column_and_its_values_are_texts(self):
        table = ResultsTable(
            format="csv", match="key", key="Account.Key", id=["sf__Id"], ok={"Done": True, "Code": 200}, error=["Error"]
        )
        text = b"\xef\xbb\xbfAccount.Key,sf__Id,Done,Code,Error\r\nk1,b,true,200,\r\nk0,,false,200,no\r\n"
        gathered = RecordFates(2, lambda: ["k0", "k1"])
        ListReader(table).add(Answer(200, {}, text), gathered)
        found = gathered.settlement("error", earlier=False)
        assert (found.task_ids, found.errors) == ([None, "b"], {0: "no"})
