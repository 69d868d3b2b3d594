import orjson
import pytest
from msgspec.structs import replace

from engine.model.errors import ConfigError, Refused
from engine.services.sevenbridges.drafts import REFERENCE, draft_reference, sequence_in
from engine.services.sevenbridges.specs import body_of, exact, merged, spec_flaw

from .scripted import APP, JOB, PROJECT, SPEC, a_batch, service

BIG = "123456789012345678901234567890"
ITEM = {"type": "ITEM"}
CRITERIA = {"type": "CRITERIA", "criteria": ["metadata.library_id", "metadata.sample_id"]}
READS = {"reads": [{"class": "File", "path": "1"}]}


def nested(levels):
    return [nested(levels - 1)] if levels else []


# Specs that the service takes


@pytest.mark.parametrize(
    "spec",
    [
        {},
        {"app": f"{APP}/7", "name": "RFranklin, Experiment IV", "description": "my draft task"},
        {"inputs": {"reads": {"class": "File", "path": "567890abc9b0307bc0414164", "name": "x.vcf"}, "threads": 4}},
        {"inputs": {"reads": [{"class": "File", "name": "x.fastq"}], "index": {"class": "Directory", "path": "9"}}},
        {"inputs": {"reads": {"class": "File", "path": "", "name": "x.fastq"}}},
        {
            "inputs": {
                "reads": {"class": "File", "name": "folder/sub/x.fastq"},
                "r": {"class": "Directory", "name": "f/s"},
            }
        },
        {"inputs": {"reads": {"class": "File", "path": "1", "name": "/odd//name/"}}},
        {"inputs": {"record": {"class": "sheep", "legs": 4}, "none": None, "deep": nested(150)}},
        {"batch": True},
        {"batch": False},
        {"batch_input": "reads", "batch_by": ITEM, "inputs": READS},
        {"batch_input": "reads", "batch_by": {"type": "item"}},
        {"batch": True, "batch_input": "reads", "batch_by": CRITERIA, "inputs": READS},
        {"batch_input": "reads", "batch_by": {"type": "criteria", "criteria": [f"metadata.f{n}" for n in range(30)]}},
        {"use_interruptible_instances": True, "execution_settings": {"instance_type": "c4.2xlarge;ebs-gp2;2000"}},
        {"output_location": {"main_location": "results"}},
        {"name": None, "bath": None},
    ],
)
def test_a_spec_that_the_service_takes_passes(spec):
    assert service().check({**SPEC, **spec}) is None


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ({"bath": True}, "bath: not a key of a task, but a misprint of the vendor's page; did you mean 'batch'?"),
        ({"input": {}}, "input: not a key of a task; did you mean 'inputs'?"),
        ({"sample": 1}, 'sample: not a key of a task; the app\'s inputs belong under "inputs"'),
        ({"run": True}, "run: not a key of a task; it stands in the configuration (service.run)"),
        ({"project": None}, "project: missing; write it into the record, or as service.project for all of them"),
        ({"app": None}, "app: missing"),
        ({"project": "project"}, "project: 'project' is not owner/project"),
        ({"app": PROJECT}, "app: 'owner/project' is not owner/project/app, with or without /revision"),
        ({"name": 5}, "name: must be a text, not 5"),
        ({"batch": "true"}, "batch: must be true or false, not 'true'"),
        ({"use_interruptible_instances": 1}, "use_interruptible_instances: must be true or false, not 1"),
        ({"inputs": []}, "inputs: must be an object, not []"),
        ({"execution_settings": "c4"}, "execution_settings: must be an object, not 'c4'"),
        ({"batch_by": "ITEM"}, "batch_by: must be an object, not 'ITEM'"),
        ({"batch_input": "", "batch_by": ITEM}, "batch_input: is empty; it names an input of the app"),
        ({"batch_input": "reads"}, "batch_input: batch_input and batch_by go together"),
        ({"batch_by": ITEM}, "batch_by: batch_input and batch_by go together"),
        ({"batch": False, "batch_input": "r", "batch_by": ITEM}, "batch_input: does not go with batch = false"),
        ({"batch_input": "r", "batch_by": {"type": "FILE"}}, "batch_by.type: must be 'ITEM' or 'CRITERIA', not 'FILE'"),
        ({"batch_input": "r", "batch_by": {}}, "batch_by.type: must be 'ITEM' or 'CRITERIA', not None"),
        ({"batch_input": "r", "batch_by": {"type": "CRITERIA"}}, "batch_by.criteria: must be a list such as"),
        ({"batch_input": "r", "batch_by": {"type": "CRITERIA", "criteria": []}}, "batch_by.criteria: must be a list"),
        (
            {"batch_input": "r", "batch_by": {"type": "CRITERIA", "criteria": ["sample_id"]}},
            "batch_by.criteria: 'sample_id' is not metadata.<field>; did you mean 'metadata.sample_id'?",
        ),
        (
            {"batch_input": "r", "batch_by": {"type": "CRITERIA", "criteria": ["metadata."]}},
            "batch_by.criteria: 'metadata.' is not",
        ),
        (
            {"batch_input": "r", "batch_by": {"type": "CRITERIA", "criteria": [5]}},
            "batch_by.criteria: 5 is not metadata.<field>",
        ),
        ({"batch_input": "r", "batch_by": {**CRITERIA, "type": "ITEM"}}, "batch_by.criteria: only goes with type"),
        ({"batch_input": "r", "batch_by": {**ITEM, "by": 1}}, "batch_by.by: not a key of batch_by"),
        ({"batch_input": "r", "batch_by": ITEM, "inputs": {"r": 1}}, "inputs.r: must be a list, because batch_input"),
        ({"inputs": {"r": {"class": "File"}}}, "inputs.r: needs path, the id of a file, or a name to find it by"),
        ({"inputs": {"r": [{}, {"class": "Directory", "path": ""}]}}, "inputs.r[1]: needs path, the id of a directory"),
        ({"inputs": {"r": {"class": "File", "path": 17}}}, "inputs.r.path: must be a file's id, in quotes, not 17"),
        ({"inputs": {"r": {"class": "File", "name": "/x"}}}, "inputs.r.name: '/x' is neither a name nor folder/name"),
        ({"inputs": {"r": {"class": "File", "name": "a//x"}}}, "inputs.r.name: 'a//x' is neither a name nor"),
        ({"inputs": {"r": {"class": "Directory", "name": "a/"}}}, "inputs.r.name: 'a/' is neither a name nor"),
        ({"inputs": {"r": {"class": "file", "path": "1"}}}, "inputs.r.class: 'file' must be written 'File'"),
        ({"inputs": {"r": {"x": {"class": "File", "name": ""}}}}, "inputs.r.x: needs path"),
        ({"inputs": {"r": nested(250)}}, "inputs.r[0][0]"),
        ({"name": ["x" * 1000]}, "name: must be a text, not ['xxx"),
    ],
)
def test_a_spec_that_the_service_would_not_take_is_told_with_its_field(spec, reason):
    said = service().check({**SPEC, **spec})
    assert said.startswith(reason)
    assert len(said) < 200


# Defaults


def test_a_spec_gets_the_defaults_that_it_lacks():
    defaults = {"project": PROJECT, "app": APP, "name": "n", "inputs": {"genome": "hg19", "threads": 4}}
    assert merged({"name": "own", "inputs": {"threads": 8}}, defaults) == {
        "project": PROJECT,
        "app": APP,
        "name": "own",
        "inputs": {"genome": "hg19", "threads": 8},
    }
    assert defaults["inputs"] == {"genome": "hg19", "threads": 4}


def test_null_is_as_good_as_lacking_but_an_input_may_be_null():
    whole = merged({"name": None, "app": None, "inputs": {"threads": None}}, {"app": APP, "inputs": {"threads": 4}})
    assert whole == {"app": APP, "inputs": {"threads": None}}


def test_a_spec_without_batching_is_not_given_the_default_way_of_it():
    defaults = {"batch": True, "batch_input": "reads", "batch_by": ITEM, **SPEC}
    whole = merged({"batch": False}, defaults)
    assert whole == {**SPEC, "batch": False}
    assert spec_flaw(whole) is None


def test_a_spec_may_change_one_half_of_the_default_batching():
    whole = merged({"batch_by": CRITERIA}, {"batch_input": "reads", "batch_by": ITEM, **SPEC})
    assert (whole["batch_input"], whole["batch_by"], spec_flaw(whole)) == ("reads", CRITERIA, None)


def test_what_is_checked_is_the_spec_with_its_defaults():
    assert service(project=PROJECT, app=APP).check({}) is None
    assert service(project=PROJECT).check({}).startswith("app: missing")


@pytest.mark.parametrize(
    ("defaults", "complaint"),
    [
        ({"project": "p"}, "service.project: 'p' is not owner/project"),
        ({"batch_by": {"type": "X"}}, "service.batch_by.type: must be 'ITEM' or 'CRITERIA'"),
        ({"inputs": {"r": {"class": "File"}}}, "service.inputs.r: needs path"),
    ],
)
def test_defaults_that_no_task_can_have_are_an_error_of_the_configuration(defaults, complaint):
    with pytest.raises(ConfigError, match=complaint):
        service(**defaults)


# What goes up


def test_numbers_go_up_as_they_are_written():
    written = b'[ {"project":"o/p","app":"o/p/a", "inputs":{"n":%b,"x":1.50,"e":1E+2,"t":"\\u00e9\\n","z":-0.0}} ]'
    spec = exact(written % BIG.encode())
    sent = body_of(merged(spec, {"inputs": {"d": 2}}), "[m]")
    assert b'"inputs":{"d":2,"n":%b,"x":1.50,"e":1E+2,"t":"\xc3\xa9\\n","z":-0.0}' % BIG.encode() in sent


def test_the_marker_ends_the_description():
    assert orjson.loads(body_of({"description": "my draft"}, "[m]")) == {"description": "my draft [m]"}
    assert orjson.loads(body_of({}, "[m]")) == {"description": "[m]"}
    assert orjson.loads(body_of({"description": ""}, "[m]")) == {"description": "[m]"}


AS_WRITTEN = [
    "  indented\n  code",
    "\tone tab",
    "\u2029a paragraph's separator\u2028",
    "ends in a line\n",
    "ends in blanks \t \r\n\n",
    " \n ",
    "\x00\x1f\ufeff\u3000",
    "[bulksubmit old/1/f]",
    "[bulksubmit",
    "[bulksubmit ",
    "[bulksubmit x",
    "] [",
    "é" * 100_000,
]
STORED = [str, str.strip, lambda text: " ".join(text.split()), lambda text: f"{text}\n", lambda text: f"{text},[1]"]
"""What a service may do to the blanks of a text that it stores, and people to its end."""


@pytest.mark.parametrize("description", AS_WRITTEN)
@pytest.mark.parametrize("stored", STORED)
def test_a_description_goes_up_as_it_is_written_and_the_marker_after_it_is_found_again(description, stored):
    reference = draft_reference(JOB, a_batch())
    sent = orjson.loads(body_of({"description": description}, reference))["description"]
    assert sent == f"{description} {reference}"
    assert REFERENCE.findall(stored(sent))[-1] == reference


def test_the_type_of_batching_goes_up_as_the_vendor_writes_it():
    body = orjson.loads(body_of({"batch_by": {"type": "criteria", "criteria": ["metadata.x"]}}, "[m]"))
    assert body["batch_by"] == {"type": "CRITERIA", "criteria": ["metadata.x"]}


def test_a_marker_belongs_to_one_record_of_one_job():
    batch = a_batch()
    reference = draft_reference(JOB, batch)
    assert reference.startswith("[bulksubmit cohort/7/")
    assert REFERENCE.findall(f"seen [bulksubmit old/1/f] and {reference}")[-1] == reference
    others = [
        draft_reference(replace(JOB, name="cohort.retry"), batch),
        draft_reference(replace(JOB, created_at=JOB.created_at + 1), batch),
        draft_reference(JOB, a_batch(8)),
        draft_reference(JOB, a_batch(sha256=b"\x01" * 32)),
    ]
    assert len({reference, *others}) == 5


def test_a_value_too_deep_behind_a_repeated_key_is_refused_and_ends_nothing_else():
    deep = b"[" * 2000 + b"]" * 2000
    with pytest.raises(Refused, match="nested too deep"):
        exact(b'[{"inputs":%b,"inputs":{}}]' % deep)


@pytest.mark.parametrize(
    ("reference", "sequence"),
    [
        (draft_reference(JOB, a_batch(8)), 8),
        (draft_reference(replace(JOB, name="cohort.retry"), a_batch(8)), None),
        (draft_reference(replace(JOB, name="a/b"), a_batch(8)), None),
        ("[bulksubmit cohort/x/0123456789ab]", None),
        ("[bulksubmit cohort]", None),
    ],
)
def test_a_marker_tells_the_batch_of_a_job_of_this_name_only(reference, sequence):
    assert sequence_in(reference, JOB) == sequence
