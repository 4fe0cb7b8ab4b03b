import pytest

from serving.errors import InvalidInput, Unsupported
from serving.protocol.parameters import check_values, kind, read_flag, read_timeout


def test_no_parameters_are_none():
    assert check_values(None, "parameters") == {}
    assert read_timeout({}) is None


@pytest.mark.parametrize(("value", "said"), [([], "an object, got a list"), ("a", "an object, got a string")])
def test_parameters_are_an_object(value: object, said: str):
    with pytest.raises(InvalidInput, match=said):
        check_values(value, "parameters")


@pytest.mark.parametrize("value", [None, [], {}])
def test_a_parameter_is_a_string_a_number_or_a_boolean(value: object):
    with pytest.raises(InvalidInput, match=rf"inputs\[0\].parameters.x: expected .*, got {kind(value)}"):
        check_values({"x": value}, "inputs[0].parameters")


def test_timeout_is_in_microseconds_and_zero_is_none():
    assert read_timeout({"timeout": 1500}) == 0.0015
    assert read_timeout({"timeout": 0, "priority": 1, "mine": "x"}) is None


@pytest.mark.parametrize("value", [-1, 1.5, True, "10"])
@pytest.mark.parametrize("name", ["timeout", "priority"])
def test_timeout_and_priority_are_whole_numbers(name: str, value: object):
    with pytest.raises(InvalidInput, match=f"parameters.{name}: expected a whole number"):
        read_timeout({name: value})


def test_sequences_are_not_offered():
    assert read_timeout({"sequence_id": 0}) is read_timeout({"sequence_id": ""}) is None
    with pytest.raises(Unsupported, match="keeps no state"):
        read_timeout({"sequence_id": 5})


def test_a_flag_is_a_boolean():
    assert read_flag({"binary_data_output": True}, "binary_data_output")
    assert not read_flag({}, "binary_data_output")
    with pytest.raises(InvalidInput, match=r"parameters\.binary_data_output: expected true or false, got a number"):
        read_flag({"binary_data_output": 1}, "binary_data_output")


def test_kinds_have_json_s_names():
    assert [kind(value) for value in (None, True, False, 1, 1.5, "", [], {})] == [
        "null",
        "true",
        "false",
        "a number",
        "a number",
        "a string",
        "a list",
        "an object",
    ]
