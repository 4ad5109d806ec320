"""Everything that reaches one bucket: the library that moves content, the requests it has nothing for, names and limits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from erp.providers.storage.s3.lifecycle import Lifecycle
from erp.runtime.spi import Config, OpenContext
from erp.vendor_clients.egress import EgressRule
from erp.vendor_clients.guarded_http import GuardedHttp, HttpLimits
from erp.vendor_clients.object_store.bodies import Bodies, Described, client_options
from erp.vendor_clients.object_store.endpoint import Endpoint
from erp.vendor_clients.object_store.gate import EgressGate
from erp.vendor_clients.object_store.keys import KeySpace
from erp.vendor_clients.object_store.metadata import MetadataForm
from erp.vendor_clients.object_store.objects import Objects
from erp.vendor_clients.object_store.s3_rest import S3Rest
from erp.vendor_clients.object_store.sigv4 import Credentials, Signer
from erp.vendor_clients.object_store.uploads import Uploads

MAX_ANSWER_BYTES = 16 * 1024 * 1024
"""A page of 1000 names of 1024 bytes, escaped three times over."""
NAME_BYTES = 1024


class S3Bucket:
    """One bucket, or the part of it that belongs to the connection."""

    def __init__(self, config: Config, context: OpenContext) -> None:
        self.endpoint = endpoint_of(config)
        self._credentials = Credentials(
            config["access_key_id"], config["secret_access_key"], config.get("session_token")
        )
        self.signer = Signer(self._credentials, config["region"])
        self.keys = keys_of(config, context)
        self._config = config
        self._form = MetadataForm()
        self._http: GuardedHttp | None = None
        self._gate: EgressGate | None = None

    def __repr__(self) -> str:
        return f"S3Bucket({self.endpoint.bucket_url!r})"

    async def open(self) -> None:
        """Make the clients; the store is not asked yet."""
        timeout_seconds = float(self._config["timeout_seconds"])
        rule = EgressRule.from_environment()
        self._gate = self.endpoint.gate(rule)
        if self._gate is not None:
            await self._gate.open()
        limits = HttpLimits(total_seconds=timeout_seconds, max_answer_bytes=MAX_ANSWER_BYTES)
        self._http = GuardedHttp(rule, limits=limits)
        form = self._form
        self.rest = S3Rest(self._http, self.endpoint, self._signed)
        self.lifecycle = Lifecycle(self.rest, self.keys)
        self.objects = Objects(Bodies(self._library(), form), self.keys, timeout_seconds=timeout_seconds)
        self.uploads = Uploads(self.objects, self.rest, form, secret=self._credentials.secret_access_key)

    async def close(self) -> None:
        """Give everything back; safe twice, and without ``open``."""
        http, self._http = self._http, None
        if http is not None:
            await http.aclose()
            del self.objects, self.uploads
        if self._gate is not None:
            await self._gate.close()

    async def head(self, name: str, *, version: str | None, seconds: float) -> Described:
        """Describe an object with the key it is encrypted with, which the library does not show."""
        return await self.rest.head(name, self._form, version=version, seconds=seconds)

    @property
    def is_open(self) -> bool:
        """Whether it can be used."""
        return self._http is not None

    async def _signed(
        self, method: str, host: str, path: str, query: Mapping[str, str], headers: Mapping[str, str], body: bytes
    ) -> Mapping[str, str]:
        return self.signer.headers(method, host, path, query=query, headers=headers, body=body)

    def _library(self) -> Any:
        from obstore.store import S3Store

        # What is not given here it would take from the environment, which is the platform's and not the tenant's.
        config: Any = {
            "endpoint": self.endpoint.bucket_url if self.endpoint.is_virtual else self.endpoint.url,
            "region": self._config["region"],
            "virtual_hosted_style_request": self.endpoint.is_virtual,
            "skip_signature": False,
            "unsigned_payload": False,
            **_encryption(self._config),
        }
        return S3Store(
            self._config["bucket"],
            config=config,
            client_options=client_options(self.endpoint, self._gate, timeout_seconds=self._config["timeout_seconds"]),
            retry_config={"max_retries": 0},
            credential_provider=self._library_credentials,
        )

    def _library_credentials(self) -> Any:
        return {
            "access_key_id": self._credentials.access_key_id,
            "secret_access_key": self._credentials.secret_access_key,
            "token": self._credentials.session_token,
            "expires_at": None,
        }


def endpoint_of(config: Config) -> Endpoint:
    """Read where the bucket is."""
    chosen = config.get("endpoint")
    url = str(chosen or f"https://s3.{config['region']}.amazonaws.com").rstrip("/")
    addressing = config.get("addressing") or ("path" if chosen else "virtual")
    return Endpoint(url, config["bucket"], is_virtual=addressing == "virtual", is_vendor=not chosen)


def keys_of(config: Config, context: OpenContext) -> KeySpace:
    """Read which names belong to the connection."""
    root = config.get("root")
    if root is not None:
        return KeySpace(root, longest_bytes=NAME_BYTES, is_verbatim=True)
    return KeySpace.of(config["namespace"], context.tenant, context.connection, longest_bytes=NAME_BYTES)


def _encryption(config: Config) -> dict[str, Any]:
    found = config["encryption"]
    if found == "none":
        return {}
    key = {"sse_kms_key_id": config["kms_key_id"]} if "kms_key_id" in config else {}
    return {"server_side_encryption": found, **key}
