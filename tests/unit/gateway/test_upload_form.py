"""A form's file arrives piece by piece, however the body is cut; what is no such form is refused by name."""

from __future__ import annotations

import asyncio

import pytest

from sage_gateway.asgi import BodyTooLarge, ClientGone, Message, Receive
from sage_gateway.batches import upload_form
from sage_gateway.batches.upload_form import FormError, UploadForm

KIND = "multipart/form-data; boundary=bound"
FILE = b"x" * 1000 + b"\r\n--bou\r\n" + b"y" * 1000


def part(name: str, value: bytes, more: str = "") -> bytes:
    return f'--bound\r\nContent-Disposition: form-data; name="{name}"{more}\r\n\r\n'.encode() + value + b"\r\n"


def file(value: bytes = FILE) -> bytes:
    return part("file", value, '; filename="in.jsonl"')


def form(*parts: bytes) -> bytes:
    return b"".join(parts) + b"--bound--\r\n"


def receiving(body: bytes, size: int = 100_000) -> Receive:
    cut = [body[i : i + size] for i in range(0, len(body), size)]
    waiting: list[Message] = [
        {"type": "http.request", "body": piece, "more_body": i < len(cut) - 1} for i, piece in enumerate(cut)
    ]

    async def receive() -> Message:
        if waiting:
            return waiting.pop(0)
        return {"type": "http.disconnect"}

    return receive


def made(body: bytes, size: int = 100_000, *, kind: str = KIND, limit: int = 1_000_000) -> UploadForm:
    return UploadForm(kind, receiving(body, size), limit)


async def read(form: UploadForm) -> bytes:
    await form.begin()
    return b"".join([piece async for piece in form.pieces()])


@pytest.mark.parametrize("size", [1, 7, 64, 100_000])
async def test_the_file_and_its_fields_are_read_however_the_body_is_cut(size: int) -> None:
    reading = made(form(part("purpose", b"batch"), file(), part("late", "ä".encode())), size)
    await reading.begin()
    assert (reading.file_name, reading.fields["purpose"]) == ("in.jsonl", "batch")
    assert await read(reading) == FILE
    assert reading.fields == {"purpose": "batch", "late": "ä"}


async def test_no_more_of_the_file_is_held_than_one_message_brings() -> None:
    reading = made(form(file(b"z" * 100_000)), 1_000)
    await reading.begin()
    assert max([len(piece) async for piece in reading.pieces()]) <= 1_000
    assert not reading._pieces


@pytest.mark.parametrize("kind", ["", "application/json", "multipart/form-data", "multipart/form-data; boundary="])
async def test_another_body_is_no_form(kind: str) -> None:
    with pytest.raises(FormError, match="no multipart/form-data"):
        made(b"{}", kind=kind)


async def test_a_boundary_that_is_too_long_is_refused() -> None:
    with pytest.raises(FormError, match="no form"):
        made(b"", kind=f"{KIND}{'x' * 5_000}")


@pytest.mark.parametrize(
    ("body", "param", "what"),
    [
        (form(part("purpose", b"batch")), "file", "missing"),
        (form(file(), file()), "file", "more than one"),
        (form(part("purpose", b"b" * 9_000), file()), "purpose", "more than 8192 bytes"),
        (form(*(part(f"f{i}", b"") for i in range(17)), file()), "", "more than 16 fields"),
        (file(), "", "ends too early"),
        (b"no form at all", "", "not well formed"),
        (part("file", b"", f"; x={'y' * 10_000}"), "", "(not well formed|more than 8192 bytes)"),
        (part("file", b"", f"; x={'y' * 4_000}\r\nA: {'b' * 4_000}\r\nC: {'d' * 4_000}"), "", "more than 8192 bytes"),
    ],
)
async def test_a_wrong_form_is_refused_by_name(body: bytes, param: str, what: str) -> None:
    with pytest.raises(FormError, match=what) as refused:
        await read(made(body, 64))
    assert refused.value.param == param


async def test_a_body_beyond_the_limit_is_too_large() -> None:
    with pytest.raises(BodyTooLarge):
        await read(made(form(file()), 64, limit=1_000))


async def test_a_client_that_leaves_is_noticed() -> None:
    reading = UploadForm(KIND, receiving(b""), 1_000)
    with pytest.raises(ClientGone):
        await reading.begin()


async def test_a_client_that_falls_silent_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upload_form, "SILENCE_S", 0.01)

    async def silent() -> Message:
        await asyncio.Event().wait()
        raise AssertionError

    with pytest.raises(TimeoutError):
        await UploadForm(KIND, silent, 1_000).begin()


async def test_a_form_that_comes_to_no_file_in_time_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upload_form, "SILENCE_S", 0.01)

    async def trickling() -> Message:
        await asyncio.sleep(0)
        body = part("purpose", b"batch") if waiting.pop() else b""
        return {"type": "http.request", "body": body, "more_body": True}

    waiting = [False] * 100_000 + [True]
    with pytest.raises(TimeoutError):
        await UploadForm(KIND, trickling, 1_000).begin()
