"""A command of ``sagectl``: its help shows examples first, and the options that every command has last."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import click

Example = tuple[str, str]
"""Arguments, as they are written after ``sagectl``, and what they do."""


SENTENCE = 120  # characters of a command's first sentence, which are not cut


class SharedOption(click.Option):
    """An option that every command with a scheduler has; help lists it in a section of its own."""

    def __init__(self, *args: Any, section: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.section = section


class Command(click.Command):
    """A command with examples."""

    def __init__(self, *args: Any, examples: Sequence[Example] = (), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.examples = examples

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples, the command's own options, then the shared ones by section."""
        write_examples(self.examples, formatter)
        write_options(self.get_params(ctx), ctx, formatter)


class Group(click.Group):
    """A command that has commands, with examples of its own."""

    command_class = Command

    def __init__(self, *args: Any, examples: Sequence[Example] = (), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.examples = examples

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples, the options by section, then the commands."""
        write_examples(self.examples, formatter)
        self.format_commands(ctx, formatter)
        write_options(self.get_params(ctx), ctx, formatter)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands in their order, each with its whole first sentence."""
        write_commands("Commands", self.commands.values(), formatter)


def command(*args: Any, **kwargs: Any) -> Callable[[Callable[..., Any]], Command]:
    """Make a ``Command`` of a function, as ``click.command`` does."""
    return click.command(*args, cls=Command, **kwargs)


def group(*args: Any, **kwargs: Any) -> Callable[[Callable[..., Any]], Group]:
    """Make a ``Group`` of a function, as ``click.group`` does."""
    return click.group(*args, cls=Group, **kwargs)


def takes(command: click.Command, option: SharedOption) -> bool:
    """Return whether a command, or one of a group, has a shared option."""
    if isinstance(command, click.Group):
        return any(takes(each, option) for each in command.commands.values())
    return any(isinstance(each, SharedOption) and each.name == option.name for each in command.params)


def write_examples(examples: Sequence[Example], formatter: click.HelpFormatter) -> None:
    """Write a line per example; what it does goes above it where both do not fit side by side."""
    if not examples:
        return
    with formatter.section("Examples"):
        for arguments, about in examples:
            formatter.write(f"{'':>{formatter.current_indent}}# {about}\n")
            formatter.write(f"{'':>{formatter.current_indent}}sagectl {arguments}\n")


def write_commands(title: str, commands: Iterable[click.Command], formatter: click.HelpFormatter) -> None:
    """Write a line or two per command."""
    with formatter.section(title):
        formatter.write_dl([(each.name or "", each.get_short_help_str(SENTENCE)) for each in commands])


def write_options(params: Sequence[click.Parameter], ctx: click.Context, formatter: click.HelpFormatter) -> None:
    """Write the options, those of each section together."""
    sections: dict[str, list[tuple[str, str]]] = {"Options": []}
    for param in params:
        if not isinstance(param, click.Option):
            continue  # arguments stand in the line of usage, and in the text
        section = param.section if isinstance(param, SharedOption) else "Options"
        if (record := param.get_help_record(ctx)) is not None:
            sections.setdefault(section, []).append(record)
    for title in sorted(sections, key=lambda each: each != "Options"):
        if sections[title]:
            with formatter.section(title):
                formatter.write_dl(sections[title])
