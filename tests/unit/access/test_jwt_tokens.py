"""JSON Web Tokens: which are taken, and what each kind of forgery is told."""

from __future__ import annotations

import base64
import json
import time
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.algorithms import RSAAlgorithm

from sage_common.grants import Grant, Role
from scheduler_svc.access.identity import Identity, Unauthenticated
from scheduler_svc.access.jwt_tokens import JwksError, JwtTokens
from scheduler_svc.access.settings import JwtSection
from tests.unit.access.json_web_keys import AUDIENCE, SigningKey, write_jwks

EC, RSA, STRANGER = SigningKey("ec"), SigningKey("rsa", "RS256"), SigningKey("ec")


@pytest.fixture
def tokens(tmp_path: Path) -> JwtTokens:
    return made(tmp_path)


def made(directory: Path, **settings: Any) -> JwtTokens:
    path = write_jwks(directory / "jwks.json", EC, RSA)
    return JwtTokens(path, JwtSection(**{"jwks_file": path, "audience": AUDIENCE, "leeway_s": 0, **settings}))


@pytest.mark.parametrize("key", [EC, RSA], ids=["ES256", "RS256"])
def test_a_token_of_a_known_key_names_its_subject(tokens: JwtTokens, key: SigningKey) -> None:
    assert tokens.identity(key.sign()) == Identity(name="carol", grant=Grant(role=Role.OPERATOR))


@pytest.mark.parametrize(
    ("claims", "grant"),
    [
        ({"sage_role": "application", "sage_tenant": "a"}, Grant(role=Role.APPLICATION, tenant="a")),
        ({"sage_role": "gateway", "sage_tenants": ["a", "b-*"]}, Grant(role=Role.GATEWAY, tenants=("a", "b-*"))),
        ({"sage_role": "executor", "sage_instances": ["h*"]}, Grant(role=Role.EXECUTOR, instances=("h*",))),
        ({"sage_role": "observer", "aud": ["else", AUDIENCE]}, Grant(role=Role.OBSERVER)),
    ],
)
def test_claims_say_what_is_granted(tokens: JwtTokens, claims: dict[str, Any], grant: Grant) -> None:
    assert tokens.identity(EC.sign(**claims)).grant == grant


@pytest.mark.parametrize(
    ("claims", "said"),
    [
        ({"exp": time.time() - 1}, "expired"),
        ({"exp": None}, "exp"),
        ({"exp": float("inf")}, "not valid"),
        ({"exp": "soon"}, "not valid"),
        ({"nbf": time.time() + 3_600}, "not yet valid"),
        ({"aud": "another service"}, "[Aa]udience"),
        ({"aud": None}, "aud"),
        ({"sub": None}, "sub"),
        ({"sub": ""}, "subject"),
        ({"sub": "a\nb"}, "subject"),
        ({"sub": 7}, "[Ss]ubject"),
        ({"sage_role": None}, "role"),
        ({"sage_role": "root"}, "'root' is not a role"),
        ({"sage_role": ["operator"]}, "sage_role is not text"),
        ({"sage_role": "application"}, "tenant: the role application needs it"),
        ({"sage_role": "operator", "sage_tenant": "a"}, "tenant: only the role application"),
        ({"sage_role": "gateway", "sage_tenants": "*"}, "sage_tenants is not a list"),
    ],
)
def test_claims_that_are_refused(tokens: JwtTokens, claims: dict[str, Any], said: str) -> None:
    with pytest.raises(Unauthenticated, match=said):
        tokens.identity(EC.sign(**claims))


def test_a_key_that_is_not_in_the_file(tokens: JwtTokens) -> None:
    with pytest.raises(Unauthenticated, match="no known key"):
        tokens.identity(SigningKey("another").sign())


def test_a_key_that_takes_the_id_of_another(tokens: JwtTokens) -> None:
    with pytest.raises(Unauthenticated, match=r"[Ss]ignature"):
        tokens.identity(STRANGER.sign())


def test_a_token_without_the_id_of_a_key(tokens: JwtTokens) -> None:
    with pytest.raises(Unauthenticated):
        tokens.identity(jwt.encode({"sub": "x"}, EC.private, "ES256"))


def part(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


@pytest.mark.parametrize("algorithm", ["none", "None", "NONE", ""])
def test_a_token_that_nobody_signed(tokens: JwtTokens, algorithm: str) -> None:
    claims = part({"sub": "carol", "aud": AUDIENCE, "exp": time.time() + 60, "sage_role": "operator"})
    with pytest.raises(Unauthenticated):
        tokens.identity(f"{part({'alg': algorithm, 'kid': 'ec'})}.{claims}.")


def test_a_public_key_that_is_used_as_a_shared_secret(tokens: JwtTokens) -> None:
    """The forger knows the public key, and asks for HMAC with it."""
    public = RSA.private.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    header, claims = part({"alg": "HS256", "kid": "rsa"}), part({"sub": "carol", "aud": AUDIENCE, "exp": 2**33})
    secret = jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256)
    signature = base64.urlsafe_b64encode(secret.sign(f"{header}.{claims}".encode(), public)).rstrip(b"=").decode()
    with pytest.raises(Unauthenticated, match="alg"):
        tokens.identity(f"{header}.{claims}.{signature}")


def test_an_algorithm_of_the_other_type_of_key(tokens: JwtTokens) -> None:
    with pytest.raises(Unauthenticated, match="alg"):
        tokens.identity(RSA.sign(headers={"kid": "ec"}))


@pytest.mark.parametrize("token", ["..", "a.b.c", f"{part('x')}.{part(3)}.x", f"{'[' * 6000}.x.y", "é.é.é"])
def test_what_is_no_token(tokens: JwtTokens, token: str) -> None:
    with pytest.raises(Unauthenticated):
        tokens.identity(token)


def test_a_header_that_nests_without_end(tokens: JwtTokens) -> None:
    deep = base64.urlsafe_b64encode(b"[" * 100_000).decode()
    with pytest.raises(Unauthenticated):
        tokens.identity(f"{deep}.{deep}.x")


def test_the_issuer_counts_where_one_is_configured(tmp_path: Path) -> None:
    tokens = made(tmp_path, issuer="https://issuer")
    assert tokens.identity(EC.sign(iss="https://issuer")).name == "carol"
    for issuer in (None, "https://other"):
        with pytest.raises(Unauthenticated, match="iss"):
            tokens.identity(EC.sign(iss=issuer))


def test_clocks_may_differ_by_the_leeway(tmp_path: Path) -> None:
    assert made(tmp_path, leeway_s=30).identity(EC.sign(exp=time.time() - 5)).name == "carol"


# --- the file of public keys ------------------------------------------------------------------------------------------


def short_rsa() -> dict[str, Any]:
    key = rsa.generate_private_key(public_exponent=65537, key_size=1024)
    return RSAAlgorithm.to_jwk(key.public_key(), as_dict=True) | {"kid": "k"}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("[]", "holds no list `keys`"),
        ('{"keys": []}', "holds no list `keys`"),
        ('{"keys": [3]}', "key 1: is not an object"),
        ('{"keys": [{"kty": "RSA"}]}', "has no kid"),
        ('{"keys": [{"kty": "oct", "kid": "k", "k": "c2VjcmV0"}]}', "only RSA keys"),
        (json.dumps({"keys": [EC.public | {"alg": "HS256"}]}), "only RSA keys"),
        (json.dumps({"keys": [EC.public, EC.public]}), "is there twice"),
        (json.dumps({"keys": [EC.public | {"crv": "P-384"}]}), "P-256"),
        (json.dumps({"keys": [EC.public | {"d": "x"}]}), "private"),
        (json.dumps({"keys": [short_rsa()]}), "1024 bits"),
        (json.dumps({"keys": [RSA.public | {"n": 5}]}), "key 1: "),
        (json.dumps({"keys": [RSA.public | {"e": ["AQAB"]}]}), "key 1: "),
        (json.dumps({"keys": [EC.public | {"x": None}]}), "key 1: "),
        (json.dumps({"keys": [EC.public | {"y": "ä"}]}), "key 1: "),
    ],
)
def test_a_file_that_cannot_be_used(tmp_path: Path, content: str, said: str) -> None:
    path = tmp_path / "jwks.json"
    path.write_text(content)
    with pytest.raises(JwksError, match=said) as error:
        JwtTokens(path, JwtSection(jwks_file=path, audience=AUDIENCE))
    assert str(path) in str(error.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    path = tmp_path / "none.json"
    with pytest.raises(JwksError, match="cannot read"):
        JwtTokens(path, JwtSection(jwks_file=path, audience=AUDIENCE))


def test_a_key_that_is_taken_out_of_the_file_no_longer_counts(tokens: JwtTokens) -> None:
    write_jwks(tokens.path, RSA)
    tokens.reload()
    with pytest.raises(Unauthenticated):
        tokens.identity(EC.sign())
    assert tokens.identity(RSA.sign()).name == "carol"


def test_keys_for_encryption_are_skipped(tmp_path: Path) -> None:
    """Providers publish them in the same file, some with algorithms that sign nothing and without an id."""
    key, other = SigningKey("k"), SigningKey("e", "RS256")
    encrypting = other.public | {"use": "enc", "alg": "RSA-OAEP"}
    nameless = {"kty": "OKP", "crv": "X25519", "x": "AAAA", "use": "enc"}
    path = tmp_path / "jwks.json"
    path.write_text(json.dumps({"keys": [encrypting, nameless, key.public | {"use": "sig"}]}))
    tokens = JwtTokens(path, JwtSection(jwks_file=path, audience=AUDIENCE))
    assert len(tokens) == 1
    assert tokens.identity(key.sign()).name == "carol"
    with pytest.raises(Unauthenticated, match="no known key signed it"):
        tokens.identity(other.sign())


def test_a_file_with_keys_for_encryption_only_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "jwks.json"
    path.write_text(json.dumps({"keys": [SigningKey("e").public | {"use": "enc"}]}))
    with pytest.raises(JwksError, match="none that tokens are signed with"):
        JwtTokens(path, JwtSection(jwks_file=path, audience=AUDIENCE))
