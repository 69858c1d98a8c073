"""Finds out whether a chat template reads the content of a message as a text or as a list of parts.

Templates of models that take images loop over ``message.content``.  Given a text, such a loop sees single characters
and drops what the user says.  The template's syntax tree shows the loop; vLLM decides the same way
(``chat_template_content_format``).
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum

from jinja2 import nodes


class ContentShape(Enum):
    """What a template takes as the content of a message."""

    TEXT = "text"
    PARTS = "parts"  # [{"type": "text", "text": ...}, ...]


def content_shape(tree: nodes.Template) -> ContentShape:
    """Return what the template of this syntax tree takes."""
    return ContentShape.PARTS if any(_loops_over_content(tree)) else ContentShape.TEXT


def _loops_over_content(tree: nodes.Template) -> Iterator[nodes.For]:
    messages = _names_of(tree, "messages")
    message = {
        loop.target.name
        for loop in tree.find_all(nodes.For)
        if isinstance(loop.target, nodes.Name) and _is_name(_origin(loop.iter), messages)
    }
    inside: dict[int, set[str]] = {}  # by loop inside a macro: the macro's parameters that are given content
    for macro in tree.find_all(nodes.Macro):
        given = _parameters_given_content(tree, macro, message)
        inside.update((id(loop), given) for loop in macro.find_all(nodes.For))
    for loop in tree.find_all(nodes.For):
        source = _origin(loop.iter)
        names = inside.get(id(loop), {"content"})
        if _is_content(source, message) or _is_name(source, names):
            yield loop


def _names_of(tree: nodes.Template, variable: str) -> set[str]:
    """Return the variables that hold the value of ``variable``, or a part of it, through assignments."""
    known = {variable}
    while True:
        more = {
            each.target.name
            for each in tree.find_all(nodes.Assign)
            if isinstance(each.target, nodes.Name) and _is_name(_origin(each.node), known)
        }
        if more <= known:
            return known
        known |= more


def _parameters_given_content(tree: nodes.Template, macro: nodes.Macro, message: set[str]) -> set[str]:
    parameters = [argument.name for argument in macro.args]
    found: set[str] = set()
    for call in tree.find_all(nodes.Call):
        if not (isinstance(call.node, nodes.Name) and call.node.name == macro.name):
            continue
        given = [*zip(parameters, call.args, strict=False), *((each.key, each.value) for each in call.kwargs)]
        found |= {name for name, value in given if name in parameters and _is_content(_origin(value), message)}
    return found


def _origin(node: nodes.Node) -> nodes.Node:
    """Return what filters, tests and slices are applied to."""
    while True:
        inner: nodes.Node | None = None
        if isinstance(node, nodes.Filter | nodes.Test) or (
            isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Slice)
        ):
            inner = node.node
        if inner is None:
            return node
        node = inner


def _is_name(node: nodes.Node, names: set[str]) -> bool:
    return isinstance(node, nodes.Name) and node.ctx == "load" and node.name in names


def _is_content(node: nodes.Node, message: set[str]) -> bool:
    if isinstance(node, nodes.Getattr):
        return node.attr == "content" and _is_name(node.node, message)
    if isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Const):
        return node.arg.value == "content" and _is_name(node.node, message)
    return False
