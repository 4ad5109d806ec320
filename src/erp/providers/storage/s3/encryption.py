"""Objects encrypted with a key that the call chooses; ``obstore`` knows only one key for a whole connection."""

from __future__ import annotations

from erp.providers.storage.s3.connection import S3Bucket
from erp.vendor_clients.object_store.bodies import Written
from erp.vendor_clients.object_store.metadata import Facts
from erp.vendor_clients.object_store.objects import check_header


class Encrypting:
    """Writes with one key of the key management service (SSE-KMS)."""

    def __init__(self, bucket: S3Bucket, key: str) -> None:
        check_header("encryption_key", key)
        self._bucket = bucket
        self.headers = {
            "x-amz-server-side-encryption": "aws:kms",
            "x-amz-server-side-encryption-aws-kms-key-id": key,
        }
        """What the store has to be told."""

    async def put(
        self, name: str, content: bytes, facts: Facts, *, if_match: str | None, if_absent: bool, seconds: float
    ) -> Written:
        """Write an object in one request."""
        headers = self._bucket.uploads.headers(facts) | self.headers
        if if_match is not None:
            headers["if-match"] = f'"{if_match}"'
        if if_absent:
            headers["if-none-match"] = "*"
        return await self._bucket.rest.put(name, content, headers=headers, seconds=seconds)
