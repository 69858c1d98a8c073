"""A model behind the front door."""

from __future__ import annotations

from dataclasses import dataclass

from sage_client import Model
from sage_gateway.asgi import Application


@dataclass(frozen=True, kw_only=True, slots=True)
class ServedModel:
    """A model, the application that answers its requests, and since when it does."""

    model: Model
    application: Application
    created: int  # seconds since 1970

    @property
    def names(self) -> tuple[str, ...]:
        """The names that requests may give: the model's own, and those of its LoRA adapters."""
        return (self.model.name, *self.model.adapters)

    def cards(self) -> list[dict[str, object]]:
        """Return the model and its adapters as /v1/models lists them."""
        own = {
            "id": self.model.name,
            "object": "model",
            "created": self.created,
            "owned_by": "sage",
            "root": self.model.name,
            "parent": None,
            "max_model_len": self.model.max_model_len,
            "ready_instances": self.model.ready,
        }
        return [own, *({**own, "id": name, "root": name, "parent": self.model.name} for name in self.model.adapters)]
