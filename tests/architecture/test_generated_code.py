"""The generated code loads with the oldest protobuf and gRPC that pyproject.toml promises.

protobuf refuses code made for a runtime newer than itself, and vLLM decides which runtime an executor's host
has.
"""

from __future__ import annotations

import re
import tomllib

from tests.architecture.source_tree import GENERATED, ROOT

V1 = GENERATED / "sage" / "controlplane" / "v1"


def promised(package: str) -> tuple[int, ...]:
    """The lower bound of a dependency."""
    dependencies = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    [bound] = [match[1] for text in dependencies if (match := re.match(rf"{package}>=([0-9.]+)", text))]
    return version(bound)


def version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("."))


def test_messages_load_with_the_oldest_protobuf_promised() -> None:
    oldest = promised("protobuf")
    files = sorted(V1.glob("*_pb2.py"))
    assert files
    for file in files:
        found = re.search(r"^# Protobuf Python Version: ([0-9.]+)$", file.read_text(), re.MULTILINE)
        assert found, file
        assert version(found[1])[: len(oldest)] <= oldest, file


def test_stubs_load_with_the_oldest_grpc_promised() -> None:
    oldest = promised("grpcio")
    files = sorted(V1.glob("*_pb2_grpc.py"))
    assert files
    for file in files:
        found = re.search(r"^GRPC_GENERATED_VERSION = '([0-9.]+)'$", file.read_text(), re.MULTILINE)
        assert found, file
        assert version(found[1])[: len(oldest)] <= oldest, file


def test_every_proto_has_its_generated_code_and_nothing_else_is_there() -> None:
    protos = {path.stem for path in (ROOT / "protos" / "sage" / "controlplane" / "v1").glob("*.proto")}
    generated = {path.name.removesuffix("_pb2.py") for path in V1.glob("*_pb2.py")}
    assert protos
    assert generated == protos
