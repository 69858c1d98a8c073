"""Options of ``sagectl generate``, by what they speak of, and what they mean to the SDK."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

import sage_client as sage

PRIORITIES = [priority.name.lower() for priority in sage.Priority]


def _key_value(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise click.BadParameter(f"{text!r} is not KEY=VALUE")
    return key, value


def _bias(text: str) -> tuple[int, float]:
    token, _, bias = text.partition("=")
    try:
        return int(token), float(bias)
    except ValueError:
        raise click.BadParameter(f"{text!r} is not TOKEN_ID=BIAS") from None


def _text_or_file(text: str) -> str:
    """Text, or with a leading ``@`` the name of a file that holds it."""
    if not text.startswith("@"):
        return text
    try:
        return Path(text[1:]).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise click.BadParameter(f"cannot read {text[1:]}: {error}") from error


def _ids(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",") if part.strip()]
    except ValueError:
        raise click.BadParameter(f"{text!r} is not a list of token ids") from None


PROMPT = (
    click.option("--chat", is_flag=True, help="The prompt is a user's message, for the model's chat template."),
    click.option("--system", type=_text_or_file, metavar="TEXT|@FILE", help="System message; implies --chat."),
    click.option("--token-ids", type=_ids, metavar="ID,ID,...", help="Token ids instead of a prompt."),
    click.option("--model", help="Model; may be left out if the fleet serves exactly one."),
    click.option("--adapter", help="LoRA adapter."),
)

SAMPLING = (
    click.option("--max-tokens", type=int, help="Output tokens at most."),
    click.option("--min-tokens", type=int, help="Output tokens before any stop counts."),
    click.option("--temperature", type=float, help="0 is greedy."),
    click.option("--top-p", type=float),
    click.option("--top-k", type=int, help="0 considers all tokens."),
    click.option("--min-p", type=float),
    click.option("--presence-penalty", type=float),
    click.option("--frequency-penalty", type=float),
    click.option("--repetition-penalty", type=float),
    click.option("--seed", type=int),
    click.option("-n", type=int, help="Choices."),
    click.option("--stop", multiple=True, help="String that ends generation; may be repeated."),
    click.option("--stop-token-id", "stop_token_ids", type=int, multiple=True, help="May be repeated."),
    click.option("--include-stop-in-output", is_flag=True, default=None),
    click.option("--ignore-eos", is_flag=True, default=None, help="Do not stop at the end of the sequence."),
    click.option("--logprobs", type=int, help="Top log probabilities per token (shown with --json)."),
    click.option("--prompt-logprobs", type=int),
    click.option("--logit-bias", type=_bias, metavar="ID=BIAS", multiple=True, help="May be repeated."),
    click.option("--allowed-token-id", "allowed_token_ids", type=int, multiple=True, help="May be repeated."),
    click.option("--bad-word", "bad_words", multiple=True, help="May not be generated; may be repeated."),
    click.option("--special-tokens/--no-special-tokens", default=None, help="Show special tokens in the text."),
    click.option(
        "--json-schema", type=_text_or_file, metavar="TEXT|@FILE", help="The output satisfies this JSON Schema."
    ),
    click.option("--json-object", is_flag=True, default=None, help="The output is a JSON object."),
    click.option("--regex", help="The output matches."),
    click.option("--choice", multiple=True, help="The output is one of these; may be repeated."),
    click.option("--grammar", type=_text_or_file, metavar="TEXT|@FILE", help="The output satisfies this EBNF grammar."),
)

SCHEDULING = (
    click.option("--priority", type=click.Choice(PRIORITIES), help="Class."),
    click.option("--deadline", type=float, metavar="SECONDS", help="The request expires then."),
    click.option("--ttft-target", type=float, metavar="SECONDS", help="Aim for the first token."),
    click.option("--tpot-target", type=float, metavar="SECONDS", help="Aim for each later token."),
    click.option("--cost-budget", type=float, help="In the currency of the instances' price."),
    click.option("--session", help="Requests of one conversation, for cache affinity."),
    click.option(
        "--tag", "tags", type=_key_value, metavar="KEY=VALUE", multiple=True, help="For your own use; may be repeated."
    ),
    click.option("--preferred-instance", help="Used if it is eligible and has room."),
    click.option("--wait", is_flag=True, help="Wait in the queue if no instance serves the model now."),
    click.option("--best-effort", is_flag=True, help="If a continuation elsewhere differs, go on all the same."),
    click.option("--request-id", help="Made up if left out.  A known id attaches to its request."),
    click.option("--after-token", type=int, help="Stream from this output position on."),
    click.option("--detached", is_flag=True, help="Keep generating when this command ends."),
    click.option("--timeout", type=float, metavar="SECONDS", help="Bound of the whole command."),
)


def to_sdk(options: dict[str, Any]) -> sage.GenerateOptions:
    """Keyword arguments of ``Client.generate``; what was not said is left out."""
    given: dict[str, Any] = {name: value for name, value in options.items() if value not in (None, ())}
    for pairs in ("tags", "logit_bias"):
        if pairs in given:
            given[pairs] = dict(given[pairs])
    if "special_tokens" in given:
        given["skip_special_tokens"] = not given.pop("special_tokens")
    if given.pop("wait", False):
        given["no_instance"] = sage.NoInstance.WAIT
    if given.pop("best_effort", False):
        given["resume_mode"] = sage.ResumeMode.BEST_EFFORT
    return given  # type: ignore[return-value]
