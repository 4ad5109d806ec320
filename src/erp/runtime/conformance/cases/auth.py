"""Who holds a credential, and what they may do."""

from __future__ import annotations

from erp.runtime.conformance.bench import Bench, require
from erp.runtime.conformance.case import case
from erp.runtime.conformance.host import ALPHA, BETA

FORGED = ("x", "erp_", "Bearer x", "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhZG1pbiJ9.", "' OR 1=1 --", "\u0000", "k" * 16384)


@case("AUTH-01")
async def a_valid_credential_names_its_subject(bench: Bench) -> None:
    """``verify`` of a valid credential of the tenant MUST answer ``active`` and whose it is, the same every time."""
    answers = [await bench.call("verify", {"credential": bench.host.credentials[ALPHA]}) for _ in range(2)]
    for answer in answers:
        require(answer["active"] is True, f"answered {answer}")
        require(bool(answer.get("subject", {}).get("id")), "the subject is missing")
    require(answers[0]["subject"] == answers[1]["subject"], "the subject differs between two answers")


@case("AUTH-02")
async def an_invalid_credential_is_inactive_and_nothing_else(bench: Bench) -> None:
    """``verify`` of anything else MUST answer ``active: false`` and nothing more: never why."""
    for credential in (*FORGED, bench.host.credentials[ALPHA][:-1], bench.host.credentials[ALPHA] + "0"):
        answer = await bench.call("verify", {"credential": credential})
        require(answer == {"active": False}, f"a forged credential was answered {answer}")


@case("AUTH-03")
async def a_credential_of_another_tenant_is_inactive(bench: Bench) -> None:
    """A credential MUST be valid in its own tenant alone; elsewhere it looks like an invalid one."""
    credential = bench.host.credentials[ALPHA]
    answer = await bench.call("verify", {"credential": credential}, tenant=BETA)
    require(answer == {"active": False}, f"another tenant was told {answer}")
    require((await bench.call("verify", {"credential": credential}))["active"], "it is not valid in its own tenant")
