"""Prefill/decode separation, and roles that change by themselves."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from sage_common.configuration import Section


class PdSeparationSection(Section):
    """Prefill/decode separation: running a request's prompt on one instance and its output on another."""

    enabled: bool = Field(default=False, description="Split requests into a prefill leg and a decode leg.")
    routing_policy: Literal["always", "threshold", "adaptive"] = Field(
        default="adaptive",
        description="Which requests are split: all, those past a threshold, or those where running streams gain more.",
    )
    prefilling_threshold_input_tokens: int = Field(
        default=2_048, ge=1, description="threshold: split requests whose prompt has at least this many tokens."
    )
    prefilling_threshold_ratio: float = Field(
        default=4.0,
        gt=0,
        description="threshold: also split requests whose prompt is this many times longer than the predicted output.",
    )


class AutomaticRolesSection(Section):
    """When instances change between prefill and decode by themselves."""

    enabled: bool = Field(
        default=False, description="Change roles as the load of prefill and decode asks for, while requests are split."
    )
    interval_s: float = Field(default=2.0, gt=0, description="Seconds between two looks at the pressures.")
    pressed: float = Field(
        default=0.8,
        gt=0,
        description="Pressure from which a side is to get an instance of the other; 1 is what it can just carry.",
    )
    room: float = Field(
        default=0.7, gt=0, description="Most pressure of the side that gives an instance, with one instance less."
    )
    gain: float = Field(
        default=0.15, gt=0, lt=1, description="Share by which the higher of both pressures has to fall with a change."
    )
    delay_s: float = Field(default=15.0, ge=0, description="Seconds for which a change is wanted before it is made.")
    cooldown_s: float = Field(default=30.0, ge=0, description="Seconds between two changes of a model.")
    back_s: float = Field(
        default=120.0, ge=0, description="Seconds between two changes of a model in opposite directions."
    )
    least_prefill: int = Field(default=1, ge=1, description="Ready prefill instances of a model that stay.")
    least_decode: int = Field(default=1, ge=1, description="Ready decode instances of a model that stay.")
