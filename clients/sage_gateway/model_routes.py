"""The routes that a model's application answers: POST, with a JSON object that may name the model."""

from __future__ import annotations

from sage_client import Model

EMBED = "/v1/embeddings"
CLASSIFY = "/classify"
GENERATE = frozenset(
    {
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/responses",
        "/v1/messages",
        "/v1/messages/count_tokens",
    }
)
POOL = frozenset(
    {EMBED, CLASSIFY, "/pooling", "/v1/score", "/score", "/v1/rerank", "/v2/rerank", "/rerank"},
)
TOKENIZE = frozenset({"/tokenize", "/detokenize"})

MODEL_ROUTES = GENERATE | POOL | TOKENIZE

OWN_ROUTES = TOKENIZE | {"/v1/messages/count_tokens"}
"""Those that are answered here, so that the caller is not judged by a request at the scheduler."""


def why_not(model: Model, path: str) -> str:
    """Return why a model does not answer one of the routes, as what follows its name; empty if it does."""
    if path in GENERATE and model.embeds:
        return f"{_does(model)} and does not generate"
    if path in POOL and not model.embeds:
        return "generates and does not embed"
    if path == CLASSIFY and not model.classifies:
        return "embeds and does not classify"
    if path == EMBED and model.classifies:
        return "classifies and does not embed"
    return ""


def _does(model: Model) -> str:
    return "classifies" if model.classifies else "embeds"
