"""Which engine decides, by the settings of the layer."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from erp.contracts.models.errors import ErrorCode
from erp.errors import ProviderError
from erp.security.policy.decisions import DecisionPoint
from erp.security.policy.engines import EmbeddedEngine, Engine, OpaEngine
from erp.security.policy.shadow import Shadow
from erp.security.policy.tenant_rules import TenantRules

if TYPE_CHECKING:
    from erp.control_plane import ControlPlane

EngineName = Literal["embedded", "opa"]


@dataclass(frozen=True, slots=True)
class PolicySettings:
    """Who decides, and who is only compared."""

    engine: EngineName = "embedded"
    shadow: EngineName | None = None
    opa_url: str | None = None
    opa_token: str | None = None
    region: str = ""
    """Where this process runs."""

    def __repr__(self) -> str:
        return f"PolicySettings(engine={self.engine!r}, shadow={self.shadow!r})"

    @classmethod
    def from_environment(cls) -> PolicySettings:
        """Read ``ERP_POLICY_ENGINE``, ``ERP_POLICY_SHADOW``, ``ERP_OPA_URL``, ``ERP_OPA_TOKEN`` and ``ERP_REGION``.

        Raises:
            ProviderError: ``failed_precondition`` for an engine that is not known, or OPA without its address.
        """
        made = cls(
            engine=_named("ERP_POLICY_ENGINE") or "embedded",
            shadow=_named("ERP_POLICY_SHADOW"),
            opa_url=os.environ.get("ERP_OPA_URL"),
            opa_token=os.environ.get("ERP_OPA_TOKEN"),
            region=os.environ.get("ERP_REGION", ""),
        )
        if "opa" in {made.engine, made.shadow} and not made.opa_url:
            message = "Policies are to be decided by OPA, but its address is not known. Set ERP_OPA_URL."
            raise ProviderError(ErrorCode.FAILED_PRECONDITION, message)
        return made


def _named(variable: str) -> EngineName | None:
    match os.environ.get(variable, ""):
        case "":
            return None
        case "embedded":
            return "embedded"
        case "opa":
            return "opa"
        case text:
            message = f"{variable} is {text[:40]!r}. Set it to embedded or opa."
            raise ProviderError(ErrorCode.FAILED_PRECONDITION, message)


def decision_point(settings: PolicySettings, control: ControlPlane) -> DecisionPoint:
    """Return the decision point of a process."""
    shadow = None if settings.shadow is None else Shadow(_engine(settings.shadow, settings))
    return DecisionPoint(
        _engine(settings.engine, settings),
        TenantRules(),
        control.policies,
        control.revisions,
        region=settings.region,
        shadow=shadow,
    )


def _engine(name: EngineName, settings: PolicySettings) -> Engine:
    if name == "opa" and settings.opa_url:
        return OpaEngine(settings.opa_url, token=settings.opa_token)
    return EmbeddedEngine()
