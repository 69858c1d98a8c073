"""Builds vLLM's API server for one model, from its files and without an engine."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vllm.config import VllmConfig
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.lora.request import LoRARequest
from vllm.reasoning import ReasoningParserManager
from vllm.tool_parsers import ToolParserManager
from vllm.utils.argparse_utils import FlexibleArgumentParser

from sage_client import Model, ModelFiles
from sage_common.garbage import leave_out_present_objects
from sage_gateway.asgi import Application, Receive, Scope, Send
from sage_gateway.caller_clients import CallerClients
from sage_gateway.embedding_application import EmbeddingApplication
from sage_gateway.model_catalogue import ModelCatalogue
from sage_gateway.model_directory import TOKENIZER, write_model
from sage_gateway.vllm_server.engine_client import FleetEngineClient
from sage_gateway.vllm_server.plain_stream_engine import PlainStreamEngine
from sage_gateway.vllm_server.plain_streams import write_plain_streams
from sage_gateway.vllm_server.pooling_client import FleetPoolingClient
from sage_gateway.vllm_server.tokenizer_check import check_tokenizer
from sage_gateway.vllm_server.vllm_versions import (
    build_app,
    init_app_state,
    make_arg_parser,
    structured_outputs_config,
    validate_api_server_args,
)
from sage_media.image_headers import IMAGE_LIMIT_PIXELS
from sage_media.kinds import MediaKind

NO_DOMAIN = "nothing-is-fetched.invalid"
"""The only domain that vLLM's server may fetch images and audio from: there is none (RFC 2606)."""

DTYPES = ("float32", "float16", "bfloat16")


class ModelApplication:
    """A model's application, with what it holds beside it: the renderer's threads, and the directory of its files."""

    def __init__(self, application: Application, engine: FleetEngineClient, directory: Path) -> None:
        self._application = application
        self._engine = engine
        self._directory = directory
        self._running = 0
        self._retired = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        self._running += 1
        try:
            await self._application(scope, receive, send)
        finally:
            self._running -= 1
            self._release()

    def retire(self) -> None:
        """Let go of everything once the requests that run have ended; there are no further ones."""
        self._retired = True
        self._release()

    def _release(self) -> None:
        if self._retired and not self._running:
            self._engine.shutdown()
            shutil.rmtree(self._directory, ignore_errors=True)


def retire(application: Application) -> None:
    """Let go of an application that gets no further requests, if it holds anything."""
    held = application.pooling if isinstance(application, EmbeddingApplication) else application
    if isinstance(held, ModelApplication):
        held.retire()


class ApplicationBuilder:
    """Builds the applications of models."""

    def __init__(
        self,
        clients: CallerClients,
        directory: Path,
        arguments: Sequence[str] = (),
        model_arguments: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        """``directory``: where files of models are written, which vLLM reads for as long as it serves them.

        ``arguments``: further flags of vLLM's server, such as --tool-call-parser, for all models.  ``model_arguments``:
        those of single models, by name.  Exits with status 2 if vLLM's server does not know one of them.
        """
        self._clients = clients
        self._directory = directory
        self._arguments = arguments
        self._model_arguments = model_arguments or {}
        os.environ.setdefault("VLLM_MAX_IMAGE_PIXELS", str(IMAGE_LIMIT_PIXELS))
        for model in ("", *self._model_arguments):
            self._parsed(model, [])
        self.catalogue: ModelCatalogue | None = None  # asked whether the fleet serves anything

    async def build(self, files: ModelFiles) -> Application:
        """Build the application of a model.  Raises UnusableFiles, and whatever vLLM raises."""
        directory = Path(tempfile.mkdtemp(dir=self._directory))
        try:
            made = await self._built(files, directory)
        except BaseException:
            shutil.rmtree(directory, ignore_errors=True)
            raise
        leave_out_present_objects()  # vLLM's modules: looking through them takes a third of a second
        return made

    async def _built(self, files: ModelFiles, directory: Path) -> Application:
        arguments, config = await asyncio.to_thread(self._config, files, directory)
        engine = self._engine(config, files.model)
        check_tokenizer(engine.renderer.get_tokenizer(), directory / TOKENIZER)
        tasks = await engine.get_supported_tasks()
        application: Any = build_app(arguments, tasks, engine.model_config)
        await init_app_state(engine, application.state, arguments, tasks)
        if isinstance(engine, PlainStreamEngine):
            write_plain_streams(application, engine)
        _add_adapters(application.state.openai_serving_models, files.model.adapters)
        return ModelApplication(application, engine, directory)

    def _engine(self, config: Any, model: Model) -> FleetEngineClient:
        """Return what vLLM's server takes for its engine."""
        if not model.embeds:
            return PlainStreamEngine(config, model.name, self._clients, self._trouble, _placeholders(model))
        return FleetPoolingClient(config, model.name, self._clients, self._trouble, classifies=model.classifies)

    def _trouble(self) -> str:
        return self.catalogue.trouble() if self.catalogue is not None else ""

    def _config(self, files: ModelFiles, directory: Path) -> tuple[Any, Any]:
        """Return vLLM's arguments and its configuration of a model, whose files are written to ``directory``."""
        write_model(files, directory)
        model = files.model
        given = ["--model", str(directory), "--served-model-name", model.name, "--disable-log-stats"]
        given += ["--enable-prompt-tokens-details", "--disable-fastapi-docs", "--max-logprobs", str(model.vocab_size)]
        if model.max_model_len is not None:
            given += ["--max-model-len", str(model.max_model_len)]
        if model.embeds:
            given += ["--runner", "pooling"]
        if model.dtype in DTYPES:
            given += ["--dtype", model.dtype]
        arguments = self._parsed(model.name, given)
        _import_parsers(arguments)
        engine_arguments = AsyncEngineArgs.from_cli_args(arguments)
        config = VllmConfig(
            model_config=engine_arguments.create_model_config(),
            structured_outputs_config=structured_outputs_config(engine_arguments),
        )
        validate_api_server_args(arguments)
        return arguments, config

    def _parsed(self, model: str, given: Sequence[str]) -> Any:
        """Return the arguments of vLLM's server for a model; exits with status 2 for a flag that it does not know."""
        flags = [*given, *self._arguments, *self._model_arguments.get(model, ())]
        arguments = make_arg_parser(FlexibleArgumentParser()).parse_args(flags)
        arguments.allowed_media_domains = [NO_DOMAIN]
        return arguments


def _placeholders(model: Model) -> dict[MediaKind, int]:
    """Return the token that stands for each kind of media that a model takes."""
    found = {}
    if model.image_placeholder_token_id is not None:
        found[MediaKind.IMAGE] = model.image_placeholder_token_id
    if model.audio_input is not None:
        found[MediaKind.AUDIO] = model.audio_input.placeholder_token_id
    return found


def _import_parsers(arguments: Any) -> None:
    """Import the files of parsers that the operator brings, as vLLM's own start does."""
    if arguments.tool_parser_plugin:
        ToolParserManager.import_tool_parser(arguments.tool_parser_plugin)
    if arguments.reasoning_parser_plugin:
        ReasoningParserManager.import_reasoning_parser(arguments.reasoning_parser_plugin)


def _add_adapters(models: Any, adapters: Sequence[str]) -> None:
    """Make LoRA adapters known as models: their weights are at the executors."""
    for number, name in enumerate(adapters, 1):
        models.lora_requests[name] = LoRARequest(lora_name=name, lora_int_id=number, lora_path=name)
