"""The texts of a new provider's files."""

from __future__ import annotations

EMBEDDED_MANIFEST = """\
ref: $ref
title: $title
summary: A $contract_title in a dictionary, to begin with.
version: 0.1.0
contract: $contract
stability: experimental
homepage: null
implementation: provider:$class_name
extra: null
embedded: true
scope: process
# Only what works: a capability is declared when every action of it has a method.
capabilities: []
config:
  type: object
  additionalProperties: false
  properties:
    max_entries:
      type: integer
      title: Largest number of entries
      description: Another entry is refused with failed_precondition.
      minimum: 1
      maximum: 10000000
      default: 100000
authentication: [{profile: none}]
limits: {max_concurrency: 256}
idempotency_keys: false
conformance: {server: null, gaps: []}
"""

REMOTE_MANIFEST = """\
ref: $ref
title: $title
summary: Reaches the $contract_title of an example system.
version: 0.1.0
contract: $contract
stability: experimental
homepage: null
implementation: provider:$class_name
extra: null
embedded: false
scope: shared
# Only what works: a capability is declared when every action of it has a method.
capabilities: []
config:
  type: object
  additionalProperties: false
  required: [url]
  properties:
    url:
      type: string
      format: uri
      pattern: '^https?://[^\\s]+$$'
      maxLength: 2048
      title: Address
      description: Where the system answers.
authentication: [{profile: none}]
limits: {max_concurrency: 32}
idempotency_keys: false
# config: with what `erp conformance $ref` runs. server: the system it needs to be running.
conformance: {server: null, config: {url: 'http://127.0.0.1:9'}, gaps: []}
"""

README = """\
# $ref

Choose it to begin with.

<!-- TODO: say for whom it is right, and who should take another -->

Quirks: none known yet.

$recipe
"""

RECIPE = """
See that it answers:

```sh
curl -sS "$$ERP_URL/providers/$ref/health" -H "Authorization: Bearer $$ERP_KEY"
```
"""

RECIPES = {
    "cache": """
Keep a value:

```sh
curl -sS "$$ERP_URL/providers/$ref/set" -H "Authorization: Bearer $$ERP_KEY" \\
  --json '{"params": {"key": "greeting", "value": "hello"}}'
```
""",
}

TEST = '''\
"""The conformance suite against $ref, and what is special to it."""

from __future__ import annotations

from pathlib import Path

from erp.runtime.conformance.plugin import provider_tests

test_conformance = provider_tests("$ref", drop_in=Path(__file__).parents[2])
'''

HEAD = '''\
"""$title: a provider of the domain $domain."""

from __future__ import annotations

from typing import ClassVar

from erp.contracts.models.$domain import (
$models
)
from erp.runtime.spi import (
$spi
)


class $class_name:
    """Translates one call at a time; the layer retries, logs, meters and asks for permission."""

    translate: ClassVar[ErrorTable] = {ConnectionError: ErrorCode.UNAVAILABLE}

    def __init__(self, config: Config, context: OpenContext) -> None:
        self._url = config["url"]
        self._context = context

    async def open(self) -> None:
        """Acquire connections here, not in the constructor."""

    async def close(self) -> None:
        """Release everything; safe without open, and twice."""

    async def health(self) -> Health:
        """Ask the system now and answer what is true."""
        # TODO: ask the system at self._url
        return Health(status="down", message="not written yet")

$methods'''

WORKING_HEAD = '''\
"""$title: a provider of the domain $domain."""

from __future__ import annotations

import itertools
from typing import Any, ClassVar

import msgspec

from erp.contracts.models.$domain import (
$models
)
from erp.runtime.spi import (
$spi
)


class $class_name:
    """Translates one call at a time; the layer retries, logs, meters and asks for permission."""

    translate: ClassVar[ErrorTable] = {}

    def __init__(self, config: Config, context: OpenContext) -> None:
        self._max_entries = config["max_entries"]
        self._context = context
        self._entries: dict[str, tuple[bytes, str]] = {}
        self._versions = itertools.count(1)

    async def open(self) -> None:
        """Acquire connections here, not in the constructor."""

    async def close(self) -> None:
        """Release everything; safe without open, and twice."""
        self._entries.clear()

    async def health(self) -> Health:
        """A dictionary always answers."""
        return Health(status="ok")

$methods'''

MODELS = {"cache": ("Entry", "Found")}

BODIES: dict[str, dict[str, str]] = {
    "cache": {
        "get": """\
if request.key not in self._entries:
    return GetResult(found=False)
value, version = self._entries[request.key]
return GetResult(found=True, value=msgspec.Raw(value), version=version)""",
        "set": "return SetResult(version=self._store(request))",
        "delete": "return DeleteResult(deleted=self._entries.pop(request.key, None) is not None)",
        "get_many": "return GetManyResult(items=[self._found(key) for key in request.keys])",
        "set_many": "return SetManyResult(versions=[self._store(entry) for entry in request.entries])",
    },
}
"""Domain -> action -> what the method of a new provider does, on a dictionary."""

TAILS = {
    "cache": '''

    def _found(self, key: str) -> Found:
        if key not in self._entries:
            return Found(key=key, found=False)
        value, version = self._entries[key]
        return Found(key=key, found=True, value=msgspec.Raw(value), version=version)

    def _store(self, wanted: SetRequest | Entry) -> str:
        if wanted.ttl_seconds or wanted.tti_seconds or wanted.tags:
            raise ProviderError(ErrorCode.UNSUPPORTED, "Entries have no lifetimes and no tags here; leave them out.")
        if wanted.key not in self._entries and len(self._entries) >= self._max_entries:
            message = f"The cache is full ({self._max_entries} entries). Remove some, or raise max_entries."
            raise ProviderError(ErrorCode.FAILED_PRECONDITION, message)
        version = str(next(self._versions))
        self._entries[wanted.key] = (encoded(wanted.value), version)
        return version


def encoded(value: Any) -> bytes:
    """Encode a value, so that nobody can change it through a reference."""
    return msgspec.json.encode(value)
''',
}
