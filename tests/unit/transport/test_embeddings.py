"""What callers say of embeddings arrives in control."""

from __future__ import annotations

import pytest

from sage.controlplane.v1 import inference_pb2
from scheduler_svc.domain.errors import InvalidRequest
from scheduler_svc.domain.request import Embedding
from scheduler_svc.transport import embeddings


@pytest.mark.parametrize(("request_id", "fresh", "new"), [("", False, True), ("r", False, False), ("r", True, True)])
async def test_inputs_without_an_id_or_with_a_fresh_one_are_new(request_id: str, fresh: bool, new: bool) -> None:
    request = inference_pb2.EmbedRequest(
        request_id=request_id, fresh=fresh, inputs=[inference_pb2.EmbedInput(text="x")]
    )
    (found,) = await embeddings.submissions(request, {}, tenant="t")
    assert found.fresh is new


async def test_a_vector_is_scaled_or_left_as_it_is() -> None:
    request = inference_pb2.EmbedRequest(raw=True, inputs=[inference_pb2.EmbedInput(text="x")])
    (found,) = await embeddings.submissions(request, {}, tenant="t")
    assert found.embedding == Embedding(raw=True)
    request.normalize = True
    with pytest.raises(InvalidRequest, match="raw"):
        await embeddings.submissions(request, {}, tenant="t")
