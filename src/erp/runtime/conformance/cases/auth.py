"""Who holds a credential, and what they may do."""

from __future__ import annotations

from erp.runtime.conformance.bench import Bench, require
from erp.runtime.conformance.case import case
from erp.runtime.conformance.host import ALPHA, BETA

FORGED = ("x", "erp_", "Bearer x", "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhZG1pbiJ9.", "' OR 1=1 --", "\u0000", "k" * 16384)


@case("AUTH-01", capability="credential_verification")
async def a_valid_credential_names_its_subject(bench: Bench) -> None:
    """``verify`` of a valid credential of the tenant MUST answer ``active`` and whose it is, the same every time."""
    answers = [await bench.call("verify", {"credential": bench.credentials[ALPHA]}) for _ in range(2)]
    for answer in answers:
        require(answer["active"] is True, f"answered {answer}")
        require(bool(answer.get("subject", {}).get("id")), "the subject is missing")
    require(answers[0]["subject"] == answers[1]["subject"], "the subject differs between two answers")


@case("AUTH-02", capability="credential_verification")
async def an_invalid_credential_is_inactive_and_nothing_else(bench: Bench) -> None:
    """``verify`` of anything else MUST answer ``active: false`` and nothing more: never why."""
    for credential in (*FORGED, bench.credentials[ALPHA][:-1], bench.credentials[ALPHA] + "0"):
        answer = await bench.call("verify", {"credential": credential})
        require(answer == {"active": False}, f"a forged credential was answered {answer}")


@case("AUTH-03", capability="credential_verification")
async def a_credential_of_another_tenant_is_inactive(bench: Bench) -> None:
    """A credential MUST be valid in its own tenant alone; elsewhere it looks like an invalid one."""
    credential = bench.credentials[ALPHA]
    answer = await bench.call("verify", {"credential": credential}, tenant=BETA)
    require(answer == {"active": False}, f"another tenant was told {answer}")
    require((await bench.call("verify", {"credential": credential}))["active"], "it is not valid in its own tenant")


async def _exchanged(bench: Bench, **more: object) -> str:
    token: str = (await bench.call("exchange", {"subject_token": bench.credentials[ALPHA], **more}))["access_token"]
    return token


@case("AUTH-20", capability="token_exchange")
async def a_credential_becomes_a_token_that_ends(bench: Bench) -> None:
    """``exchange`` MUST answer a new bearer token of the same subject that ends, and that ``verify`` knows."""
    params = {"subject_token": bench.credentials[ALPHA]}
    answer = await bench.call("exchange", params)
    require(answer["token_type"].lower() == "bearer", f"a token of type {answer['token_type']}")
    require(answer.get("expires_in_seconds", 0) > 0, "the token does not say when it ends")
    require(answer["access_token"] != bench.credentials[ALPHA], "the token is the credential itself")
    original = await bench.call("verify", {"credential": bench.credentials[ALPHA]})
    verified = await bench.call("verify", {"credential": answer["access_token"]})
    require(verified["active"], "verify does not know the token")
    require(verified["subject"]["id"] == original["subject"]["id"], "the token has another subject")
    require("expires_at" in verified, "verify does not say when the token ends")


@case("AUTH-21", capability="token_exchange")
async def what_is_not_valid_is_not_exchanged(bench: Bench) -> None:
    """A token that is not valid in the tenant MUST be refused by ``exchange`` with ``invalid_argument``."""
    for forged in (*FORGED[:4], f"{await _exchanged(bench)}x"):
        await bench.refused("invalid_argument", "exchange", {"subject_token": forged})
    foreign = {"subject_token": bench.credentials[ALPHA]}
    await bench.refused("invalid_argument", "exchange", foreign, tenant=BETA)
    mixed = {"subject_token": bench.credentials[ALPHA], "actor_token": bench.credentials[BETA]}
    await bench.refused("invalid_argument", "exchange", mixed)


@case("AUTH-22", capability="token_exchange")
async def a_token_is_narrowed_and_never_widened(bench: Bench) -> None:
    """``exchange`` MUST give the scopes asked for, and refuse with ``permission_denied`` those the subject lacks."""
    narrow = await _exchanged(bench, scopes=["providers:cache/*:read"])
    subject = (await bench.call("verify", {"credential": narrow}))["subject"]
    require(subject.get("scopes") == ["providers:cache/*:read"], f"the token has the scopes {subject.get('scopes')}")
    wider = {"subject_token": narrow, "scopes": ["providers:*:*"]}
    await bench.refused("permission_denied", "exchange", wider)


@case("AUTH-23", capability="token_exchange")
async def a_token_for_somebody_else_is_good_there_alone(bench: Bench) -> None:
    """A token with an ``audience`` MUST be valid for that audience, for no other, and not be exchangeable back."""
    audience = "https://warehouse.example"
    token = await _exchanged(bench, audience=audience)
    require(
        (await bench.call("verify", {"credential": token, "audience": audience}))["active"], "it is not valid there"
    )
    for params in ({"credential": token}, {"credential": token, "audience": "https://elsewhere.example"}):
        require(await bench.call("verify", params) == {"active": False}, "it is valid elsewhere")
    await bench.refused("invalid_argument", "exchange", {"subject_token": token})


@case("AUTH-30", capability="introspection")
async def a_valid_token_is_described(bench: Bench) -> None:
    """``introspect`` MUST describe a valid credential as ``verify`` does, and say who issued it."""
    credential = bench.credentials[ALPHA]
    found = await bench.call("introspect", {"token": credential})
    verified = await bench.call("verify", {"credential": credential})
    require(found["active"] is True, "it is not active")
    require(found["subject"] == verified["subject"], "the subject is another than verify answers")
    require(bool(found.get("issuer")), "the issuer is missing")


@case("AUTH-31", capability="introspection")
async def of_an_invalid_token_nothing_is_said(bench: Bench) -> None:
    """``introspect`` of a token that is not valid in the tenant MUST answer ``active: false`` and nothing more."""
    for token in FORGED:
        require(await bench.call("introspect", {"token": token}) == {"active": False}, "a forged token is described")
    foreign = await bench.call("introspect", {"token": bench.credentials[ALPHA]}, tenant=BETA)
    require(foreign == {"active": False}, f"another tenant was told {foreign}")


async def _known(bench: Bench) -> dict[str, str]:
    """Return a subject that may read: whose credential it is, or whom the manifest names (``conformance.subject``)."""
    if not bench.declares("credential_verification"):
        return dict(bench.manifest.conformance.get("subject") or {"type": "key", "id": "nobody"})
    subject = (await bench.call("verify", {"credential": bench.credentials[ALPHA]}))["subject"]
    return {"type": subject["kind"], "id": subject["id"]}


@case("AUTH-40", capability="policy_decisions")
async def a_decision_has_its_reason(bench: Bench) -> None:
    """``evaluate`` MUST allow what the subject may do, with a reason, and deny every subject and resource it does not know."""
    known = await _known(bench)
    cache = {"type": "provider", "id": "cache/memory"}
    allowed = await bench.call("evaluate", {"subject": known, "action": "get", "resource": cache})
    require(allowed["decision"] is True and bool(allowed.get("reason")), f"answered {allowed}")
    for params in (
        {"subject": {**known, "id": "nobody"}, "action": "get", "resource": cache},
        {"subject": {**known, "type": "planet"}, "action": "get", "resource": cache},
        {"subject": known, "action": "get", "resource": {**cache, "type": "planet"}},
        {"subject": known, "action": "no_such_action", "resource": cache},
    ):
        answer = await bench.call("evaluate", params)
        require(answer["decision"] is False, f"{params} was allowed: {answer}")


@case("AUTH-41", capability="policy_decisions")
async def a_subject_of_another_tenant_is_denied(bench: Bench) -> None:
    """``evaluate`` MUST deny every subject of another tenant."""
    cache = {"type": "provider", "id": "cache/memory"}
    params = {"subject": await _known(bench), "action": "get", "resource": cache}
    require((await bench.call("evaluate", params))["decision"] is True, "it is denied in its own tenant")
    answer = await bench.call("evaluate", params, tenant=BETA)
    require(answer["decision"] is False, f"answered {answer}")
