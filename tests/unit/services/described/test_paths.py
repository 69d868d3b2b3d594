import pytest

from engine.services.described.paths import MISSING, compiled, fitting, parts_of, words_at

VALUE = {"response": {"body": {"id": "r1"}, "codes": [200, 201]}, "a.b": {"c": 1}, "0": "zero", "none": None}


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("response.body.id", "r1"),
        ("response.codes.0", 200),
        ("response.codes.-1", 201),
        ("response.codes.2", MISSING),
        ('"a.b".c', 1),
        ("0", "zero"),
        ("none", None),
        ("none.more", MISSING),
        ("response.body.id.more", MISSING),
        ("response.body.id.0", MISSING),  # a letter of a text is no value in it
        ("absent", MISSING),
        ("=not processed", "not processed"),
        ("=", ""),
        ("", VALUE),
    ],
)
def test_a_path_finds_what_stands_there_or_says_that_nothing_does(path, found):
    assert compiled(path)(VALUE) == found


def test_a_star_is_the_only_value_of_an_object():
    item = {"create": {"_id": "7", "status": 201}}
    assert compiled("*._id")(item) == "7"
    assert compiled("*._id")({"create": {}, "index": {}}) is MISSING
    assert compiled("*")(["a"]) is MISSING


@pytest.mark.parametrize("value", [None, 1, "text", [], [1], {}, True, 1.5])
def test_no_answer_is_an_error(value):
    for path in ("a", "a.b", "0", "*", "a.0.*"):
        assert compiled(path)(value) in (MISSING, 1)


@pytest.mark.parametrize("path", ["a..b", ".a", "a.", 'a"b', '"a', '"a"b', "."])
def test_what_cannot_be_read_is_told(path):
    with pytest.raises(ValueError, match="is no path"):
        compiled(path)


def test_a_name_in_quotes_may_hold_quotes():
    assert parts_of(r'"a\"b".c') == ('a"b', "c")


@pytest.mark.parametrize("nothing", [None, "", [], {}, False])
def test_words_of_an_error_are_the_first_that_say_anything(nothing):
    words = words_at(["error.message", "errors", "code"])
    assert words({"error": {"message": nothing}, "errors": nothing}) == ""
    assert words({"error": nothing, "errors": ["bad", 1]}) == '["bad",1]'
    assert words({"error": nothing, "errors": nothing, "code": 0}) == "0"
    assert words({"error": {"message": "why"}}) == "why"


def test_conditions_compare_as_texts_since_a_table_has_no_types():
    assert fitting({"*.status": [200, 201]})({"create": {"status": 201}})
    assert fitting({"status": 200})({"status": "200"})
    assert fitting({"sf__Created": True})({"sf__Created": "true"})
    assert not fitting({"done": True})({"done": 1})
    assert not fitting({"status": [200]})({})
    assert not fitting({"a": 1, "b": 2})({"a": 1})
    assert fitting({"task": "*"})({"task": {"id": 1}})
    assert not fitting({"task": "*"})({"task": None})
    assert fitting({})({})
