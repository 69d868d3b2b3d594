import pytest

from engine.model.settings import SecretStr
from engine.services.base import Column
from engine.services.sevenbridges.proposing import propose_mapping
from engine.services.sevenbridges.settings import SevenBridgesSettings

SETTINGS = SevenBridgesSettings(kind="sevenbridges", auth_token=SecretStr("k"), project="o/p", app="o/p/align")
ID = "567890abc9b0307bc0414164"


def proposed(settings=SETTINGS, **columns):
    """Propose for columns by name → value."""
    listed = [Column(name, "string", [value], textual=True) for name, value in columns.items()]
    return propose_mapping(listed, settings).mapping.get("template")


def file(column):
    return {"class": "File", "name": f"${{row.{column}}}"}


@pytest.mark.parametrize("value", ["a.bam", "runs/S1/a_1.fastq.gz", "x-1.vcf.bz2", "readme.TXT"])
def test_a_name_with_an_extension_is_a_file(value):
    assert proposed(sample="S1", x=value)["inputs"]["x"] == file("x")


@pytest.mark.parametrize(
    "value", ["https://x.org/a.bam", "s3://b/a.bam", "a@b.org", "1.5", "v1.2.3", "plain", "a b.bam"]
)
def test_what_only_looks_like_one_is_a_value(value):
    assert proposed(sample="S1", x=value)["inputs"]["x"] == "${row.x}"


def test_an_id_is_a_file_by_its_path():
    assert proposed(sample="S1", x=ID)["inputs"]["x"] == {"class": "File", "path": "${row.x}"}


@pytest.mark.parametrize(
    ("first", "second", "name"),
    [("r1", "r2", "reads"), ("read_1", "read_2", "reads"), ("fastq_1", "fastq_2", "fastq"), ("R1", "R2", "reads")],
)
def test_two_files_of_a_pair_are_one_list(first, second, name):
    inputs = proposed(**{"sample": "S1", first: "a.fq", second: "b.fq"})["inputs"]
    assert inputs == {"sample": "${row.sample}", name: [file(first), file(second)]}


def test_columns_that_are_no_pair_stay_apart():
    inputs = proposed(sample="S1", r1="a.fq", r2="plain", x1="c.fq", reads="d.fq")["inputs"]
    assert inputs["r1"] == file("r1")
    assert inputs["x1"] == file("x1")


def test_a_task_is_called_after_its_sample_and_columns_of_a_spec_are_its_keys():
    assert proposed(x="1", sample_id="S1")["name"] == "align ${row.sample_id}"
    assert proposed(x="1", y="2")["name"] == "align ${row.x}"
    template = proposed(name="n", description="d", project="o/q", x="1")
    assert template == {
        "name": "${row.name}",
        "description": "${row.description}",
        "project": "${row.project}",
        "inputs": {"x": "${row.x}"},
    }


def test_the_column_that_a_task_is_called_after_is_a_text_whatever_its_values_are():
    columns = [Column("run", "integer", ["1"], textual=True), Column("n", "integer", ["2"], textual=True)]
    made = propose_mapping(columns, SETTINGS)
    assert made.mapping["template"]["name"] == "align ${row.run}"
    assert made.types == {"n": "integer"}


def test_rows_that_are_specs_are_tasks():
    assert proposed(name="n", inputs="{}") is None


def test_a_column_that_no_placeholder_can_name_is_left_out():
    assert proposed(**{"sample": "S1", "a}b": "1"})["inputs"] == {"sample": "${row.sample}"}
