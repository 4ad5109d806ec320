"""Configuration, secrets and the peer behind a provider."""

from __future__ import annotations

from typing import Any

from erp.contracts.models.errors import ErrorCode
from erp.errors import ProviderError
from erp.runtime.conformance.bench import Bench, require
from erp.runtime.conformance.case import case
from erp.runtime.conformance.cases.calls import recorded_texts

BAD_REQUEST, OK = 400, 200


@case("CONF-01")
async def an_unknown_setting_is_refused_with_its_path(bench: Bench) -> None:
    """A configuration with an unknown property MUST be refused, naming the property."""
    status, answer = await bench.connect(config={**bench.config, "no_such_setting": 1})
    require(status == BAD_REQUEST, f"it was answered {status}")
    pointers = [error["pointer"] for error in answer["errors"]]
    require(pointers == ["/config/no_such_setting"], f"the problem names {pointers}")


@case("CONF-02")
async def a_setting_of_a_wrong_type_is_refused_with_its_path(bench: Bench) -> None:
    """A property whose value has a wrong type MUST be refused, naming the property."""
    for name, schema in bench.manifest.config["properties"].items():
        if "type" not in schema:
            continue
        wrong: Any = [[]] if schema["type"] != "array" else {}
        status, answer = await bench.connect(config={**bench.config, name: wrong})
        require(status == BAD_REQUEST, f"{name} = {wrong} was answered {status}")
        pointers = {error["pointer"] for error in answer["errors"]}
        require(f"/config/{name}" in pointers, f"{name} = {wrong} was refused at {sorted(pointers)}")


@case("CONF-03")
async def configuring_again_does_not_disturb(bench: Bench) -> None:
    """A second object of a connection that is opened and closed beside the first MUST leave it working.

    This is how a new configuration is tried before it is used.
    """
    await bench.call(*bench.sample())
    for _ in range(3):
        status, answer = await bench.connect()
        require(status == OK, f"configuring again was answered {answer}")
        await bench.call(*bench.sample())


@case("CONF-04")
async def defaults_are_valid(bench: Bench) -> None:
    """Every default in the manifest MUST be valid, so that the connection works with all of them spelt out."""
    status, answer = await bench.connect(config={**bench.manifest.defaults, **bench.config})
    require(status == OK, f"the manifest's defaults were refused: {answer}")
    await bench.call(*bench.sample())


@case("SEC-01", needs="secrets", last=True)
async def secrets_appear_nowhere(bench: Bench) -> None:
    """A secret of the configuration MUST NOT appear in an answer, a problem, an event or a log line."""
    texts = [text for one in bench.recording.calls for text in recorded_texts(one)]
    texts += [str(event.data) for one in bench.recording.calls for event in one.emitted]
    texts += bench.recording.logs
    seen = [text for text in texts for secret in bench.recording.secrets if secret in text]
    require(not seen, f"a secret was seen {len(seen)} times")


@case("SEC-02", needs="secrets")
async def secrets_have_no_repr(bench: Bench) -> None:
    """``repr`` and ``str`` of an open provider MUST NOT show a secret, nor those of what it holds."""
    provider = bench.bare()
    await provider.open()
    try:
        held = [value for name, value in vars(provider).items() if not isinstance(value, (str, dict))]
        texts = [repr(value) for value in (provider, *held)] + [str(provider)]
    finally:
        await provider.close()
    require(not any(secret in text for text in texts for secret in bench.recording.secrets), "a repr shows a secret")


@case("NET-01", needs="server")
async def an_unreachable_peer_is_unavailable(bench: Bench) -> None:
    """When the peer cannot be reached configuring and calls MUST be answered ``unavailable``.

    A provider that keeps what it is given and delivers it later MUST answer ``accepted``, never that it is done.
    """
    config = bench.settings("unreachable")
    status, answer = await bench.connect(config=config)
    if status != OK:
        require(answer["code"] == "unavailable", f"configuring was answered {answer['code']}")
        require(answer["retryable"] is True, "the problem does not say that it can be tried again")
    await bench.connected(config=config)
    if bench.declares("deliveries"):
        await bench.equal(*bench.sample(), {"status": "accepted"})
        return
    await bench.refused("unavailable", *bench.sample())


@case("NET-02", needs="server")
async def health_is_honest_about_an_unreachable_peer(bench: Bench) -> None:
    """When the peer cannot be reached ``health()`` MUST NOT answer ``ok``, and MUST answer."""
    provider = bench.bare(bench.settings("unreachable"))
    try:
        await provider.open()
        health = await provider.health()
    except ProviderError as error:
        require(error.code is ErrorCode.UNAVAILABLE, f"opening raised {error.code}")
        return
    except Exception as error:  # noqa: BLE001  (whatever it is, the table has to name it)
        table = type(provider).translate
        require(any(isinstance(error, kind) for kind in table), f"opening raised {type(error).__name__}")
        return
    finally:
        await provider.close()
    require(health.status != "ok", "health() answered ok")


@case("NET-03", needs="credentials")
async def wrong_credentials_are_unauthenticated(bench: Bench) -> None:
    """When the peer refuses the credentials a connection or call MUST be answered ``unauthenticated``."""
    status, answer = await bench.connect(config=bench.settings("wrong_credentials"))
    if status != OK:
        require(answer["code"] == "unauthenticated", f"configuring was answered {answer['code']}")
        return
    await bench.refused("unauthenticated", *bench.sample())
