"""The messages of `inference.proto`, in a descriptor pool of their own.

Generated modules register in the process-wide pool, where the stubs of Triton's and KServe's clients define the same
names: whichever is imported second fails. `inference.binpb` and `inference_pb2.pyi` are generated, this is not.
"""

from pathlib import Path

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.internal.enum_type_wrapper import EnumTypeWrapper

POOL = descriptor_pool.DescriptorPool()

_files = descriptor_pb2.FileDescriptorSet.FromString((Path(__file__).parent / "inference.binpb").read_bytes())
for _file in _files.file:
    POOL.AddSerializedFile(_file.SerializeToString())

DESCRIPTOR = POOL.FindFileByName("inference.proto")

globals().update(
    {name: message_factory.GetMessageClass(message) for name, message in DESCRIPTOR.message_types_by_name.items()}
)

for _enum in DESCRIPTOR.enum_types_by_name.values():
    globals()[_enum.name] = EnumTypeWrapper(_enum)
    globals().update({value.name: value.number for value in _enum.values})
