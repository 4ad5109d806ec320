"""Lifecycle rules of a connection among those of the whole bucket, which may belong to others.

S3 has one list of rules for a bucket and replaces it as a whole. A connection's own rules are known by their id
(``erp-`` and a digest of the connection's root) and act below its root; all others stay as they are.
"""

from __future__ import annotations

import asyncio
import hashlib
from xml.etree import ElementTree

from erp.contracts.models.storage import LifecycleRule
from erp.vendor_clients.object_store.failures import RefusedError
from erp.vendor_clients.object_store.keys import KeySpace
from erp.vendor_clients.object_store.s3_rest import XML, S3Rest, text

_SETTING = "lifecycle"
_NONE = "NoSuchLifecycleConfiguration"


class Lifecycle:
    """The rules of one connection."""

    def __init__(self, rest: S3Rest, keys: KeySpace) -> None:
        self._rest = rest
        self._keys = keys
        self._own = f"erp-{hashlib.sha256(keys.root.encode()).hexdigest()[:16]}-"
        self._replacing = asyncio.Lock()

    async def rules(self, *, seconds: float) -> list[LifecycleRule]:
        """Return the connection's rules."""
        return [self._read(rule) for rule in await self._all(seconds) if self._is_own(rule)]

    async def replace(self, rules: list[LifecycleRule], *, seconds: float) -> None:
        """Keep exactly these rules of the connection, and every rule of others."""
        async with self._replacing:
            present = await self._all(seconds)
            kept = [rule for rule in present if not self._is_own(rule)]
            document = ElementTree.Element("LifecycleConfiguration", xmlns=XML)
            document.extend([_plain(rule) for rule in kept])
            document.extend([self._written(rule) for rule in rules])
            if len(document):
                await self._rest.set(_SETTING, document, seconds=seconds)
            elif present:
                await self._rest.set(_SETTING, None, seconds=seconds)

    async def _all(self, seconds: float) -> list[ElementTree.Element]:
        try:
            return (await self._rest.setting(_SETTING, seconds=seconds)).findall("{*}Rule")
        except RefusedError as error:
            if error.refusal.code == _NONE:
                return []
            raise

    def _is_own(self, rule: ElementTree.Element) -> bool:
        return text(rule, "ID").startswith(self._own)

    def _read(self, rule: ElementTree.Element) -> LifecycleRule:
        found = rule.find("{*}Filter")
        prefix = text(rule if found is None else found, "Prefix")
        expiration = rule.find("{*}Expiration")
        return LifecycleRule(
            id=text(rule, "ID").removeprefix(self._own),
            prefix=self._keys.key(prefix),
            expire_after_days=0 if expiration is None else int(text(expiration, "Days")),
        )

    def _written(self, rule: LifecycleRule) -> ElementTree.Element:
        made = ElementTree.Element("Rule")
        ElementTree.SubElement(made, "ID").text = f"{self._own}{rule.id}"
        place = ElementTree.SubElement(made, "Filter")
        ElementTree.SubElement(place, "Prefix").text = self._keys.prefix(rule.prefix)[0]
        ElementTree.SubElement(made, "Status").text = "Enabled"
        expiration = ElementTree.SubElement(made, "Expiration")
        ElementTree.SubElement(expiration, "Days").text = str(rule.expire_after_days)
        return made


def _plain(rule: ElementTree.Element) -> ElementTree.Element:
    """The same without the prefixes of namespaces, which some stores do not read."""
    for one in rule.iter():
        one.tag = one.tag.rpartition("}")[2]
    return rule
