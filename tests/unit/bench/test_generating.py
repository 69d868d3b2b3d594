from itertools import islice

import orjson
import pytest

from engine.bench.generating import generated
from engine.model.errors import ConfigError
from engine.model.settings import MappingSettings

PLAIN = MappingSettings()


def some(count, *what):
    return list(islice(generated(*what), count))


def test_the_same_seed_makes_the_same_bytes_and_another_one_others():
    assert some(50, "sama", PLAIN, 7) == some(50, "sama", PLAIN, 7)
    assert not set(some(50, "sama", PLAIN, 7)) & set(some(50, "sama", PLAIN, 8))


def test_a_sama_task_has_an_id_of_its_own_and_some_570_bytes():
    lines = some(1000, "sama", PLAIN, 1)
    assert len({orjson.loads(line)["data"]["id"] for line in lines}) == 1000
    assert all(b"\n" not in line for line in lines)
    assert 540 <= sum(map(len, lines)) / 1000 <= 600


def test_where_the_mapping_wraps_rows_a_row_is_made():
    (line,) = some(1, "sama", MappingSettings(wrap="data"), 1)
    assert "data" not in orjson.loads(line)
    assert "image" in orjson.loads(line)


def test_for_a_template_its_columns_are_made():
    template = {
        "name": "align ${row.sample}",
        "inputs": {"reads": [{"path": "${row.r1}"}, {"path": "${row.r1}"}], "n": 1},
    }
    first, second = (orjson.loads(line) for line in some(2, "sevenbridges", MappingSettings(template=template), 3))
    assert first.keys() == {"sample", "r1"}
    assert first["sample"] != second["sample"]


def test_tasks_that_depend_on_an_app_are_not_made_up():
    with pytest.raises(ConfigError, match=r"name a SOURCE with tasks, or write a \[mapping.template\]"):
        generated("sevenbridges", PLAIN, 1)
