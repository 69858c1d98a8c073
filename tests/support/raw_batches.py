"""Files and batches over the generated stubs."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

import grpc

from sage.controlplane.v1 import batch_pb2, inference_pb2, inference_pb2_grpc
from tests.support.eventually import eventually
from tests.support.lost_status import with_status

CHAT = "/v1/chat/completions"
COMPLETION = "/v1/completions"
ENDED = frozenset(
    {
        batch_pb2.BATCH_STATE_COMPLETED,
        batch_pb2.BATCH_STATE_FAILED,
        batch_pb2.BATCH_STATE_EXPIRED,
        batch_pb2.BATCH_STATE_CANCELLED,
    }
)


def line(custom_id: str, url: str = COMPLETION, **body: Any) -> dict[str, Any]:
    """Return a line that asks for a completion of four tokens, unless ``body`` says otherwise."""
    if url == COMPLETION:
        body = {"prompt": f"Tell me about {custom_id}", "max_tokens": 4, "temperature": 0, **body}
    return {"custom_id": custom_id, "method": "POST", "url": url, "body": body}


def jsonl(lines: Sequence[Any]) -> bytes:
    """Return the content of a file with these lines."""
    return b"".join(json.dumps(each).encode() + b"\n" for each in lines)


class RawBatches:
    """Calls about files and batches, as a client without the SDK makes them."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.stub = inference_pb2_grpc.InferenceServiceStub(channel)

    async def upload(self, content: bytes, *, piece: int = 100_000, **new: Any) -> batch_pb2.UploadFileResponse:
        """Upload a file in pieces."""

        async def messages() -> AsyncIterator[batch_pb2.UploadFileRequest]:
            yield batch_pb2.UploadFileRequest(file=batch_pb2.NewFile(**new))
            for start in range(0, len(content), piece):
                yield batch_pb2.UploadFileRequest(content=content[start : start + piece])

        return await with_status(lambda: self.stub.UploadFile(messages()))

    async def submit(self, lines: Sequence[Any], **wanted: Any) -> batch_pb2.BatchView:
        """Upload lines and submit them as a batch."""
        file = (await self.upload(jsonl(lines))).file
        request = inference_pb2.SubmitBatchRequest(input_file_id=file.file_id, **wanted)
        return (await self.stub.SubmitBatch(request)).batch

    async def get(self, batch_id: str) -> batch_pb2.BatchView:
        """Return a batch."""
        return (await self.stub.GetBatch(batch_pb2.GetBatchRequest(batch_id=batch_id))).batch

    async def until_ended(self, batch_id: str, within_s: float = 30.0) -> batch_pb2.BatchView:
        """Return a batch once it has ended."""

        async def ended() -> batch_pb2.BatchView | None:
            found = await self.get(batch_id)
            return found if found.state in ENDED else None

        return await eventually(ended, what=f"{batch_id} to end", within_s=within_s)

    async def content(self, file_id: str, offset: int = 0) -> bytes:
        """Return a file's content."""
        request = batch_pb2.DownloadFileRequest(file_id=file_id, offset=offset)
        return b"".join([message.content async for message in self.stub.DownloadFile(request)])

    async def results(self, file_id: str) -> dict[str, Any]:
        """Return the lines of an output or error file by their custom ids, each of which there is once."""
        if not file_id:
            return {}
        found = [json.loads(each) for each in (await self.content(file_id)).splitlines()]
        by_id = {each["custom_id"]: each for each in found}
        assert len(by_id) == len(found), "a line has two results"
        return by_id
