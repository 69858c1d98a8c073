"""The models that the fleet serves, and the files with which a front end tokenizes for them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Protocol

from sage.controlplane.v1 import inference_pb2
from sage_common.clock import Clock
from scheduler_svc.control.requests.model_directory import TOKENIZER_WAIT_S, ModelDirectory
from scheduler_svc.domain.engine_facts import EngineFacts
from scheduler_svc.domain.instance_spec import InstanceRole
from scheduler_svc.domain.instance_state import GONE, InstanceState
from scheduler_svc.domain.scheduler import Scheduler
from scheduler_svc.transport import media_inputs

PIECE_BYTES = 1024 * 1024
"""Most bytes of the tokenizer in one message."""


class TokenizerDocuments(Protocol):
    """The files of the tokenizers that are here."""

    def document(self, tokenizer_hash: str, piece_bytes: int) -> Iterator[bytes]:
        """Return the files as one JSON document, in pieces.  Raises KeyError if the tokenizer is not here."""
        ...


class ModelFiles:
    """Describes the models of the fleet."""

    def __init__(
        self, scheduler: Scheduler, models: ModelDirectory, documents: TokenizerDocuments, clock: Clock
    ) -> None:
        self._scheduler = scheduler
        self._models = models
        self._documents = documents
        self._clock = clock

    def listed(self) -> inference_pb2.ListModelsResponse:
        """Return all models, by name."""
        return inference_pb2.ListModelsResponse(models=[self._view(name) for name in self._models.names()])

    async def files(self, model: str) -> Iterator[inference_pb2.GetModelFilesResponse]:
        """Return the messages with a model's configuration and tokenizer.

        Waits up to TOKENIZER_WAIT_S for a tokenizer that an executor is sending.

        Raises UnknownModel, NoInstance, InvalidRequest.
        """
        name, facts = await self._models.resolve(model, wait=False, until=self._clock.now() + TOKENIZER_WAIT_S)
        first = facts[0]
        configuration = inference_pb2.ModelConfiguration(
            model=self._view(name, tokenizer_hash=first.tokenizer_hash),
            config_json=first.config_json,
            generation_config_json=first.generation_config_json,
            processor_files=_processor_files(each for each in facts if each.tokenizer_hash == first.tokenizer_hash),
        )
        return _messages(configuration, self._documents.document(first.tokenizer_hash, PIECE_BYTES))

    def _view(self, name: str, *, tokenizer_hash: str | None = None) -> inference_pb2.ModelView:
        """Return what is known of a model; ``tokenizer_hash`` selects the facts that are meant, if it is given."""
        instances = [each for each in self._scheduler.instances(name) if each.state not in GONE]
        view = inference_pb2.ModelView(
            model=name,
            instances=len(instances),
            ready_instances=sum(each.state is InstanceState.READY for each in instances),
            waiting=self._scheduler.waiting(name),
            revisions=sorted({each.facts.revision for each in instances if each.facts and each.facts.revision}),
            embeds=bool(instances) and all(each.spec.role is InstanceRole.EMBEDDING for each in instances),
        )
        known = [f for f in self._models.facts(name) if tokenizer_hash in (None, f.tokenizer_hash)]
        if known:
            facts = known[0]
            view.max_model_len = facts.max_model_len
            view.vocab_size = facts.vocab_size
            view.dtype = facts.dtype
            view.classifies = facts.classifies
            view.tokenizer_hash = facts.tokenizer_hash
            alike = [f for f in known if f.tokenizer_hash == facts.tokenizer_hash]
            view.adapters.extend(sorted({name for each in alike for name in _adapters(each)}))
            view.files_hash = _hash(facts, _processor_files(alike))
            media_inputs.show(view, alike)
        return view


def _adapters(facts: EngineFacts) -> frozenset[str]:
    """Return the adapters that new requests may name at an engine with these facts."""
    return (facts.adapters | facts.run_time.loadable) - facts.run_time.leaving


def _processor_files(alike: Iterable[EngineFacts]) -> Mapping[str, str]:
    """Return how images and audio are processed, as the first engine says that takes any; nothing if none does.

    ``alike``: engines of one tokenizer.
    """
    return next((each.processor_files for each in alike if each.processor_files), {})


def _hash(facts: EngineFacts, processor_files: Mapping[str, str]) -> str:
    processing = (part for name in sorted(processor_files) for part in (name, processor_files[name]))
    parts = (facts.tokenizer_hash, facts.config_json, facts.generation_config_json, *processing)
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _messages(
    configuration: inference_pb2.ModelConfiguration, tokenizer: Iterator[bytes]
) -> Iterator[inference_pb2.GetModelFilesResponse]:
    yield inference_pb2.GetModelFilesResponse(configuration=configuration)
    for piece in tokenizer:
        yield inference_pb2.GetModelFilesResponse(tokenizer=piece)
