import numpy as np
import pytest

from serving.errors import InvalidInput, Unsupported
from serving.protocol.messages import RequestedOutput
from serving.protocol.outputs import ALL, ALL_BINARY, build, choose, refuse_shared_memory
from serving.runtime import Outputs

LABELS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]


def test_case_e10_no_names_are_all_outputs():
    assert choose([]) == ALL
    assert choose([], binary=True) == ALL_BINARY
    assert [(output.name, output.binary) for output in ALL] == [("logits", False), ("probabilities", False)]
    assert [(output.name, output.binary) for output in ALL_BINARY] == [("logits", True), ("probabilities", True)]


def test_case_e10_only_what_is_asked_for_is_given_in_that_order():
    names = [output.name for output in choose([("probabilities", {}), ("logits", {})])]
    assert names == ["probabilities", "logits"]
    assert choose([("logits", {})]) == (RequestedOutput("logits"),)


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ([("label", {})], "no 'label'; there are: logits, probabilities"),
        ([("logits", {}), ("logits", {})], "twice"),
        ([("logits", {"binary_data": 1})], "binary_data is 1"),
        ([("logits", {"classification": True})], "classification is True"),
        ([("logits", {"classification": -1})], "classification is -1, expected a whole number, 0 for none"),
        ([("logits", {"classification": "3"})], "classification is '3'"),
    ],
)
def test_case_e10_an_output_that_is_not_there_or_not_clear_is_refused(wanted: list[tuple[str, dict]], said: str):
    with pytest.raises(InvalidInput, match=said):
        choose(wanted)


def test_an_output_itself_says_whether_it_is_binary():
    chosen = choose([("logits", {"binary_data": False}), ("probabilities", {})], binary=True)
    assert [output.binary for output in chosen] == [False, True]


def test_shared_memory_is_not_offered():
    with pytest.raises(Unsupported, match="shared memory"):
        refuse_shared_memory({"shared_memory_region": "a"})
    with pytest.raises(Unsupported, match="shared memory"):
        choose([("logits", {"shared_memory_region": "a"})])


def outputs() -> Outputs:
    logits = np.tile(np.arange(10, dtype=np.float32), (2, 1))
    logits[1, 0] = 9.0
    return Outputs(logits, logits / 45)


def test_classes_are_value_index_label_largest_first_and_the_lower_index_wins_a_tie():
    (tensor,) = build(outputs(), choose([("logits", {"classification": 2})]), LABELS)
    assert (tensor.datatype, tensor.shape) == ("BYTES", (2, 2))
    assert tensor.values == [b"9.000000:9:nine", b"8.000000:8:eight", b"9.000000:0:zero", b"9.000000:9:nine"]


def test_many_ties_are_in_the_order_of_the_digits():
    values = np.tile(np.array([1, 0], np.float32), (3, 5))
    (tensor,) = build(Outputs(values, values), choose([("logits", {"classification": 10})]), LABELS)
    assert [int(text.split(b":")[1]) for text in tensor.values] == 3 * [0, 2, 4, 6, 8, 1, 3, 5, 7, 9]


def test_there_are_never_more_classes_than_digits():
    (tensor,) = build(outputs(), choose([("logits", {"classification": 99})]), LABELS)
    assert tensor.shape == (2, 10)


@pytest.mark.parametrize("chosen", [ALL, choose([(output.name, {"classification": 0}) for output in ALL])])
def test_without_classes_an_output_is_what_the_model_gave(chosen: tuple[RequestedOutput, ...]):
    logits, probabilities = build(outputs(), chosen, LABELS)
    assert (logits.name, logits.datatype, logits.shape) == ("logits", "FP32", (2, 10))
    assert np.array_equal(probabilities.values, outputs().probabilities)
