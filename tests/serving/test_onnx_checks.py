from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from serving.errors import ModelRejected
from serving.manifest import INPUTS, OUTPUTS
from serving.onnx_checks import (
    describe,
    external_tensors,
    foreign_operators,
    opset_of,
    parse,
    tensor_specs,
    training_operators,
)
from tests.serving.tiny_model import tiny_graph

Change = Callable[[onnx.ModelProto], object]


def outside(name: str = "secret", location: str = "/etc/passwd") -> TensorProto:
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[1], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="offset", value="0")
    tensor.external_data.add(key="location", value=location)
    return tensor


def subgraph(tensor: TensorProto) -> onnx.GraphProto:
    return helper.make_graph([], "inner", [], [], [tensor])


def in_a_subgraph_of_a_subgraph(model: onnx.ModelProto) -> None:
    inner = helper.make_node("If", ["c"], ["x"], then_branch=subgraph(outside()))
    outer = helper.make_graph([inner], "outer", [], [])
    model.graph.node.append(helper.make_node("Loop", ["n"], ["y"], body=outer))


def in_the_attribute_of_a_function(model: onnx.ModelProto) -> None:
    function = helper.make_function("local", "f", ["a"], ["b"], [], [helper.make_opsetid("", 18)])
    function.attribute_proto.append(helper.make_attribute("weights", outside()))
    model.functions.append(function)


def in_a_node_of_a_function(model: onnx.ModelProto) -> None:
    node = helper.make_node("Constant", [], ["b"], value=outside())
    model.functions.append(helper.make_function("local", "f", [], ["b"], [node], [helper.make_opsetid("", 18)]))


def in_a_sparse_initializer(model: onnx.ModelProto) -> None:
    model.graph.sparse_initializer.add(dims=[4]).values.CopyFrom(outside())


def in_the_indices_of_a_sparse_attribute(model: onnx.ModelProto) -> None:
    node = model.graph.node.add(op_type="Constant", output=["x"])
    node.attribute.add(name="sparse_value").sparse_tensor.indices.CopyFrom(outside())


PLACES: dict[str, Change] = {
    "an initializer": lambda model: model.graph.initializer.append(outside()),
    "a sparse initializer": in_a_sparse_initializer,
    "a sparse attribute": in_the_indices_of_a_sparse_attribute,
    "an attribute": lambda model: model.graph.node.append(helper.make_node("Constant", [], ["x"], value=outside())),
    "a list attribute": lambda model: model.graph.node.append(helper.make_node("Odd", [], ["x"], ts=[outside()])),
    "a subgraph of a subgraph": in_a_subgraph_of_a_subgraph,
    "a function's attribute default": in_the_attribute_of_a_function,
    "a function's node": in_a_node_of_a_function,
    "the training information": lambda model: model.training_info.add().initialization.CopyFrom(subgraph(outside())),
}


@pytest.mark.parametrize("place", PLACES)
def test_external_data_are_found_in(place: str):
    model = tiny_graph()
    PLACES[place](model)
    assert external_tensors(parse(model.SerializeToString())) == ["secret in /etc/passwd"]


@pytest.mark.parametrize("location", ["../secret.bin", "/tmp/model_evil/x", "link.bin", ""])
def test_no_location_makes_external_data_good(location: str):
    model = tiny_graph()
    model.graph.initializer.append(outside("w", location))
    assert external_tensors(model) == [f"w in {location}"]


def test_a_location_counts_even_if_the_tensor_says_that_its_data_are_inside():
    model = tiny_graph()
    tensor = outside()
    tensor.data_location = TensorProto.DEFAULT
    model.graph.initializer.append(tensor)
    assert external_tensors(model) == ["secret in /etc/passwd"]


def test_an_unnamed_tensor_without_a_location_is_found():
    model = tiny_graph()
    model.graph.initializer.append(TensorProto(data_location=TensorProto.EXTERNAL))
    assert external_tensors(model) == ["a tensor in no location"]


def test_a_plain_graph_has_nothing_to_complain_of():
    model = tiny_graph()
    assert external_tensors(model) == foreign_operators(model) == training_operators(model) == []
    assert tensor_specs(model) == (INPUTS, OUTPUTS)
    assert opset_of(model) == 18


def test_foreign_operators_are_found_in_subgraphs_functions_and_imports():
    model = tiny_graph()
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    inner = helper.make_graph([helper.make_node("Gelu", ["a"], ["b"], domain="com.microsoft")], "inner", [], [])
    model.graph.node.append(helper.make_node("If", ["c"], ["x"], then_branch=inner))
    model.functions.append(helper.make_function("local", "f", [], [], [], [helper.make_opsetid("ai.onnx.ml", 3)]))
    assert sorted(foreign_operators(model)) == ["ai.onnx.ml", "com.microsoft", "com.microsoft.Gelu", "local.f"]


def test_the_long_name_of_the_default_domain_is_not_foreign():
    model = tiny_graph()
    for node in model.graph.node:
        node.domain = "ai.onnx"
    assert foreign_operators(model) == []


def dropout(mode: bool | None, *, as_node: bool = False) -> Change:
    def add(model: onnx.ModelProto) -> None:
        inputs = ["logits", "", "mode"] if mode is not None else ["logits"]
        model.graph.node.append(helper.make_node("Dropout", inputs, ["dropped"], name="drop"))
        tensor = numpy_helper.from_array(np.array(bool(mode)), "mode")
        if as_node:
            model.graph.node.append(helper.make_node("Constant", [], ["mode"], value=tensor))
        else:
            model.graph.initializer.append(tensor)

    return add


def unknown_dropout(model: onnx.ModelProto) -> None:
    model.graph.node.append(helper.make_node("Dropout", ["logits", "", "images"], ["dropped"], name="drop"))


def dropout_with(*inputs: str) -> Change:
    return lambda model: model.graph.node.append(helper.make_node("Dropout", ["logits", *inputs], ["dropped"]))


def operator(kind: str, **attributes: int) -> Change:
    return lambda model: model.graph.node.append(helper.make_node(kind, ["logits"], ["x"], name="n", **attributes))


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (dropout(True), ["Dropout drop"]),
        (dropout(True, as_node=True), ["Dropout drop"]),
        (unknown_dropout, ["Dropout drop"]),
        (dropout(False), []),
        (dropout(False, as_node=True), []),
        (dropout(None), []),
        (dropout_with("ratio"), []),
        (dropout_with("ratio", ""), []),
        (operator("BatchNormalization", training_mode=1), ["BatchNormalization n"]),
        (operator("BatchNormalization", training_mode=0), []),
        (operator("BatchNormalization"), []),
        (operator("Bernoulli"), ["Bernoulli n"]),
        (operator("Multinomial"), ["Multinomial n"]),
        (operator("RandomNormal"), ["RandomNormal n"]),
        (operator("RandomNormalLike"), ["RandomNormalLike n"]),
        (operator("RandomUniform"), ["RandomUniform n"]),
        (operator("RandomUniformLike"), ["RandomUniformLike n"]),
        (lambda model: model.training_info.add(), ["training_info"]),
    ],
)
def test_what_belongs_to_training_is_found(change: Change, found: list[str]):
    model = tiny_graph()
    change(model)
    assert training_operators(model) == found


@pytest.mark.parametrize("content", [b"", b"no model", b"\x08\x0a", b"\xff" * 100])
def test_bytes_that_are_no_model_are_refused(content: bytes):
    with pytest.raises(ModelRejected, match="expected an ONNX model"):
        parse(content)


def test_a_baked_in_batch_size_shows_in_the_shape():
    model = tiny_graph()
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 2
    inputs, outputs = tensor_specs(model)
    assert describe(inputs) == "images uint8 [2,28,28]"
    assert describe(outputs) == "logits float32 [batch,10], probabilities float32 [batch,10]"


def test_a_weight_that_is_listed_as_an_input_is_none():
    model = tiny_graph()
    model.graph.input.append(helper.make_tensor_value_info("weights", TensorProto.FLOAT, [784, 10]))
    assert tensor_specs(model)[0] == INPUTS


def test_a_tensor_of_another_type_is_refused_by_name():
    model = tiny_graph()
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.INT64
    with pytest.raises(ModelRejected, match="images of type int64, expected uint8 or float32"):
        tensor_specs(model)


def test_the_opset_is_the_latest_of_the_default_operators():
    model = tiny_graph()
    model.opset_import.extend([helper.make_opsetid("ai.onnx", 17), helper.make_opsetid("ai.onnx.ml", 99)])
    assert opset_of(model) == 18


def test_a_graph_without_the_default_operators_has_opset_0():
    model = tiny_graph()
    del model.opset_import[:]
    assert opset_of(model) == 0


def test_a_tensor_of_a_type_that_does_not_exist_is_refused_by_number():
    model = tiny_graph()
    model.graph.output[0].type.tensor_type.elem_type = 99
    with pytest.raises(ModelRejected, match="logits of type 99, expected uint8 or float32"):
        tensor_specs(model)


@pytest.mark.parametrize("text", [b"batch", b"logits", b"weights", b"Softmax"])
def test_text_that_is_no_utf_8_is_refused(text: bytes):
    content = tiny_graph().SerializeToString().replace(text, b"\xff" + text[1:])
    with pytest.raises(ModelRejected, match=r"b'\\xff\w+', which is no UTF-8, expected an ONNX model"):
        parse(content)


def test_a_constant_without_an_output_is_no_constant():
    model = tiny_graph()
    model.graph.node.append(helper.make_node("Constant", [], [], value=numpy_helper.from_array(np.array(True))))
    assert training_operators(model) == []
