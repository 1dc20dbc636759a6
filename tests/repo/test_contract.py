"""Rules of the contract that buf has no words for."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest
from google.protobuf.descriptor import FileDescriptor, MethodDescriptor

from att.v1 import access_pb2

PROTOS = sorted((Path(__file__).parents[2] / "protos/att/v1").glob("*.proto"))


def descriptor(path: Path) -> FileDescriptor:
    found: FileDescriptor = import_module(f"att.v1.{path.stem}_pb2").DESCRIPTOR
    return found


METHODS: list[MethodDescriptor] = [
    method
    for path in PROTOS
    for service in descriptor(path).services_by_name.values()
    for method in service.methods
]


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.full_name)
def test_the_rpc_declares_the_role_it_needs(method: MethodDescriptor) -> None:
    role = method.GetOptions().Extensions[access_pb2.required_role]
    assert role != access_pb2.ROLE_UNSPECIFIED


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.full_name)
def test_the_rpc_has_messages_of_its_own(method: MethodDescriptor) -> None:
    assert method.input_type.name == f"{method.name}Request"
    assert method.output_type.name == f"{method.name}Response"


@pytest.mark.parametrize("path", PROTOS, ids=lambda path: path.name)
def test_the_file_can_be_generated_for_other_languages(path: Path) -> None:
    options = descriptor(path).GetOptions()
    assert options.go_package
    assert options.java_package
    assert options.csharp_namespace
