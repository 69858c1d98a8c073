"""Makes gRPC credentials from PEM files."""

from __future__ import annotations

from pathlib import Path

import grpc

from sage_common.tls import ServerTls, read_pem


def dial_credentials(ca: Path, certificate: Path | None, key: Path | None) -> grpc.ChannelCredentials:
    """Return credentials that verify the scheduler against ``ca`` and present ``certificate`` if there is one.

    Raises:
        UnreadableFile: a file cannot be read.
    """
    return grpc.ssl_channel_credentials(
        root_certificates=read_pem(ca),
        private_key=None if key is None else read_pem(key),
        certificate_chain=None if certificate is None else read_pem(certificate),
    )


def listen_credentials(tls: ServerTls) -> grpc.ServerCredentials:
    """Return the credentials of a listener.

    Raises:
        UnreadableFile: a file cannot be read.
    """
    return grpc.ssl_server_credentials([(read_pem(tls.private_key), read_pem(tls.certificate))])
