"""The tiny model with a template that renders tools and their calls, and with the tokens that enclose reasoning."""

from __future__ import annotations

import json
from pathlib import Path

from executor_svc.engine.tiny_model import make_tiny_model

THINK, NO_MORE = "<think>", "</think>"
TEMPLATE = (
    "{% if tools %}<|im_start|>system\n{% for tool in tools %}{{ tool | tojson }}\n{% endfor %}<|im_end|>\n{% endif %}"
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{% if message.content %}{{ message.content }}{% endif %}"
    "{% for call in message.tool_calls or [] %}<tool_call>"
    '{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}'
    "</tool_call>{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def make_thinking_model(path: Path) -> int:
    """Make the model at ``path``; return the id of the token that ends reasoning."""
    make_tiny_model(path, "float32")
    tokenizer = json.loads((path / "tokenizer.json").read_text())
    vocabulary: dict[str, int] = tokenizer["model"]["vocab"]
    last = max(vocabulary.values())
    for id_, text in ((last - 1, THINK), (last, NO_MORE)):
        taken = next(word for word, number in vocabulary.items() if number == id_)  # no merge makes more of it
        del vocabulary[taken]
        tokenizer["model"]["merges"] = [
            pair for pair in tokenizer["model"]["merges"] if taken not in ("".join(pair), *pair)
        ]
        tokenizer["added_tokens"].append(
            {
                "id": id_,
                "content": text,
                "special": False,
                "normalized": False,
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
            }
        )
    (path / "tokenizer.json").write_text(json.dumps(tokenizer))
    config = json.loads((path / "tokenizer_config.json").read_text())
    (path / "tokenizer_config.json").write_text(json.dumps({**config, "chat_template": TEMPLATE}))
    return last
