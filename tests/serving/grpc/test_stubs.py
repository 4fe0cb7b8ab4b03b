import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "serving" / "grpc"
FILES = ("inference.binpb", "inference_pb2.pyi")


def test_stubs_are_what_the_proto_file_generates(tmp_path: Path):
    pytest.importorskip("grpc_tools", reason="grpcio-tools is not installed")
    command = [sys.executable, "-m", "grpc_tools.protoc", "-I", FOLDER, f"--pyi_out={tmp_path}"]
    command += [f"--descriptor_set_out={tmp_path / FILES[0]}", FOLDER / "inference.proto"]
    subprocess.run(command, check=True, timeout=60)
    stale = [name for name in FILES if (tmp_path / name).read_bytes() != (FOLDER / "stubs" / name).read_bytes()]
    assert stale == [], "run `make protos`"


@pytest.mark.parametrize(
    "modules",
    [
        ("serving.grpc.server", "tritonclient.grpc"),
        ("tritonclient.grpc", "serving.grpc.server"),
        ("serving.grpc.server", "kserve.protocol.grpc.grpc_predict_v2_pb2"),
    ],
)
def test_the_stubs_of_a_client_do_not_collide_with_ours(modules: tuple[str, str]):
    imports = "\n".join(f"import {module}" for module in modules)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", imports], check=True, timeout=60, env=environment)


def test_field_numbers_are_those_of_triton_s_client():
    code = """
from tritonclient.grpc import service_pb2
from serving.grpc.stubs import inference_pb2
def walk(ours, theirs):
    for field in ours.fields:
        other = theirs.fields_by_name.get(field.name)
        if other is None:
            assert (ours.name, field.name) == ("ModelMetadataResponse", "properties")
            continue
        assert (field.number, field.type) == (other.number, other.type), field.full_name
        if field.message_type:
            walk(field.message_type, other.message_type)
for name, message in inference_pb2.DESCRIPTOR.message_types_by_name.items():
    other = service_pb2.DESCRIPTOR.message_types_by_name.get(name)
    if other is not None:
        walk(message, other)
service, other = (
    module.DESCRIPTOR.services_by_name["GRPCInferenceService"] for module in (inference_pb2, service_pb2)
)
assert len(service.methods) == 11
for method in service.methods:
    assert method.input_type.full_name == other.methods_by_name[method.name].input_type.full_name
"""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, env=environment)
