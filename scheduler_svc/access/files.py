"""Re-reads the files that identities come from, so that keys change without a restart."""

from __future__ import annotations

import logging
from collections.abc import Callable

from sage_common.file_watch import FileWatch
from sage_common.keys_file import KeysFileError
from scheduler_svc.access.authenticator import Authenticator
from scheduler_svc.access.jwt_tokens import JwksError, JwtTokens
from scheduler_svc.access.keys import StaticKeys

log = logging.getLogger(__name__)


class AccessFiles:
    """The keys file and the file of public keys, where they are configured."""

    def __init__(self, authenticator: Authenticator, changed: Callable[[], object] = lambda: None) -> None:
        """Watch the files.  ``changed`` is called, in the thread of ``check``, after one was read again."""
        sources = (source for source in (authenticator.keys, authenticator.jwt) if source is not None)
        self._changed = changed
        self._files = [(FileWatch([source.path]), source) for source in sources]

    def check(self, force: bool = False) -> None:
        """Read again what changed, or all with ``force``.

        A file that cannot be used is said at level ERROR, once per change; what was read before goes on counting.
        """
        for watch, source in self._files:
            if (watch.changed() or force) and _reloaded(source):
                self._changed()


def _reloaded(source: StaticKeys | JwtTokens) -> bool:
    try:
        source.reload()
    except (KeysFileError, JwksError) as error:
        log.error("the keys read before go on counting: %s", error)
        return False
    log.info("%s holds %d keys", source.path, len(source))
    return True
