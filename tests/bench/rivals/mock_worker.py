"""A stand-in for vLLM's OpenAI server: every stream gets one chunk at each beat.

Run as a child: ``python -m tests.bench.rivals.mock_worker PORT STEP_S``; prints READY.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys

READY = "mock worker: ready"
MODEL = "mock"
LINES_LIMIT = 1 << 20  # bytes of a request


class Beat:
    """Wakes all streams together, as the steps of one engine do."""

    def __init__(self, step_s: float) -> None:
        self._step_s = step_s
        self._next = asyncio.get_running_loop().create_future()

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            due = max(due + self._step_s, loop.time())
            await asyncio.sleep(due - loop.time())
            passed, self._next = self._next, loop.create_future()
            passed.set_result(None)

    async def wait(self) -> None:
        await asyncio.shield(self._next)


class MockWorker:
    """Answers what routers ask of a worker, and streams chat completions that end with their usage."""

    def __init__(self, beat: Beat) -> None:
        self._beat = beat

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection, request after request."""
        try:
            while head := await _head(reader):
                path, length = head
                body = await reader.readexactly(length) if length else b""
                if path.startswith("/v1/chat/completions"):
                    await self._stream(writer, json.loads(body))
                else:
                    _answer(writer, _about(path))
                    await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    async def _stream(self, writer: asyncio.StreamWriter, request: dict[str, object]) -> None:
        tokens = int(str(request.get("max_tokens", 16)))
        writer.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncache-control: no-cache\r\n"
            b"transfer-encoding: chunked\r\n\r\n"
        )
        await self._beat.wait()  # a request joins the step after the one that runs
        for number in range(tokens):
            await self._beat.wait()
            reason = "length" if number == tokens - 1 else None
            choice = {"index": 0, "delta": {"content": " word"}, "finish_reason": reason}
            _chunk(writer, "data: " + json.dumps(_completion(choice)) + "\n\n")
            await writer.drain()
        usage = {"prompt_tokens": 32, "total_tokens": 32 + tokens, "completion_tokens": tokens}
        _chunk(writer, "data: " + json.dumps({**_completion(), "usage": usage}) + "\n\n")
        _chunk(writer, "data: [DONE]\n\n")
        writer.write(b"0\r\n\r\n")
        await writer.drain()


def _completion(*choices: dict[str, object]) -> dict[str, object]:
    return {
        "id": "chatcmpl-0123456789",
        "object": "chat.completion.chunk",
        "created": 1_790_000_000,
        "model": MODEL,
        "choices": choices,
    }


def _chunk(writer: asyncio.StreamWriter, text: str) -> None:
    data = text.encode()
    writer.write(b"%x\r\n%b\r\n" % (len(data), data))


async def _head(reader: asyncio.StreamReader) -> tuple[str, int] | None:
    """Return a request's path and the length of its body; None at the end of the connection."""
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except asyncio.IncompleteReadError:
        return None
    lines = head.split("\r\n")
    length = 0
    for line in lines[1:]:
        name, _, value = line.partition(":")
        if name.lower() == "content-length":
            length = int(value)
    return lines[0].split(" ")[1], length


def _about(path: str) -> dict[str, object]:
    if path.startswith("/v1/models"):
        return {"object": "list", "data": [{"id": MODEL, "object": "model", "owned_by": "vllm", "root": MODEL}]}
    if path.startswith(("/get_server_info", "/server_info", "/get_model_info", "/model_info")):
        return {"model_path": MODEL, "served_model_name": MODEL, "version": "0.0", "is_generation": True}
    return {"status": "ok"}


def _answer(writer: asyncio.StreamWriter, document: dict[str, object]) -> None:
    data = json.dumps(document).encode()
    head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(data)}\r\n\r\n"
    writer.write(head.encode() + data)


async def _main(port: int, step_s: float) -> None:
    beat = Beat(step_s)
    worker = MockWorker(beat)
    server = await asyncio.start_server(worker.serve, "127.0.0.1", port, limit=LINES_LIMIT)
    over = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, over.set)
    beats = asyncio.create_task(beat.run(), name="beat")
    print(READY, flush=True)
    await over.wait()
    beats.cancel()
    server.close()


if __name__ == "__main__":
    asyncio.run(_main(int(sys.argv[1]), float(sys.argv[2])))
