"""What the pages on identity lead to: people who sign in, and machines that are let in by their certificates."""

from __future__ import annotations

import base64
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest
from tests.docs.conftest import wait_until_ready
from tests.docs.test_examples import FENCE, ROOT, read_examples, require_as_shown
from tests.support.oidc_peer import OidcPeer
from tests.support.saml_peer import IdentityProvider

HOW_TO = ROOT / "docs" / "how-to"


def _run_page(name: str, environment: dict[str, str], folder: Path) -> None:
    for example in read_examples((HOW_TO / name).read_text(), name):
        require_as_shown(example, environment, folder)


def test_a_person_signs_in_at_the_saml_provider_that_the_page_has_set_up(
    live_environment: dict[str, str], saml_identity_provider: IdentityProvider, reader_folder: Path
) -> None:
    _run_page("sign-in-by-saml.md", live_environment, reader_folder)
    with httpx2.Client(base_url=live_environment["ERP_URL"]) as browser:
        begun = browser.get("/auth/saml/demo/office/login", params={"return_to": "/me"})
        metadata = (reader_folder / "metadata.xml").read_text()
        xml = saml_identity_provider.answer(begun.headers["location"], metadata, Group="erp-buyers")
        accepted = browser.post(
            _consumer(metadata), data={"SAMLResponse": base64.b64encode(xml.encode()).decode()}, headers={"cookie": ""}
        )
        assert accepted.status_code == 303, accepted.text
        done = browser.get(accepted.headers["location"])
        assert (done.status_code, done.headers["location"]) == (303, "/me")
        me = browser.get("/me").json()
    assert (me["id"], me["tenant"], me["roles"]) == ("user:saml.office:ada", "demo", ["developer"])


def test_a_person_uses_the_browser_session_that_the_page_describes(
    live_environment: dict[str, str], openid_provider: dict[str, str], reader_folder: Path
) -> None:
    _run_page("browser-sessions.md", live_environment | openid_provider, reader_folder)
    peer = OidcPeer(openid_provider["ISSUER"], openid_provider["GATEWAY_SECRET"])
    body = {"params": {"key": "from-a-page", "value": 1}}
    with httpx2.Client(base_url=live_environment["ERP_URL"]) as browser, httpx2.Client() as at_issuer:
        query = {"tenant": "demo", "issuer": "staff", "return_to": "/me"}
        begun = browser.get("/auth/login", params=query)
        done = browser.get(peer.signed_in(at_issuer, begun.headers["location"], "demo.developer"))
        assert (done.status_code, done.headers["location"]) == (303, "/me"), done.text
        assert browser.get("/me").json()["id"] == "user:staff:demo.developer"
        assert browser.post("/providers/cache/memory/set", json=body).status_code == 403
        token = {"x-csrf-token": browser.cookies["erp_csrf"]}
        assert browser.post("/providers/cache/memory/set", json=body, headers=token).status_code == 200
        assert [one["current"] for one in browser.get("/auth/sessions").json()["items"]] == [True]
        assert "logout_url" in browser.post("/auth/logout", headers=token).json()
        assert browser.get("/me").status_code == 401


def _consumer(metadata: str) -> str:
    found = re.search(r'AssertionConsumerService[^>]* Location="([^"]+)"', metadata)
    assert found is not None
    return found[1]


def _shell_blocks(page: str, heading: str) -> list[str]:
    text = (HOW_TO / page).read_text().partition(f"## {heading}\n")[2]
    return [block["code"] for block in FENCE.finditer(text) if block["language"] == "sh"]


@contextmanager
def _serving(command: str, environment: dict[str, str], folder: Path) -> Iterator[str]:
    """Run the page's ``erp serve``, at a free port."""
    words = [*command.split(), "--port", "0"]
    with subprocess.Popen(
        words, env=environment, cwd=folder, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    ) as server:
        try:
            yield wait_until_ready(server)[0]
        finally:
            server.terminate()
            server.wait(30)


@contextmanager
def _account(name: str, environment: dict[str, str]) -> Iterator[None]:
    """The service account that the page has made, when its own commands have not run."""
    headers = {"authorization": f"Bearer {environment['ADMIN_KEY']}"}
    with httpx2.Client(base_url=environment["ERP_URL"], headers=headers) as admin:
        made = admin.post("/service-accounts", json={"name": name, "role": "developer"})
        assert made.status_code in {201, 409}, made.text
        yield
        if made.status_code == 201:
            assert admin.delete(f"/service-accounts/{name}").status_code == 204


def test_a_machine_is_let_in_by_the_certificate_that_the_page_registers(
    live_environment: dict[str, str], tmp_path: Path
) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("needs the openssl command")
    make, serve, use = _shell_blocks("give-machines-access.md", "Let a certificate stand for a machine")
    run = ["bash", "-euo", "pipefail", "-c"]
    subprocess.run([*run, make], cwd=tmp_path, check=True, capture_output=True, timeout=60)
    with _account("shop-import", live_environment), _serving(serve, live_environment, tmp_path) as address:
        environment = live_environment | {"ERP_URL": address}
        done = subprocess.run(
            [*run, use], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr
        assert '"id":"account_shop-import"' in done.stdout
        nobody = ["curl", "-sS", "--cacert", "server.crt", f"{address}/me"]
        refused = subprocess.run(nobody, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True)
        assert '"code":"unauthenticated"' in refused.stdout
