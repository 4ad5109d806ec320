"""Everything that reaches one container: the library that moves content, the requests it has nothing for, names."""

from __future__ import annotations

import datetime
from typing import Any

from erp.providers.storage.azure.rest import BlobRest
from erp.providers.storage.azure.shared_key import SharedKey
from erp.providers.storage.azure.uploads import Uploads
from erp.runtime.spi import Config, ErrorCode, FieldError, OpenContext, ProviderError
from erp.vendor_clients.egress import EgressRule
from erp.vendor_clients.guarded_http import GuardedHttp, HttpLimits
from erp.vendor_clients.object_store.bodies import Bodies, client_options
from erp.vendor_clients.object_store.endpoint import Endpoint
from erp.vendor_clients.object_store.gate import EgressGate
from erp.vendor_clients.object_store.keys import KeySpace
from erp.vendor_clients.object_store.metadata import MetadataForm
from erp.vendor_clients.object_store.objects import Objects
from erp.vendor_clients.object_store.sigv4 import query_text

MAX_ANSWER_BYTES = 16 * 1024 * 1024
NAME_BYTES = 1024


class BlobContainer:
    """The part of a container that belongs to the connection."""

    def __init__(self, config: Config, context: OpenContext) -> None:
        chosen = config.get("endpoint")
        url = str(chosen or f"https://{config['account']}.blob.core.windows.net").rstrip("/")
        self.endpoint = Endpoint(url, config["container"], is_vendor=not chosen)
        self.keys = KeySpace.of(config["namespace"], context.tenant, context.connection, longest_bytes=NAME_BYTES)
        own = KeySpace.of(
            f"{config['namespace']}/uploads", context.tenant, context.connection, longest_bytes=NAME_BYTES
        )
        # A percent sign that begins no escape: no object's name has it.
        self._records = own.root.replace("/uploads/", "/%uploads/", 1)
        self._config = config
        self._http: GuardedHttp | None = None
        self._gate: EgressGate | None = None

    def __repr__(self) -> str:
        return f"BlobContainer({self.endpoint.bucket_url!r})"

    async def open(self) -> None:
        """Make the clients; the store is not asked yet."""
        try:
            self._key = SharedKey(self._config["account"], self._config["account_key"])
        except ValueError as error:
            wrong = [FieldError("/config/account_key", "Give the key as the portal shows it, in base64.")]
            raise ProviderError(ErrorCode.FAILED_PRECONDITION, str(error), errors=wrong) from error
        timeout_seconds = float(self._config["timeout_seconds"])
        rule, form = EgressRule.from_environment(), MetadataForm("_")
        self._gate = self.endpoint.gate(rule)
        if self._gate is not None:
            await self._gate.open()
        limits = HttpLimits(total_seconds=timeout_seconds, max_answer_bytes=MAX_ANSWER_BYTES)
        self._http = GuardedHttp(rule, limits=limits)
        self.rest = BlobRest(self._http, self.endpoint, self._key)
        self.objects = Objects(Bodies(self._library(), form), self.keys, timeout_seconds=timeout_seconds)
        self.uploads = Uploads(self.objects, self.rest, form, folder=self._records)

    async def close(self) -> None:
        """Give everything back; safe twice, and without ``open``."""
        http, self._http = self._http, None
        if http is not None:
            await http.aclose()
            del self.objects, self.uploads
        if self._gate is not None:
            await self._gate.close()

    def link(self, name: str, permissions: str, ends: datetime.datetime) -> str:
        """Return a URL that lets its holder use one blob."""
        query = self._key.query(self.endpoint.bucket, name, permissions=permissions, ends=ends)
        return f"{self.endpoint.url_of(name)}?{query_text(query)}"

    @property
    def is_open(self) -> bool:
        """Whether it can be used."""
        return self._http is not None

    def _library(self) -> Any:
        from obstore.store import AzureStore

        # What is not given here it would take from the environment, which is the platform's and not the tenant's.
        config: Any = {
            "account_name": self._config["account"],
            "endpoint": self.endpoint.url,
            "skip_signature": False,
            "use_emulator": False,
            "use_fabric_endpoint": False,
        }
        return AzureStore(
            self._config["container"],
            config=config,
            client_options=client_options(self.endpoint, self._gate, timeout_seconds=self._config["timeout_seconds"]),
            retry_config={"max_retries": 0},
            credential_provider=self._library_credentials,
        )

    def _library_credentials(self) -> Any:
        return {"access_key": self._config["account_key"], "expires_at": None}
