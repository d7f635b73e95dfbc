"""The gRPC protocol's code is what its `.proto` file makes, and its messages are those of the standard client."""

from __future__ import annotations

from pathlib import Path

import pytest
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from tritonclient.grpc import model_config_pb2, service_pb2

from slotwise.edges.oip.grpc import inference_pb2
from slotwise.edges.oip.grpc.pages import CALLS
from tests.repo.protocol import FOLDER, GENERATED, generate

OURS = inference_pb2.DESCRIPTOR
THEIRS = (service_pb2.DESCRIPTOR, model_config_pb2.DESCRIPTOR)
THEIR_MESSAGES = {name: message for file in THEIRS for name, message in file.message_types_by_name.items()}
THEIR_ENUMS = {name: enum for file in THEIRS for name, enum in file.enum_types_by_name.items()}
SERVICE = "GRPCInferenceService"


def test_the_generated_code_is_what_the_proto_file_makes(tmp_path: Path) -> None:
    generate(tmp_path)
    for name in GENERATED:
        assert (tmp_path / name).read_text() == (FOLDER / name).read_text(), f"{name}: run `make protocol`"


@pytest.mark.parametrize("name", OURS.message_types_by_name)
def test_every_field_has_the_name_the_number_and_the_type_of_the_standard_client(name: str) -> None:
    check_message(OURS.message_types_by_name[name], THEIR_MESSAGES[name])


@pytest.mark.parametrize("name", OURS.enum_types_by_name)
def test_every_enum_has_the_numbers_of_the_standard_client(name: str) -> None:
    assert numbers_of(OURS.enum_types_by_name[name]) == numbers_of(THEIR_ENUMS[name])


def test_every_method_of_the_standard_client_is_answered() -> None:
    ours, theirs = OURS.services_by_name[SERVICE], service_pb2.DESCRIPTOR.services_by_name[SERVICE]
    known = {method.name: (method.input_type.name, method.output_type.name) for method in theirs.methods}
    for method in ours.methods:
        assert known[method.name] == (method.input_type.name, method.output_type.name)
    inference = {"ModelInfer", "ModelStreamInfer"}
    assert {method.name for method in ours.methods} == CALLS.keys() | inference
    assert known.keys() == CALLS.keys() | inference


def check_message(ours: Descriptor, theirs: Descriptor) -> None:
    for field in ours.fields:
        assert said(field) == said(theirs.fields_by_name[field.name]), f"{ours.full_name}.{field.name}"
    for nested in ours.nested_types:
        check_message(nested, theirs.nested_types_by_name[nested.name])
    for enum in ours.enum_types:
        assert numbers_of(enum) == numbers_of(theirs.enum_types_by_name[enum.name])


def said(field: FieldDescriptor) -> tuple[object, ...]:
    kind = field.message_type or field.enum_type
    choice = field.containing_oneof
    return field.number, field.type, field.is_repeated, kind and kind.full_name, choice and choice.name


def numbers_of(enum: EnumDescriptor) -> dict[str, int]:
    return {entry.name: entry.number for entry in enum.values}
