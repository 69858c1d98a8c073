"""The options of ``sagectl generate`` and ``submit``, and their conversion to arguments of the SDK."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

import sage_client as sage
from sagectl.options.completion import complete_instance, complete_model

_F = TypeVar("_F", bound=Callable[..., Any])

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


def _engine_option(text: str) -> tuple[str, Any]:
    name, value = _key_value(text)
    try:
        return name, json.loads(value)
    except (ValueError, RecursionError):
        raise click.BadParameter(f"{value!r} is not JSON") from None


def _text_or_file(text: str) -> str:
    """Return the text, or the contents of the file named after a leading ``@``."""
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


_COUNT = click.IntRange(0, 2**32 - 1)
_COUNT_FROM_1 = click.IntRange(1, 2**32 - 1)
_SEED = click.IntRange(-(2**63), 2**63 - 1)
"""What the contract's fields can hold, and at least 1 where the scheduler refuses 0."""

PRIORITY = click.option("--priority", type=click.Choice(PRIORITIES, case_sensitive=False), help="Priority class.")

PROMPT = (
    click.option("--chat", is_flag=True, help="Send the prompt as a user message through the model's chat template."),
    click.option("--system", type=_text_or_file, metavar="TEXT|@FILE", help="System message; implies --chat."),
    click.option("--token-ids", type=_ids, metavar="ID,ID,...", help="Token ids to use instead of a prompt."),
    click.option("--model", shell_complete=complete_model, help="Model name.  [default: the only one that generates]"),
    click.option("--adapter", help="LoRA adapter name."),
)

SAMPLING = (
    click.option("--max-tokens", type=_COUNT_FROM_1, help="Maximum number of output tokens."),
    click.option("--min-tokens", type=_COUNT, help="Minimum number of output tokens before a stop condition applies."),
    click.option("--temperature", type=float, help="Sampling temperature, 0 to 2; 0 is greedy."),
    click.option("--top-p", type=float, help="Sample from the smallest set of tokens with this total probability."),
    click.option("--top-k", type=_COUNT, help="Sample from the K most likely tokens; 0: all."),
    click.option("--min-p", type=float, help="Minimum probability, relative to the most likely token."),
    click.option("--presence-penalty", type=float, help="Penalty for tokens that occurred in the output, -2 to 2."),
    click.option("--frequency-penalty", type=float, help="Penalty per occurrence in the output, -2 to 2."),
    click.option("--repetition-penalty", type=float, help="Factor against repeating tokens; 1 is none, at most 2."),
    click.option("--seed", type=_SEED, help="Random seed."),
    click.option("-n", type=_COUNT_FROM_1, help="Number of choices: outputs of the one prompt."),
    click.option("--stop", multiple=True, help="Stop string; may be repeated."),
    click.option("--stop-token-id", "stop_token_ids", type=_COUNT, multiple=True, help="Stop token; may be repeated."),
    click.option("--include-stop-in-output", is_flag=True, default=None, help="Keep the stop string in the output."),
    click.option("--ignore-eos", is_flag=True, default=None, help="Do not stop at the end-of-sequence token."),
    click.option(
        "--logprobs", type=_COUNT, help="Number of top log probabilities per output token; printed with --json."
    ),
    click.option("--prompt-logprobs", type=_COUNT, help="Number of top log probabilities per prompt token."),
    click.option(
        "--logit-bias",
        type=_bias,
        metavar="ID=BIAS",
        multiple=True,
        help="Bias of a token, -100 to 100; may be repeated.",
    ),
    click.option(
        "--allowed-token-id",
        "allowed_token_ids",
        type=_COUNT,
        multiple=True,
        help="Generate only such tokens; may be repeated.",
    ),
    click.option("--cache-salt", help="Share the prompt's KV only with prompts of the same salt."),
    click.option(
        "--engine-option",
        "engine_options",
        type=_engine_option,
        metavar="NAME=JSON",
        multiple=True,
        help="Option of the engine by its own name, if its operator allows it; may be repeated.",
    ),
    click.option("--bad-word", "bad_words", multiple=True, help="String that must not be generated; may be repeated."),
    click.option("--special-tokens/--no-special-tokens", default=None, help="Keep special tokens in the output text."),
    click.option(
        "--json-schema", type=_text_or_file, metavar="TEXT|@FILE", help="JSON Schema that the output must match."
    ),
    click.option("--json-object", is_flag=True, default=None, help="The output must be a JSON object."),
    click.option("--regex", help="Regular expression that the output must match."),
    click.option("--choice", multiple=True, help="Allowed output; repeat for several."),
    click.option(
        "--grammar", type=_text_or_file, metavar="TEXT|@FILE", help="EBNF grammar that the output must match."
    ),
    click.option(
        "--structural-tag",
        type=_text_or_file,
        metavar="TEXT|@FILE",
        help="Structural tag (JSON, xgrammar's form) that the output must match.",
    ),
)

SCHEDULING = (
    PRIORITY,
    click.option("--deadline", type=float, metavar="SECONDS", help="Seconds after which the request expires."),
    click.option("--ttft-target", type=float, metavar="SECONDS", help="Target for the time to first token."),
    click.option(
        "--tpot-target", type=float, metavar="SECONDS", help="Target for the time per output token after the first."
    ),
    click.option("--cost-budget", type=float, help="Cost budget, in the currency of the instances' prices."),
    click.option(
        "--session", help="Conversation id; requests of one session prefer the instance that cached their prefix."
    ),
    click.option(
        "--tag",
        "tags",
        type=_key_value,
        metavar="KEY=VALUE",
        multiple=True,
        help="Tag for your own use; may be repeated.",
    ),
    click.option(
        "--preferred-instance",
        shell_complete=complete_instance,
        help="Instance to use if it is eligible and has capacity: its id, or the beginning of it.",
    ),
    click.option(
        "--wait",
        is_flag=True,
        help="Wait in the queue if no instance of the model can serve it now, else fail; an unknown model is refused.",
    ),
    click.option("--best-effort", is_flag=True, help="After a failover, continue even if the replayed tokens differ."),
    click.option(
        "--request-id", help="Request id; the id of an existing request attaches to it.  [default: generated]"
    ),
    click.option("--after-token", type=_COUNT, help="Stream from this output position on; for attaching to a request."),
    click.option("--detached", is_flag=True, help="Keep the request running when this command ends."),
    click.option("--timeout", type=float, metavar="SECONDS", help="Timeout of the whole command."),
)


def generation_options(command: _F) -> _F:
    """Add the options of prompt, sampling and scheduling to a command."""
    for option in reversed((*PROMPT, *SAMPLING, *SCHEDULING)):
        command = option(command)
    return command


_OTHER_NAMES = {
    "skip_special_tokens": "special_tokens",
    "no_instance": "wait",
    "resume_mode": "best_effort",
    "text": "prompt",
}
"""Parameters that have another name than the field of the contract."""


def flag_of(field: str, command: click.Command) -> str:
    """Return the flag that sets a field of the contract, like ``--top-p`` for ``spec.sampling.top_p``.

    For an argument it is the argument's name, like ``PROMPT``.  A field that neither sets is returned as it is.
    """
    name = field.rpartition(".")[2].partition("[")[0]
    name = _OTHER_NAMES.get(name, name)
    for option in command.params:
        if option.name == name and isinstance(option, click.Option):
            return max(option.opts, key=len)
        if option.name == name and isinstance(option, click.Argument):
            return option.human_readable_name
    return field


def to_sdk(options: dict[str, Any]) -> sage.GenerateOptions:
    """Return keyword arguments of ``Client.generate``; options that were not given are left out."""
    given: dict[str, Any] = {name: value for name, value in options.items() if value not in (None, ())}
    for pairs in ("tags", "logit_bias", "engine_options"):
        if pairs in given:
            given[pairs] = dict(given[pairs])
    if "special_tokens" in given:
        given["skip_special_tokens"] = not given.pop("special_tokens")
    if given.pop("wait", False):
        given["no_instance"] = sage.NoInstance.WAIT
    if given.pop("best_effort", False):
        given["resume_mode"] = sage.ResumeMode.BEST_EFFORT
    return given  # type: ignore[return-value]
