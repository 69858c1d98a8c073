"""OpenAI's format of batches: what a line asks for, and how its result is written."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from sage.controlplane.v1 import inference_pb2
from sage_wire.batches import CHAT_COMPLETIONS, COMPLETIONS, EMBEDDINGS, ENDPOINTS
from scheduler_svc.control.batches.line_codec import BatchLine, LineFault, NotRun
from scheduler_svc.control.journal.batches import StoredBatch
from scheduler_svc.control.requests.live_request import LiveRequest
from scheduler_svc.control.requests.request_group import vector_of
from scheduler_svc.control.requests.submission import Submission
from scheduler_svc.domain.errors import FieldViolation, InvalidRequest
from scheduler_svc.transport import embeddings
from scheduler_svc.transport.openai_lines import answers, failures, generation
from scheduler_svc.transport.openai_lines.embedding import embedding
from scheduler_svc.transport.submissions import submission
from scheduler_svc.transport.violations import Violations

CUSTOM_ID_CHARACTERS = 512
RESULT_BYTES = 16 * 2**20
VECTOR_NUMBERS = 65_536  # written as text, which takes the event loop about 30 ms
VECTOR_BYTES = 4 * 2**20  # written as base64
"""Bounds of one line's result, and of the vectors in it."""


class OpenAiLines:
    """Implements ``control.batches.line_codec.LineCodec``."""

    def parse(self, content: bytes, index: int, endpoint: str) -> BatchLine:
        """Return a line.  Raises LineFault."""
        try:
            found = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise LineFault("invalid_json_line", f"the line is not JSON: {error}") from None
        if not isinstance(found, dict):
            raise LineFault("invalid_json_line", "the line is not a JSON object")
        custom_id, url, body = found.get("custom_id"), found.get("url"), found.get("body")
        if not isinstance(custom_id, str) or not 0 < len(custom_id) <= CUSTOM_ID_CHARACTERS:
            problem = f"custom_id is not a text of 1 to {CUSTOM_ID_CHARACTERS} characters"
            raise LineFault("missing_required_parameter", problem, "custom_id")
        if found.get("method", "POST") != "POST":
            raise LineFault("invalid_method", "method is not POST", "method")
        if url not in ENDPOINTS:
            raise LineFault("invalid_url", f"url is none of {', '.join(ENDPOINTS)}", "url")
        if endpoint and url != endpoint:
            raise LineFault("mismatched_url", f"url is {url}, and the batch's endpoint is {endpoint}", "url")
        if not isinstance(body, dict):
            raise LineFault("missing_required_parameter", "body is not a JSON object", "body")
        digest = hashlib.sha256(content).digest()
        return BatchLine(index=index, custom_id=custom_id, url=url, body=body, digest=digest)

    async def requests(self, line: BatchLine, batch: StoredBatch, deadline_s: float) -> Sequence[Submission]:
        """Return what a line asks for, as requests of the batch's tenant.  Raises InvalidRequest."""
        violations = Violations()
        made: Sequence[Submission]
        if line.url == EMBEDDINGS:
            made = await self._embeddings(line, batch, violations)
        else:
            translate = generation.chat if line.url == CHAT_COMPLETIONS else generation.completion
            specs = translate(line.body, violations)
            _raise(violations)
            made = [await _generation(spec, batch, _name(line, batch, place)) for place, spec in enumerate(specs)]
        stated = bool((line.body.get("sage") or {}).get("priority"))
        return [
            replace(
                each,
                media=made[0].media,  # choices of a line share them
                digest=hashlib.sha256(line.digest + place.to_bytes(4, "big")).digest(),
                priority=each.priority if stated else batch.priority,
                deadline_s=deadline_s,
                deadline_is_target=False,
                wait_for_instance=False,  # the line itself waits, and takes no place meanwhile
                fresh=False,
            )
            for place, each in enumerate(made)
        ]

    def succeeded(self, line: BatchLine, batch: StoredBatch, requests: Sequence[LiveRequest], now: float) -> bytes:
        """Return the result of a line whose requests finished.  Raises InvalidRequest if it is too large."""
        answer_id = _id(line, batch)
        if line.url == EMBEDDINGS:
            as_base64 = line.body.get("encoding_format") == "base64"
            _check_vectors(requests, as_base64=as_base64)
            body = answers.embeddings(answer_id, requests, now, as_base64=as_base64)
        elif line.url == COMPLETIONS:
            body = answers.completion(answer_id, requests, now, prompts=len(requests) // (line.body.get("n") or 1))
        else:
            body = answers.chat(answer_id, requests, now)
        made = _line(line, batch, response=_response(line, batch, 200, body))
        if len(made) > RESULT_BYTES:
            raise _invalid(
                "n", f"the result has {len(made)} bytes; the limit is {RESULT_BYTES}: ask for less in one line"
            )
        return made

    def failed(self, line: BatchLine, batch: StoredBatch, error: Exception) -> bytes:
        """Return the result of a line that was refused, or whose requests did not finish."""
        status, body = failures.failure(error)
        return _line(line, batch, response=_response(line, batch, status, body))

    def not_run(self, line: BatchLine, batch: StoredBatch, why: NotRun) -> bytes:
        """Return the result of a line whose batch ended before it did."""
        return _line(line, batch, error={"code": why.code, "message": why.message})

    async def _embeddings(self, line: BatchLine, batch: StoredBatch, violations: Violations) -> Sequence[Submission]:
        request = embedding(line.body, violations)
        _raise(violations)
        request.request_id = _name(line, batch)
        return await embeddings.submissions(request, {}, tenant=batch.key.tenant)


async def _generation(spec: inference_pb2.GenerationSpec, batch: StoredBatch, name: str) -> Submission:
    request = inference_pb2.GenerateRequest(request_id=name, spec=spec)
    return await submission(request, {}, tenant=batch.key.tenant)


def _raise(violations: Violations) -> None:
    if violations:
        raise InvalidRequest(violations)


def _check_vectors(requests: Sequence[LiveRequest], *, as_base64: bool) -> None:
    """Raise InvalidRequest for more vectors than one line may have."""
    size = sum(len(vector_of(live)) for live in requests)
    limit = VECTOR_BYTES if as_base64 else VECTOR_NUMBERS * embeddings.FLOAT_BYTES
    if size > limit:
        most = f"the limit is {limit // embeddings.FLOAT_BYTES}"
        how = "" if as_base64 else ", or ask for encoding_format base64"
        raise _invalid("input", f"gives {size // embeddings.FLOAT_BYTES} numbers; {most}: ask for less in a line{how}")


def _invalid(field: str, description: str) -> InvalidRequest:
    return InvalidRequest([FieldViolation(field=field, description=description)])


def _name(line: BatchLine, batch: StoredBatch, place: int = 0) -> str:
    """Return the id of a line's request; ``place``: among several."""
    name = f"{batch.key.id}/{line.index}"
    return f"{name}/{place}" if place else name


def _id(line: BatchLine, batch: StoredBatch) -> str:
    """Return an id that the line has in every result, however often it runs."""
    name = f"{batch.key.tenant}\0{_name(line, batch)}".encode(errors="replace")
    return hashlib.sha256(name).hexdigest()[:32]


def _response(line: BatchLine, batch: StoredBatch, status: int, body: dict[str, Any]) -> dict[str, Any]:
    return {"status_code": status, "request_id": _name(line, batch), "body": body}


def _line(
    line: BatchLine, batch: StoredBatch, response: dict[str, Any] | None = None, error: dict[str, Any] | None = None
) -> bytes:
    """Return a line of the output or of the error file.  A character that UTF-8 does not have is an escape of JSON."""
    made = {"id": f"batch_req_{_id(line, batch)}", "custom_id": line.custom_id, "response": response, "error": error}
    return (json.dumps(made, ensure_ascii=False) + "\n").encode(errors="backslashreplace")
