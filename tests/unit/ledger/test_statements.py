from engine.ledger.statements import QUERIES, REMOVED_TABLES, read_queries, read_steps, with_removals


def test_the_loader_finds_names_and_statements():
    text = "-- a header\n\n-- name: one\n-- It is one.\nSELECT 1;\n\n-- name: two\n-- It is two.\nSELECT\n  2;\n"
    assert read_queries(text) == {"one": "SELECT 1;", "two": "SELECT\n  2;"}
    steps = read_steps("-- a header\n\n-- version 1: first\nA;\n-- aside\nB;\n\n-- version 2: second\nC;\n")
    assert steps == ["A;\n-- aside\nB;\n\n", "C;\n"]


def test_the_removal_of_rows_is_a_statement_for_each_table():
    some = "DELETE FROM {table} WHERE ({key}) IN (SELECT {key} FROM {table})"
    removals = with_removals({"remove_some": some, "other": "SELECT 1"})
    assert removals.keys() == {"other", *(f"remove_{table}" for table in REMOVED_TABLES)}
    assert removals["remove_samples"] == "DELETE FROM samples WHERE (run, at) IN (SELECT run, at FROM samples)"
    assert removals.keys() - {"other"} <= QUERIES.keys()
