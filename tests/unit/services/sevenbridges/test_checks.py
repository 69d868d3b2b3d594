"""What an app says of its inputs, in the forms in which CWL writes them, and what that makes of a spec."""

import pytest

from engine.services.sevenbridges.checks import input_flaw, inputs_of

SPEC = {"app": "me/p/align", "inputs": {"reads": 1}}


@pytest.mark.parametrize(
    "inputs",
    [
        [{"id": "#reads", "type": ["File"]}, {"id": "#reference", "type": ["null", "File"]}],
        [{"id": "reads", "type": "File"}, {"id": "reference", "type": "File?"}],
        [{"id": "align.cwl#main/reads", "type": "File"}, {"id": "reference", "type": "int", "default": 0}],
        {"reads": "File", "reference": {"type": ["File", "null"]}},
    ],
)
def test_every_form_of_cwl_tells_the_same_inputs(inputs):
    assert inputs_of({"inputs": inputs}) == {"reads": True, "reference": False}


@pytest.mark.parametrize(
    "raw", [{}, {"inputs": None}, {"inputs": "reads"}, {"inputs": [{"type": "File"}]}, {"inputs": [1]}]
)
def test_what_is_no_cwl_tells_nothing(raw):
    assert inputs_of(raw) is None


def test_a_wrong_name_is_named_with_the_one_that_was_meant():
    inputs = {"reads": True, "reference": False}
    wrong = {**SPEC, "inputs": {"reads": 1, "refrence": 2}}
    assert input_flaw(wrong, inputs, whole=True) == (
        "inputs.refrence: no input of app me/p/align; did you mean 'reference'?"
    )
    assert input_flaw({**SPEC, "batch_input": "reed"}, inputs, whole=True).startswith("batch_input: 'reed' is no input")
    assert input_flaw(SPEC, inputs, whole=True) is None


def test_what_the_app_needs_is_missing_only_where_the_spec_is_whole():
    inputs = {"reads": True, "index": True}
    assert input_flaw(SPEC, inputs, whole=True) == "inputs.index: missing; app me/p/align needs it"
    assert input_flaw(SPEC, inputs, whole=False) is None
