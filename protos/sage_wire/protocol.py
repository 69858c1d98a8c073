"""Version and bounds of the protocol between executor and scheduler."""

from __future__ import annotations

PROTOCOL_VERSION = 1
OLDEST_PROTOCOL_VERSION = 0
"""The oldest version that the scheduler accepts: one before its own, so that executors can be upgraded one by one."""

STEP_FRAMES = "step_frames"
"""The capability to send and to read StepFrame, which Register and Welcome name."""

ADOPTION = "adoption"
"""The capability to hold attempts for the next scheduler (docs/scheduler-life.md), which Register and Welcome name."""

ASSIGN_BATCHES = "assign_batches"
"""The capability to read Assigns, which Register names."""

RUN_TIME_ADAPTERS = "run_time_adapters"
"""The capability to load and unload LoRA adapters while the engine runs, which Register names."""

AUTOMATIC_ROLES = "automatic_roles"
"""The capability to keep a role that the scheduler gave by itself for the next one, which Register names."""

MAX_MESSAGE_BYTES = 16 * 1024 * 1024
"""Largest gRPC message in either direction.  Prompts have the smaller bound PROMPT_LIMIT_BYTES."""

PROMPT_LIMIT_BYTES = 8 * 1024 * 1024
"""Largest text of a prompt in UTF-8; far above what any model's context holds."""

PROCESSOR_FILES = ("preprocessor_config.json", "processor_config.json")
"""Files of a model that say how images and audio are processed; at most MODEL_CONFIG_LIMIT_BYTES each."""

TOKENIZER_LIMIT_BYTES = 64 * 1024 * 1024
"""Most bytes of a model's tokenizer files together; the largest public ones have about 35 MB."""

MODEL_CONFIG_LIMIT_BYTES = 256 * 1024
"""Most bytes of a model's config.json, and of its generation_config.json; the largest public ones have about 60 kB."""
