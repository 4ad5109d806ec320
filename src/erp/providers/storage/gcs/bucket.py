"""Everything that reaches one bucket: the library that moves content, the requests it has nothing for, names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from erp.providers.storage.gcs.service_account import ServiceAccount
from erp.runtime.spi import Config, OpenContext
from erp.vendor_clients.egress import EgressRule
from erp.vendor_clients.guarded_http import GuardedHttp, HttpLimits
from erp.vendor_clients.object_store.bodies import Bodies, client_options
from erp.vendor_clients.object_store.endpoint import Endpoint
from erp.vendor_clients.object_store.gate import EgressGate
from erp.vendor_clients.object_store.keys import KeySpace
from erp.vendor_clients.object_store.metadata import MetadataForm
from erp.vendor_clients.object_store.objects import Objects
from erp.vendor_clients.object_store.s3_rest import S3Rest
from erp.vendor_clients.object_store.uploads import Uploads

MAX_ANSWER_BYTES = 16 * 1024 * 1024
NAME_BYTES = 1024


class GcsBucket:
    """The part of a bucket that belongs to the connection."""

    def __init__(self, config: Config, context: OpenContext) -> None:
        chosen = config.get("endpoint")
        url = str(chosen or "https://storage.googleapis.com").rstrip("/")
        self.endpoint = Endpoint(url, config["bucket"], is_vendor=not chosen)
        self.keys = KeySpace.of(config["namespace"], context.tenant, context.connection, longest_bytes=NAME_BYTES)
        self._config = config
        self._http: GuardedHttp | None = None
        self._gate: EgressGate | None = None

    def __repr__(self) -> str:
        return f"GcsBucket({self.endpoint.bucket_url!r})"

    async def open(self) -> None:
        """Make the clients; the store is not asked yet."""
        timeout_seconds = float(self._config["timeout_seconds"])
        rule, form = EgressRule.from_environment(), MetadataForm()
        limits = HttpLimits(total_seconds=timeout_seconds, max_answer_bytes=MAX_ANSWER_BYTES)
        http = GuardedHttp(rule, limits=limits)
        self.account = ServiceAccount(http, self._config["service_account_key"])
        self._gate = self.endpoint.gate(rule)
        if self._gate is not None:
            await self._gate.open()
        self._http = http
        self.rest = S3Rest(http, self.endpoint, self._authorized, vendor="x-goog-")
        bodies = Bodies(self._library(), form, by_version=True)
        self.objects = Objects(bodies, self.keys, timeout_seconds=timeout_seconds)
        self.uploads = Uploads(self.objects, self.rest, form, secret=self._config["service_account_key"])

    async def close(self) -> None:
        """Give everything back; safe twice, and without ``open``."""
        http, self._http = self._http, None
        if http is not None:
            await http.aclose()
            del self.objects, self.uploads
        if self._gate is not None:
            await self._gate.close()

    @property
    def is_open(self) -> bool:
        """Whether it can be used."""
        return self._http is not None

    async def _authorized(  # what ``S3Rest`` asks for
        self,
        method: str,  # noqa: ARG002
        host: str,  # noqa: ARG002
        path: str,  # noqa: ARG002
        query: Mapping[str, str],  # noqa: ARG002
        headers: Mapping[str, str],
        body: bytes,  # noqa: ARG002
    ) -> Mapping[str, str]:
        token, _ = await self.account.token()
        return {**headers, "authorization": f"Bearer {token}"}

    def _library(self) -> Any:
        from obstore.store import GCSStore

        # What is not given here it would take from the environment, which is the platform's and not the tenant's.
        config: Any = {"base_url": self.endpoint.url, "skip_signature": False}
        return GCSStore(
            self._config["bucket"],
            config=config,
            client_options=client_options(self.endpoint, self._gate, timeout_seconds=self._config["timeout_seconds"]),
            retry_config={"max_retries": 0},
            credential_provider=self._library_credentials,
        )

    async def _library_credentials(self) -> Any:
        token, ends = await self.account.token()
        return {"token": token, "expires_at": ends}
