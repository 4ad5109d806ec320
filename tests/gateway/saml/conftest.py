"""A layer whose tenant ``acme`` trusts an identity provider made with samlify."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
from tests.conftest import NewDataDir
from tests.gateway.saml.person import Person
from tests.support.contract_client import contract_client
from tests.support.saml_peer import IdentityProvider, identity_provider

from erp.main import Layer, Settings, running


@pytest.fixture(scope="package")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[IdentityProvider]:
    with identity_provider(tmp_path_factory.mktemp("samlify"), tmp_path_factory.mktemp("idp")) as made:
        yield made


@pytest.fixture
async def layer(new_data_dir: NewDataDir, provider: IdentityProvider) -> AsyncIterator[Layer]:
    settings = Settings(data_dir=new_data_dir(), database_url=None, log_level="error")
    async with running(settings) as made:
        made.listens_at("http://layer.test")
        await made.control.tenants.create("acme")
        _, admin = await made.control.api_keys.create("acme", role="admin")
        async with contract_client(made.application(), admin) as client:
            facts = {
                "entity_id": "https://idp.example.com/metadata",
                "sso_url": "https://idp.example.com/sso",
                "certificates": [provider.certificate.read_text()],
                "roles_attribute": "groups",
                "role_map": {"buyers": "developer", "chiefs": "admin"},
            }
            assert (await client.put("/saml-providers/office", json=facts)).status_code == 200
        yield made


@pytest.fixture
async def person(layer: Layer, provider: IdentityProvider) -> AsyncIterator[Person]:
    made = Person(layer, provider)
    yield made
    await made.browser.aclose()
