"""What Redis does when it is full (https://redis.io/docs/latest/develop/reference/eviction/).

Under ``allkeys-*`` it drops any key, also one that others depend on: the index of a tag, a stream. Under ``volatile-*`` it
drops only keys with a time to live, and under ``noeviction`` none.
"""

from __future__ import annotations

import time

from erp.runtime.spi import ErrorCode, ProviderError
from erp.vendor_clients.redis.link import RedisLink

FRESH_SECONDS = 60.0


class Eviction:
    """Looks at most once a minute whether the server drops keys that are needed."""

    def __init__(self, link: RedisLink, key: str) -> None:
        """``key``: one that is on the server, or the node of a cluster, that matters."""
        self._link = link
        self._key = key
        self._policy: str | None = None
        self._looked_at = -FRESH_SECONDS

    async def refuse(self, what: str) -> None:
        """Refuse ``what`` (the beginning of a sentence) where any key may be dropped.

        A server that does not say (``INFO`` is not among the user's rights) is trusted.

        Raises:
            ProviderError: ``failed_precondition`` naming the policy.
        """
        if time.monotonic() - self._looked_at >= FRESH_SECONDS:
            self._policy = await self._dropping()
            self._looked_at = time.monotonic()
        if self._policy is not None:
            message = f"{what}: this Redis drops any key when it is full (maxmemory-policy {self._policy})."
            raise ProviderError(ErrorCode.FAILED_PRECONDITION, f"{message} Use noeviction or volatile-lru.")

    async def _dropping(self) -> str | None:
        try:
            facts = await self._link.facts("memory", self._key)
        except ProviderError as error:
            if error.code is ErrorCode.PERMISSION_DENIED:
                return None
            raise
        policy = facts.get("maxmemory_policy", "")
        is_bounded = facts.get("maxmemory", "0") != "0"
        return policy if is_bounded and policy.startswith("allkeys") else None
