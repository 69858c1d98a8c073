"""Bearer tokens that are JSON Web Tokens, checked against public keys from a local file."""

from __future__ import annotations

import json
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import jwt

from sage_common.grants import Grant, role_of
from scheduler_svc.access.identity import Identity, Proof, Unauthenticated
from scheduler_svc.access.settings import JwtSection

JWKS_LIMIT = 1024 * 1024
"""Largest file of public keys, in bytes."""

ALGORITHMS = {"RSA": "RS256", "EC": "ES256"}
"""The one algorithm of each type of key.  The key decides, never the token: `none` and HMAC cannot be asked for."""

RSA_BITS = 2048
"""Shortest RSA key that is taken."""

_REQUIRED: Any = {"require": ["exp", "aud", "sub"]}

_BAD_TOKEN = (jwt.PyJWTError, ValueError, TypeError, OverflowError, RecursionError)
"""What reading a token raises that is not what it should be; a header of thousands of brackets recurses."""


class JwksError(Exception):
    """The file of public keys cannot be used: one sentence that names it."""


class JwtTokens:
    """Checks tokens against the keys of a JWKS file, as last read."""

    def __init__(self, path: Path, settings: JwtSection) -> None:
        """Read the file.  Raises JwksError."""
        self.path = path
        self._settings = settings
        self._keys: dict[str, _Key] = {}  # by key id
        self.reload()

    def reload(self) -> None:
        """Read the file again.  Raises JwksError; the keys read before then stay."""
        self._keys = _read(self.path)

    def __len__(self) -> int:
        """Return the number of keys."""
        return len(self._keys)

    def identity(self, token: str) -> Identity:
        """Return who the token names.

        Raises:
            Unauthenticated: it is not signed by a known key, is out of time, or was made for others.
        """
        try:
            key = self._key_of(token)
            return _identity(self._claims(token, key), self._settings.claim_prefix, key)
        except _BAD_TOKEN as error:
            raise Unauthenticated(f"the bearer token is not valid: {error}") from None

    def stands(self, thumbprint: str) -> bool:
        """Return whether the key that signed a token is still in the file."""
        return any(key.thumbprint == thumbprint for key in self._keys.values())

    def _key_of(self, token: str) -> _Key:
        kid = jwt.get_unverified_header(token).get("kid")
        if not isinstance(kid, str) or kid not in self._keys:
            raise ValueError("no known key signed it")
        return self._keys[kid]

    def _claims(self, token: str, key: _Key) -> dict[str, Any]:
        settings = self._settings
        claims: dict[str, Any] = jwt.decode(
            token,
            key=key.public,
            algorithms=[key.algorithm],
            audience=settings.audience,
            issuer=settings.issuer or None,
            leeway=settings.leeway_s,
            options=_REQUIRED,
        )
        return claims


@dataclass(frozen=True, kw_only=True, slots=True)
class _Key:
    """A public key of the file."""

    public: jwt.PyJWK
    algorithm: str
    thumbprint: str  # SHA-256 of its entry


def _identity(claims: dict[str, Any], prefix: str, key: _Key) -> Identity:
    """Return the identity that verified claims describe.  Raises ValueError."""
    name = claims["sub"]
    if not isinstance(name, str) or not name or not name.isprintable():
        raise ValueError("its subject is empty, or holds characters that cannot be printed")
    grant = Grant(
        role=role_of(_text(claims, f"{prefix}role")),
        tenant=_text(claims, f"{prefix}tenant"),
        tenants=_texts(claims, f"{prefix}tenants"),
        instances=_texts(claims, f"{prefix}instances"),
    )
    return Identity(name=name, grant=grant, proof=Proof(source="jwt", key=key.thumbprint))


def _text(claims: dict[str, Any], claim: str) -> str:
    value = claims.get(claim, "")
    if not isinstance(value, str):
        raise ValueError(f"{claim} is not text")
    return value


def _texts(claims: dict[str, Any], claim: str) -> tuple[str, ...]:
    value = claims.get(claim, [])
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise ValueError(f"{claim} is not a list of names")
    return tuple(value)


def _read(path: Path) -> dict[str, _Key]:
    try:
        if path.stat().st_size > JWKS_LIMIT:
            raise JwksError(f"{path} is larger than {JWKS_LIMIT} bytes")
        document = json.loads(path.read_bytes())
    except OSError as error:
        raise JwksError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise JwksError(f"{path} is not JSON: {error}") from error
    entries = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(entries, list) or not entries:
        raise JwksError(f"{path} holds no list `keys` with a key in it")
    keys: dict[str, _Key] = {}
    for number, entry in enumerate(entries, 1):
        if not _signs(entry):
            continue
        try:
            kid, key = _key(entry)
            if kid in keys:
                raise ValueError(f"kid {kid!r} is there twice")
        except (jwt.PyJWTError, ValueError, TypeError) as error:
            raise JwksError(f"{path}: key {number}: {error}") from error
        keys[kid] = key
    if not keys:
        raise JwksError(f"{path} holds keys for encryption only; none that tokens are signed with")
    return keys


def _signs(entry: object) -> bool:
    """Return whether an entry may be for signatures: providers list their encryption keys in the same file."""
    return not (isinstance(entry, dict) and entry.get("use", "sig") == "enc")


def _key(entry: object) -> tuple[str, _Key]:
    """Return a public key's id and the key.  Raises ValueError, TypeError, PyJWTError."""
    if not isinstance(entry, dict):
        raise ValueError("is not an object")
    kid, kind = entry.get("kid"), entry.get("kty")
    if not isinstance(kid, str) or not kid:
        raise ValueError("has no kid")
    algorithm = ALGORITHMS.get(kind) if isinstance(kind, str) else None
    if algorithm is None or entry.get("alg", algorithm) != algorithm:
        raise ValueError(f"kid {kid!r}: only RSA keys for RS256 and EC keys for ES256 are taken")
    if kind == "EC" and entry.get("crv") != "P-256":
        raise ValueError(f"kid {kid!r}: an ES256 key is on the curve P-256")
    if "d" in entry:
        raise ValueError(f"kid {kid!r}: is a private key; the file must hold public ones only")
    key = jwt.PyJWK(entry, algorithm)
    if kind == "RSA" and key.key.key_size < RSA_BITS:
        raise ValueError(f"kid {kid!r}: has {key.key.key_size} bits; at least {RSA_BITS} are needed")
    thumbprint = sha256(json.dumps(entry, sort_keys=True).encode()).hexdigest()
    return kid, _Key(public=key, algorithm=algorithm, thumbprint=thumbprint)
