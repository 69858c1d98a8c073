"""Key pairs that sign tokens, and the file of their public halves."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

AUDIENCE = "sage"


class SigningKey:
    """A private key; ``public`` is its entry in a JWKS file."""

    def __init__(self, kid: str, algorithm: str = "ES256") -> None:
        self.kid, self.algorithm = kid, algorithm
        self.private: Any
        if algorithm == "RS256":
            self.private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
            self.public = RSAAlgorithm.to_jwk(self.private.public_key(), as_dict=True) | {"kid": kid}
        else:
            self.private = ec.generate_private_key(ec.SECP256R1())
            self.public = ECAlgorithm.to_jwk(self.private.public_key(), as_dict=True) | {"kid": kid}

    def sign(self, *, headers: dict[str, Any] | None = None, **claims: Any) -> str:
        """A token of an operator, for a minute; a claim of None is left out."""
        given = {"sub": "carol", "aud": AUDIENCE, "exp": time.time() + 60, "sage_role": "operator"} | claims
        kept = {name: value for name, value in given.items() if value is not None}
        return jwt.encode(kept, self.private, self.algorithm, headers={"kid": self.kid} | (headers or {}))


def write_jwks(path: Path, *keys: SigningKey) -> Path:
    path.write_text(json.dumps({"keys": [key.public for key in keys]}))
    return path
