"""The compiled schema is that of the .proto files, reads configurations as written, and clashes with nobody."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format

from blindai.errors import InvalidInputError
from blindai.oip.grpc import schema
from blindai.oip.grpc.schema import ModelConfig, from_json_object, from_text, message_type

FOLDER = Path(schema.__file__).parent
PROTO_FILES = ("model_config.proto", "inference.proto", "health.proto")
# What tritonclient does at import: messages of the same names, in the pool that all share.
REGISTERS_THE_NAMES_ELSEWHERE = """
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from pathlib import Path
import sys
files = descriptor_pb2.FileDescriptorSet.FromString(Path(sys.argv[1]).read_bytes())
theirs = [file for file in files.file if file.package == "inference"]
theirs[0].message_type.add(name="OnlyTheirs")
if sys.argv[2] == "ours first":
    import blindai.oip.grpc.schema
for file in theirs:
    descriptor_pool.Default().Add(file)
from blindai.oip.grpc.schema import message_type
ours = message_type("inference.ModelInferRequest")
other = message_factory.GetMessageClass(descriptor_pool.Default().FindMessageTypeByName("inference.ModelInferRequest"))
assert ours is not other
assert ours.FromString(other(id="7").SerializeToString()).id == "7"
"""


def to_json_object(message: Any) -> dict[str, Any]:
    """Protobuf's own JSON form, absent fields at their default."""
    found: dict[str, Any] = json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    return found


def test_compiled_file_is_that_of_the_proto_files(tmp_path: Path) -> None:
    compiled = tmp_path / "protocol.pb"
    command = [sys.executable, "-m", "grpc_tools.protoc", f"--proto_path={FOLDER}", f"--descriptor_set_out={compiled}"]
    subprocess.run([*command, *PROTO_FILES], check=True)
    assert compiled.read_bytes() == (FOLDER / "protocol.pb").read_bytes(), "run `make protocol`"


@pytest.mark.parametrize("order", ["ours first", "theirs first"])
def test_same_names_in_the_default_pool_are_others_business(order: str) -> None:
    command = [sys.executable, "-c", REGISTERS_THE_NAMES_ELSEWHERE, str(FOLDER / "protocol.pb"), order]
    subprocess.run(command, check=True)


def test_a_class_is_made_once() -> None:
    assert message_type("inference.ModelInferRequest") is message_type("inference.ModelInferRequest")


def test_numbers_on_the_wire_are_tritons() -> None:
    request = message_type("inference.ModelInferRequest")(model_name="m", id="7", raw_input_contents=[b"\x01"])
    request.inputs.add(name="x", datatype="BOOL", shape=[1])
    assert request.SerializeToString() == bytes.fromhex("0a016d 1a0137 2a0c 0a0178 1204424f4f4c 1a0101 3a0101")
    load = message_type("inference.RepositoryModelLoadRequest")(model_name="m")
    assert load.SerializeToString() == bytes.fromhex("12016d")
    health = message_type("grpc.health.v1.HealthCheckResponse")(status=1)
    assert health.SerializeToString() == bytes.fromhex("0801")


def test_configuration_in_text_form() -> None:
    config = from_text(
        """
        name: "simple"  # a comment
        backend: "onnxruntime"
        max_batch_size: 8
        input [ { name: "INPUT0" data_type: TYPE_INT32 dims: [ 16 ] } ]
        output { name: "OUTPUT0" data_type: TYPE_STRING dims: 16 label_filename: "labels.txt" }
        dynamic_batching { preferred_batch_size: [ 4, 8 ] max_queue_delay_microseconds: 100 }
        instance_group [ { count: 2 kind: KIND_CPU } ]
        version_policy: { specific { versions: [ 1, 3 ] } }
        parameters { key: "intra_op_thread_count" value: { string_value: "2" } }
        model_warmup [{ name: "w" inputs { key: "INPUT0" value: { data_type: TYPE_INT32 zero_data: true } } }]
        """,
        ModelConfig,
    )
    found = to_json_object(config)
    assert found["max_batch_size"] == 8
    assert found["input"][0]["data_type"] == "TYPE_INT32"
    assert found["dynamic_batching"]["preferred_batch_size"] == [4, 8]
    assert config.WhichOneof("scheduling_choice") == "dynamic_batching"
    assert list(config.version_policy.specific.versions) == [1, 3]
    assert config.parameters["intra_op_thread_count"].string_value == "2"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('name: "a"\nunknown_field: "b"', 2),
        ("max_batch_size: many", 1),
        ('\n\nname: "open', 3),
        ("input { dims: 99999999999999999999999 }", 1),
        ('dynamic_batching { }\nensemble_scheduling { step { model_name: "m" } }', 2),
    ],
)
def test_configuration_that_is_none_is_refused_with_its_line(text: str, line: int) -> None:
    with pytest.raises(InvalidInputError, match=f"^line {line}: "):
        from_text(text, ModelConfig)


def test_json_form_comes_back() -> None:
    config = from_text('name: "m" max_batch_size: 4 input { name: "x" dims: [-1, 3] }', ModelConfig)
    assert from_json_object(to_json_object(config), ModelConfig).SerializeToString() == config.SerializeToString()


def test_members_that_are_not_known_are_refused_unless_passed_over() -> None:
    members = {"name": "m", "from_the_future": 1}
    with pytest.raises(InvalidInputError):
        from_json_object(members, ModelConfig)
    assert from_json_object(members, ModelConfig, pass_over_unknown=True).name == "m"
