"""Which requests are plain: streamed, of one text, and asking for nothing but the text and its usage.

All others are answered by vLLM's own response objects.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sage_gateway.request_options import RequestOptions


def allows_plain_streams(middleware: Sequence[str], keep_alive_s: float | None) -> bool:
    """Return whether a server may have plain streams: their events pass by its middleware and its keep-alive comments.

    ``keep_alive_s``: seconds after which the server writes such a comment; None or 0: it writes none.
    """
    return not middleware and not keep_alive_s


def is_plain_chat(request: Any, serving: Any, options: RequestOptions) -> bool:
    """Return whether a chat completion is plain.

    Args:
        request: vLLM's ``ChatCompletionRequest``, which is streamed.
        serving: vLLM's ``OpenAIServingChat``; one that parses tools or reasoning, or logs outputs, writes by itself.
        options: what the caller asked for beyond OpenAI's fields.
    """
    return (
        _is_plain(request, serving, options)
        and serving.parser_cls is None
        and not serving.enable_log_outputs
        and not request.logprobs
        and not request.return_prompt_text
        and not request.tools
    )


def is_plain_completion(request: Any, serving: Any, options: RequestOptions, prompts: int) -> bool:
    """Return whether a text completion is plain.

    Args:
        request: vLLM's ``CompletionRequest``, which is streamed.
        serving: vLLM's ``OpenAIServingCompletion``.
        options: what the caller asked for beyond OpenAI's fields.
        prompts: number of the request's prompts.
    """
    return (
        _is_plain(request, serving, options)
        and prompts == 1
        and request.logprobs is None
        and request.max_tokens is not None
    )


def _is_plain(request: Any, serving: Any, options: RequestOptions) -> bool:
    return (
        request.n in (None, 1)
        and not request.use_beam_search
        and not request.echo
        and not request.return_token_ids
        and not serving.enable_per_request_metrics
        and not options.report
    )
