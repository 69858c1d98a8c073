"""Where identities come from: the section ``access`` of the scheduler's configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from sage_common.configuration import Section
from sage_common.grants import Grant, check_pattern, role_of


class JwtSection(Section):
    """JSON Web Tokens as bearer tokens.  Off without jwks_file."""

    jwks_file: Path | None = Field(
        default=None, description="JSON file with the public keys (JWKS) that sign tokens; RS256 and ES256."
    )
    audience: str = Field(default="", description="Value that a token's `aud` must hold; required with jwks_file.")
    issuer: str = Field(default="", description="Value that a token's `iss` must have.  Default: any.")
    leeway_s: float = Field(
        default=10.0, ge=0, le=300, description="Seconds by which clocks may differ when `exp` and `nbf` are checked."
    )
    claim_prefix: str = Field(
        default="sage_",
        description="Prefix of the claims `role`, `tenant`, `tenants` and `instances`: sage_role and so on.",
    )

    @model_validator(mode="after")
    def _needs_an_audience(self) -> Self:
        if self.jwks_file is not None and not self.audience:
            raise ValueError("jwks_file needs audience: tokens made for other services would be taken")
        return self


class CertificateRule(Section):
    """What a client certificate whose name matches is granted.  ``{}`` stands for what the ``*`` matched."""

    san: str = Field(default="", description="Pattern for one of its subject alternative names, with at most one *.")
    cn: str = Field(default="", description="Pattern for its common name, with at most one *; if no san is given.")
    role: str = Field(description="application, gateway, operator, observer or executor.")
    tenant: str = Field(default="", description="Tenant of an application.")
    tenants: tuple[str, ...] = Field(default=(), description="Tenants that a gateway may name.")
    instances: tuple[str, ...] = Field(default=(), description="Instance ids that an executor may register.")

    @model_validator(mode="after")
    def _is_a_rule(self) -> Self:
        if bool(self.san) == bool(self.cn):
            raise ValueError("give either san or cn")
        check_pattern(self.san or self.cn)
        self.grant("x")
        return self

    def grant(self, found: str) -> Grant:
        """Return what is granted where the ``*`` matched ``found``.  Raises ValueError."""
        return Grant(
            role=role_of(self.role),
            tenant=self.tenant.replace("{}", found),
            tenants=tuple(name.replace("{}", found) for name in self.tenants),
            instances=tuple(name.replace("{}", found) for name in self.instances),
        )


class AccessSection(Section):
    """Who may do what.  Without any source of identities every caller may do everything."""

    keys_file: Path | None = Field(
        default=None, description="TOML file with the hashes of bearer keys, written by `sagectl keys add`."
    )
    jwt: JwtSection = Field(default=JwtSection(), description="JSON Web Tokens; off without jwks_file.")
    certificates: tuple[CertificateRule, ...] = Field(
        default=(), description="Identities by client certificate; the first rule that matches counts."
    )

    @property
    def on(self) -> bool:
        """Whether identities are configured."""
        return self.keys_file is not None or self.jwt.jwks_file is not None or bool(self.certificates)
