"""The peers that the kit plays, and what the guard of outgoing requests lets through to them."""

from __future__ import annotations

import os

import msgspec
import pytest

from erp.cli.conformance_host import hosting
from erp.runtime.catalog import ProviderCatalog
from erp.runtime.conformance import all_cases
from erp.runtime.conformance.peers import API, HOOKS, Peers, Reply, filled
from erp.runtime.conformance.running import Run
from erp.vendor_clients.egress import EgressRule
from erp.vendor_clients.guarded_http import AnswerLostError, ConnectFailedError, GuardedHttp

pytestmark = pytest.mark.anyio


async def test_while_a_host_runs_its_peers_ports_are_permitted_and_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ERP_EGRESS_ALLOW", "10.1.0.0/16")
    async with hosting() as host:
        rule = EgressRule.from_environment()
        assert [rule.permits("127.0.0.1", port) for port in host.peers.ports] == [True, True]
        assert rule.permits("127.0.0.1", 80) is False
        assert rule.permits("127.0.0.2", host.peers.ports[0]) is False
    assert os.environ["ERP_EGRESS_ALLOW"] == "10.1.0.0/16"


async def test_a_site_answers_as_told_then_as_usual_and_notes_what_came() -> None:
    peers = Peers()
    await peers.open()
    http = GuardedHttp(EgressRule.from_environment({"ERP_EGRESS_ALLOW": "127.0.0.1/32"}))
    try:
        site, other = peers.site(), peers.site()
        site.instead(HOOKS, Reply.of(503, retry_after="7"), Reply(hangs_up=True), Reply.of(200, {"a": 1}).cut())
        answer = await http.send("POST", site.hooks, body=b"{}")
        assert (answer.status, answer.headers["retry-after"]) == (503, "7")
        for _ in range(2):
            with pytest.raises(AnswerLostError):
                await http.send("POST", site.hooks)
        assert (await http.send("POST", f"{site.hooks}/a%2Fb?c=d")).status == 204
        assert (await http.send("GET", f"{site.address}{API}/products")).status == 401
        assert [one.path for one in site.received] == [HOOKS, HOOKS, HOOKS, f"{HOOKS}/a%2Fb", f"{API}/products"]
        assert (site.received[3].segments, site.received[3].query) == (["hooks", "a/b"], {"c": "d"})
        assert other.received == []
        peers.forget(site)
        assert (await http.send("POST", site.hooks)).status == 404
        with pytest.raises(ConnectFailedError):
            await http.send("POST", peers.nobody)
    finally:
        await http.aclose()
        await peers.close()


async def test_settings_lead_to_the_site_and_nothing_else_in_them_is_touched() -> None:
    peers = Peers()
    await peers.open()
    try:
        site = peers.site()
        settings = {"url": "{peer}/api", "paths": ["/products/{sku}"], "size": 3, "down": "{nobody}"}
        expected = {"url": f"{site.address}/api", "paths": ["/products/{sku}"], "size": 3, "down": peers.nobody}
        assert filled(settings, site, peers) == expected
    finally:
        await peers.close()


async def test_a_case_that_cannot_run_says_why() -> None:
    manifest = ProviderCatalog.load().provider("integration", "http_api")
    cases = {case.id: case for case in all_cases()}
    mute = msgspec.structs.replace(manifest, conformance={"unreachable": {"base_url": "http://127.0.0.1:9"}})
    reading = msgspec.structs.replace(manifest, capabilities=["sync"])
    async with hosting() as host:
        elsewhere = Run(host, mute, {"base_url": "https://api.example"})
        outcomes = [await elsewhere.outcome(cases[id_]) for id_ in ("INT-40", "INT-30", "INT-08")]
        outcomes.append(await Run(host, reading, manifest.conformance["config"]).outcome(cases["INT-30"]))
    assert [one.status for one in outcomes] == ["not_run"] * 4
    assert [one.reason.partition(",")[0] for one in outcomes] == [
        "its peer is not the one that the kit plays",
        "provider.yaml does not say (conformance.records) of which object of the peer records may be written",
        "provider.yaml does not say (conformance.wrong_credentials) which credentials the peer refuses",
        "upsert is not declared",
    ]
