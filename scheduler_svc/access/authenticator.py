"""Finds out who calls, from a bearer token or a client certificate."""

from __future__ import annotations

from scheduler_svc.access.certificates import CertificateRules, PeerCertificate
from scheduler_svc.access.identity import ANYONE, Identity, Unauthenticated
from scheduler_svc.access.jwt_tokens import JwtTokens
from scheduler_svc.access.keys import StaticKeys
from scheduler_svc.access.settings import AccessSection

TOKEN_LIMIT = 8_192
"""Longest bearer token, in characters; gRPC refuses longer headers for itself."""

SCHEME = "bearer "


class Authenticator:
    """The configured sources of identities.  Without any, everyone is ANYONE."""

    def __init__(self, settings: AccessSection) -> None:
        """Read the files that the settings name.

        Raises:
            KeysFileError: the keys file cannot be used.
            JwksError: the file of public keys cannot be used.
        """
        self.on = settings.on
        self.keys = StaticKeys(settings.keys_file) if settings.keys_file is not None else None
        jwks = settings.jwt.jwks_file
        self.jwt = JwtTokens(jwks, settings.jwt) if jwks is not None else None
        self._certificates = CertificateRules(settings.certificates)
        self.by_certificate = bool(settings.certificates)

    def identity(self, authorization: str | None, certificate: PeerCertificate | None) -> Identity:
        """Return who calls.  ``authorization``: the header of that name.  A token counts before a certificate.

        Raises:
            Unauthenticated: neither proves who it is, or a token is given and is not valid.
        """
        if not self.on:
            return ANYONE
        if authorization is not None:
            return self._of_token(_token(authorization))
        if certificate is None:
            raise Unauthenticated("no credentials: send a bearer token, or a client certificate over TLS")
        identity = self._certificates.identity(certificate)
        if identity is None:
            raise Unauthenticated("no rule grants anything to this client certificate")
        return identity

    def stands(self, identity: Identity) -> bool:
        """Return whether the key that proved ``identity`` still does; True for certificates and tokens out of time."""
        proof = identity.proof
        if proof is None:
            return True
        if proof.source == "key":
            return self.keys is not None and self.keys.stands(identity, proof.key)
        return self.jwt is not None and self.jwt.stands(proof.key)

    def _of_token(self, token: str) -> Identity:
        if self.keys is not None and (identity := self.keys.identity(token)) is not None:
            return identity
        if self.jwt is not None and token.count(".") == 2:  # the form of a signed JWT; keys hold no dot
            return self.jwt.identity(token)
        raise Unauthenticated("the bearer token is not known")


def _token(authorization: str) -> str:
    """Return the token of an Authorization header.  Raises Unauthenticated."""
    if authorization[: len(SCHEME)].lower() != SCHEME:
        raise Unauthenticated("the header `authorization` does not hold a bearer token")
    token = authorization[len(SCHEME) :].strip()
    if not token or len(token) > TOKEN_LIMIT:
        raise Unauthenticated(f"the bearer token is empty, or longer than {TOKEN_LIMIT} characters")
    return token
