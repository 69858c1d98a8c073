"""Has executors send the tokenizers that the scheduler lacks."""

from __future__ import annotations

from scheduler_svc.control.instances.session import Session
from scheduler_svc.control.instances.session_table import SessionTable
from scheduler_svc.control.requests.model_directory import ModelDirectory
from scheduler_svc.domain.engine_facts import EngineFacts
from scheduler_svc.domain.scheduler import Scheduler


class TokenizerSources:
    """Asks one live instance of a model for its tokenizer's files where they are missing."""

    def __init__(self, scheduler: Scheduler, table: SessionTable, models: ModelDirectory) -> None:
        self._scheduler = scheduler
        self._table = table
        self._models = models
        models.on_missing_tokenizer(self._ask)

    def engine_ready(self, session: Session, facts: EngineFacts) -> None:
        """Have the requests that wait for the model go on, once its tokenizer is here."""
        if self._models.lacks(facts.tokenizer_hash):
            self._models.asked(facts.tokenizer_hash)
            session.link.want_tokenizer(facts.tokenizer_hash)
        self._models.ready(session.instance.spec.model)

    def _ask(self, model: str, tokenizer_hash: str) -> None:
        """Ask a live instance of the model for files that were dropped to make room for others."""
        for instance in self._scheduler.instances(model):
            session = self._table.find(instance.instance_id)
            facts = instance.facts
            if session is not None and session.up and facts is not None and facts.tokenizer_hash == tokenizer_hash:
                session.link.want_tokenizer(tokenizer_hash)
                return
