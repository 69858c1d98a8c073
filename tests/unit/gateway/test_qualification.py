"""Which requests are plain streams."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from sage_gateway.plain_streams.qualification import allows_plain_streams, is_plain_chat, is_plain_completion
from sage_gateway.request_options import RequestOptions

OPTIONS = RequestOptions()


def request(**fields: Any) -> Any:
    plain = {"n": 1, "use_beam_search": False, "echo": False, "return_token_ids": None, "max_tokens": 5}
    return SimpleNamespace(**plain, **{"return_prompt_text": None, "tools": None, **fields})


def chat(**fields: Any) -> Any:
    made = request(logprobs=False)
    vars(made).update(fields)
    return made


def completion(**fields: Any) -> Any:
    made = request(logprobs=None)
    vars(made).update(fields)
    return made


def serving(**fields: Any) -> Any:
    return SimpleNamespace(
        **{"enable_per_request_metrics": False, "parser_cls": None, "enable_log_outputs": False} | fields
    )


@pytest.mark.parametrize("n", [None, 1])
def test_a_stream_of_one_text_is_plain(n: int | None) -> None:
    assert is_plain_chat(chat(n=n), serving(), OPTIONS)
    assert is_plain_completion(completion(n=n), serving(), OPTIONS, 1)


COMMON: list[dict[str, Any]] = [{"n": 2}, {"use_beam_search": True}, {"echo": True}, {"return_token_ids": True}]


@pytest.mark.parametrize("fields", [*COMMON, {"logprobs": True}, {"return_prompt_text": True}, {"tools": [object()]}])
def test_a_chat_that_asks_for_more_is_not(fields: dict[str, Any]) -> None:
    assert not is_plain_chat(chat(**fields), serving(), OPTIONS)


@pytest.mark.parametrize("fields", [*COMMON, {"logprobs": 0}, {"max_tokens": None}])
def test_a_completion_that_asks_for_more_is_not(fields: dict[str, Any]) -> None:
    assert not is_plain_completion(completion(**fields), serving(), OPTIONS, 1)


def test_several_prompts_are_not() -> None:
    assert not is_plain_completion(completion(), serving(), OPTIONS, 2)


@pytest.mark.parametrize(
    "of", [{"parser_cls": object}, {"enable_log_outputs": True}, {"enable_per_request_metrics": True}]
)
def test_a_server_that_does_more_writes_by_itself(of: dict[str, Any]) -> None:
    assert not is_plain_chat(chat(), serving(**of), OPTIONS)


@pytest.mark.parametrize(
    ("middleware", "keep_alive_s", "allowed"),
    [([], 0, True), ([], None, True), (["a.B"], 0, False), ([], 15.0, False)],
)
def test_what_sees_every_event_of_a_server_is_not_passed_by(
    middleware: list[str], keep_alive_s: float | None, allowed: bool
) -> None:
    assert allows_plain_streams(middleware, keep_alive_s) is allowed


def test_a_caller_who_wants_a_report_has_no_plain_stream() -> None:
    options = RequestOptions(report=True)
    assert not is_plain_chat(chat(), serving(), options)
    assert not is_plain_completion(completion(), serving(), options, 1)
