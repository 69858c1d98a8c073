"""Who calls: tokens, certificates, and what is said to those who prove nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from sage_common import keys_file
from sage_common.grants import Grant, Role
from sage_common.keys_file import Key, hash_of
from scheduler_svc.access.authenticator import TOKEN_LIMIT, Authenticator
from scheduler_svc.access.certificates import CertificateRules, PeerCertificate
from scheduler_svc.access.identity import ANYONE, Identity, Unauthenticated
from scheduler_svc.access.settings import AccessSection, CertificateRule
from tests.unit.access.json_web_keys import AUDIENCE, SigningKey, write_jwks

SIGNER = SigningKey("k")


def peer(cn: str = "", *names: str) -> PeerCertificate:
    return PeerCertificate(common_name=cn, alternative_names=names)


@pytest.fixture
def access(tmp_path: Path) -> Authenticator:
    grant = Grant(role=Role.APPLICATION, tenant="a")
    keys_file.add(tmp_path / "keys.toml", Key(name="app", sha256=hash_of("secret"), grant=grant))
    section = {
        "keys_file": tmp_path / "keys.toml",
        "jwt": {"jwks_file": write_jwks(tmp_path / "jwks.json", SIGNER), "audience": AUDIENCE},
        "certificates": [{"cn": "watcher", "role": "observer"}],
    }
    return Authenticator(AccessSection.model_validate(section))


def test_without_identities_everyone_is_anyone() -> None:
    assert Authenticator(AccessSection()).identity(None, None) is ANYONE
    assert Authenticator(AccessSection()).identity("Bearer whatever", peer("x")) is ANYONE


def test_each_kind_of_proof(access: Authenticator) -> None:
    assert access.identity("Bearer secret", None).name == "app"
    assert access.identity("bearer   secret ", None).name == "app"
    assert access.identity(f"Bearer {SIGNER.sign()}", None).name == "carol"
    assert access.identity(None, peer("watcher")).name == "watcher"


@pytest.mark.parametrize(
    ("header", "said"),
    [
        (None, "no credentials"),
        ("", "does not hold a bearer token"),
        ("Basic c2VjcmV0", "does not hold a bearer token"),
        ("secret", "does not hold a bearer token"),
        ("Bearer ", "is empty"),
        ("Bearer " + "x" * (TOKEN_LIMIT + 1), "longer than"),
        ("Bearer wrong", "not known"),
        ("Bearer secret2", "not known"),
        (f"Bearer {hash_of('secret')}", "not known"),
        ("Bearer a.b.c", "not valid"),
    ],
)
def test_what_proves_nothing(access: Authenticator, header: str | None, said: str) -> None:
    with pytest.raises(Unauthenticated, match=said):
        access.identity(header, None)


def test_a_wrong_token_is_not_made_good_by_a_certificate(access: Authenticator) -> None:
    with pytest.raises(Unauthenticated, match="not known"):
        access.identity("Bearer wrong", peer("watcher"))


def test_a_certificate_that_no_rule_matches(access: Authenticator) -> None:
    with pytest.raises(Unauthenticated, match="no rule"):
        access.identity(None, peer("somebody"))


def rules(*given: dict[str, Any]) -> CertificateRules:
    return CertificateRules([CertificateRule(**one) for one in given])


EXECUTORS = {"san": "spiffe://fleet/executor/*", "role": "executor", "instances": ["{}"]}


@pytest.mark.parametrize(
    ("rule", "certificate", "found"),
    [
        ({"cn": "op-*", "role": "operator"}, peer("op-carol"), ("op-carol", Grant(role=Role.OPERATOR))),
        (
            EXECUTORS,
            peer("x", "10.0.0.1", "spiffe://fleet/executor/h1"),
            ("spiffe://fleet/executor/h1", Grant(role=Role.EXECUTOR, instances=("h1",))),
        ),
        (
            {"cn": "*.apps.example", "role": "application", "tenant": "team-{}"},
            peer("chat.apps.example"),
            ("chat.apps.example", Grant(role=Role.APPLICATION, tenant="team-chat")),
        ),
        (EXECUTORS, peer("spiffe://fleet/executor/h1"), None),  # a SAN is asked for, not a CN
        ({"cn": "op-*", "role": "operator"}, peer("", "op-carol"), None),
        (EXECUTORS, peer("x", "spiffe://fleet/executor/*"), None),
        (EXECUTORS, peer("x", "spiffe://fleet/executor/"), None),
        (EXECUTORS, peer("x", "spiffe://other/executor/h1"), None),
    ],
)
def test_rules_over_the_names_of_a_certificate(
    rule: dict[str, Any], certificate: PeerCertificate, found: tuple[str, Grant] | None
) -> None:
    wanted = Identity(name=found[0], grant=found[1]) if found is not None else None
    assert rules(rule).identity(certificate) == wanted


def test_the_first_rule_that_matches_counts() -> None:
    both = rules({"cn": "op-*", "role": "operator"}, {"cn": "*", "role": "observer"})
    for cn, role in (("op-1", Role.OPERATOR), ("someone", Role.OBSERVER)):
        identity = both.identity(peer(cn))
        assert identity is not None
        assert identity.role is role


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({"certificates": [{"role": "operator"}]}, "either san or cn"),
        ({"certificates": [{"san": "a", "cn": "b", "role": "operator"}]}, "either san or cn"),
        ({"certificates": [{"cn": "a*b*", "role": "operator"}]}, r"at most one \*"),
        ({"certificates": [{"cn": "a", "role": "root"}]}, "not a role"),
        ({"certificates": [{"cn": "a", "role": "executor"}]}, "instances: the role executor needs it"),
        ({"jwt": {"jwks_file": "x"}}, "needs audience"),
    ],
)
def test_settings_that_make_no_sense(section: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        AccessSection(**section)
