"""Asks the hub for a snapshot, and the cache where the hub cannot be reached; says in a sentence what went wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from executor_svc.runtime.engine_port import ModelError

Found = TypeVar("Found")


def from_hub(
    name: str, revision: str | None, *, what: str, fetch: Callable[[], Found], cached: Callable[[], Found]
) -> tuple[Found, bool]:
    """Return what ``fetch`` found, or ``cached`` where the hub cannot be reached, and whether it is of the cache.

    ``what``: the word for what is looked for, in messages.  ``cached`` may raise anything.  Raises ModelError, also
    the one that ``fetch`` raised.
    """
    from huggingface_hub import errors

    try:
        return fetch(), False
    except ModelError:
        raise
    except errors.GatedRepoError as error:
        raise ModelError(f"{name} is gated: accept its terms on the hub and set HF_TOKEN") from error
    except errors.RevisionNotFoundError as error:
        raise ModelError(f"{name} has no revision {revision!r}") from error
    except errors.RepositoryNotFoundError as error:
        raise ModelError(
            f"there is no {what} {name!r} on the hub (private ones need HF_TOKEN), and no such directory"
        ) from error
    except errors.HFValidationError as error:
        raise ModelError(f"{name!r} is neither a directory nor a hub id") from error
    except Exception as error:  # the hub is out of reach: each version of the library raises its client's own errors
        try:
            return cached(), True
        except Exception:  # there is no usable snapshot, for whatever reason
            why = f"{type(error).__name__}: {error}"
            raise ModelError(f"{name} is not in the cache and the hub cannot be reached: {why}") from error
