"""The scheduler's listening addresses, with what checks callers there and the files that credentials come from."""

from __future__ import annotations

import asyncio
import logging

from sage_common.file_watch import Reloader
from sage_common.keys_file import KeysFileError
from sage_common.tls import ReloadedTls, ServerTls, UnreadableFile, UnusableFiles
from scheduler_svc.access.audit import Audit
from scheduler_svc.access.authenticator import Authenticator
from scheduler_svc.access.files import AccessFiles
from scheduler_svc.access.jwt_tokens import JwksError
from scheduler_svc.access.open_calls import OpenCalls
from scheduler_svc.config import SchedulerConfig
from scheduler_svc.transport.access_interceptor import AccessInterceptor
from scheduler_svc.transport.errors import OnEnd
from scheduler_svc.transport.server import Listener, ListenError, Servers, Services, listeners

log = logging.getLogger(__name__)

RENEWAL_GRACE_S = 0.2
"""How long running calls have to end when all connections do."""


class Doors:
    """All gRPC servers of the process."""

    def __init__(self, config: SchedulerConfig, services: Services, audit: Audit, on_end: OnEnd) -> None:
        """Bind all addresses; nothing is served yet.  Call on the event loop.

        ``on_end`` is told of calls that end with an error.

        Raises:
            ListenError: a configured address cannot be listened on, or a file with certificates, keys or public keys
                cannot be used.
        """
        tls_files = server_tls(config)
        try:
            tls = ReloadedTls(tls_files) if tls_files is not None else None
            authenticator = Authenticator(config.access)
        except (UnreadableFile, UnusableFiles) as error:
            raise ListenError(f"tls: {error}") from error
        except (KeysFileError, JwksError) as error:
            raise ListenError(f"access: {error}") from error
        loop, open_calls = asyncio.get_running_loop(), OpenCalls(authenticator)
        checks = [AccessFiles(authenticator, lambda: loop.call_soon_threadsafe(open_calls.end_revoked)).check]
        self.reloader = Reloader([*checks, tls.check] if tls is not None else checks)

        def guard(listener: Listener) -> AccessInterceptor:
            demands = listener.clients_need_certificates
            return AccessInterceptor(authenticator, audit, open_calls, clients_have_certificates=demands)

        self._servers = Servers(services, guard, reflection=config.reflection, on_end=on_end)
        for listener in listeners(config.listeners, config.tls.client_ca_listeners):
            self._servers.listen(listener, tls)

    @property
    def ports(self) -> dict[str, int]:
        """The ports that are bound, by the setting that names the address."""
        return self._servers.ports

    async def start(self) -> None:
        """Serve."""
        await self._servers.start()

    def reload(self) -> None:
        """Read certificates, keys and public keys again, whether their files changed or not."""
        log.info("reading certificates and keys again")
        self.reloader.ask()

    async def renew(self) -> None:
        """End all connections, and serve at the same addresses again.  Raises ListenError."""
        await self._servers.renew(RENEWAL_GRACE_S)

    async def stop(self, grace: float) -> None:
        """Stop serving; running calls have ``grace`` seconds to end."""
        await self._servers.stop(grace)


def server_tls(config: SchedulerConfig) -> ServerTls | None:
    """Return the TLS files of the gRPC server, which the metrics page uses as well."""
    return config.tls.server(client_ca=config.tls.client_ca)
