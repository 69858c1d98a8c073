"""Bodies of /v1/embeddings as EmbedRequest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sage.controlplane.v1 import inference_pb2
from scheduler_svc.transport.openai_lines import own_options
from scheduler_svc.transport.openai_lines.members import NO_TEXT, Members, is_text
from scheduler_svc.transport.violations import Violations

FORMATS = ("float", "base64")


def embedding(found: Mapping[str, Any], violations: Violations) -> inference_pb2.EmbedRequest:
    """Return what a body of /v1/embeddings asks for."""
    body = Members(found, violations)
    request = inference_pb2.EmbedRequest(model=body.text("model"), normalize=bool(body.flag("normalize")))
    _inputs(request, body)
    dimensions = body.integer("dimensions")
    if dimensions is not None:
        if 0 < dimensions < 2**32:
            request.dimensions = dimensions
        else:
            body.refuse("dimensions", f"is {str(dimensions)[:32]}, which is out of range")
    form = body.text("encoding_format")
    if form and form not in FORMATS:
        body.refuse("encoding_format", f"is none of {', '.join(FORMATS)}")
    request.as_bytes = form == "base64"
    own_options.fill_shared(request, own_options.take(body, violations))
    body.drop("user")
    body.refuse_rest()
    return request


def _inputs(request: inference_pb2.EmbedRequest, body: Members) -> None:
    found = body.take("input")
    inputs = found if isinstance(found, list) else [found]
    if inputs and all(type(each) is int for each in inputs):
        inputs = [inputs]
    for each in inputs:
        if isinstance(each, str):
            if not is_text(each):
                body.refuse("input", NO_TEXT)
                return
            request.inputs.add(text=each)
        elif isinstance(each, list) and each and all(type(one) is int and 0 <= one < 2**32 for one in each):
            request.inputs.add().tokens.ids.extend(each)
        else:
            body.refuse("input", "is neither a text, nor token ids, nor a list of them")
            return
    if not inputs:
        body.refuse("input", "is empty")
