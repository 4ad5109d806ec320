"""Earlier versions of objects, and the keys they are encrypted with."""

from __future__ import annotations

from typing import Any

from erp.runtime.conformance.bench import Bench, require
from erp.runtime.conformance.case import case
from erp.runtime.conformance.cases.storage import begun, content_of, part_of, put, text


@case("STORE-90", capability="versioning")
async def earlier_versions_can_be_read(bench: Bench) -> None:
    """Every ``put`` MUST answer another ``version``, and ``get`` and ``head`` of a version MUST answer that one."""
    written = [await put(bench, "k", content) for content in (b"first", b"second", b"first")]
    versions = [one.get("version") for one in written]
    require(len(set(versions)) == len(versions) and None not in versions, f"the versions are {versions}")
    for version, content in zip(versions, (b"first", b"second", b"first"), strict=True):
        require(await content_of(bench, "k", version=version) == content, "a version holds the content of another")
        await bench.equal("head", {"key": "k", "version": version}, {"found": True, "size": len(content)})
    await bench.equal("head", {"key": "k"}, {"version": versions[-1]})


@case("STORE-91", capability="versioning")
async def versions_are_listed_newest_first(bench: Bench) -> None:
    """``list_versions`` MUST list the versions of one key alone, newest first, over all pages."""
    written = [(await put(bench, "k", b"%d" % number))["version"] for number in range(3)]
    await put(bench, "k/other")
    await put(bench, "ki")
    found: list[Any] = []
    cursor: dict[str, Any] = {}
    while True:
        page = await bench.call("list_versions", {"key": "k", "limit": 2, **cursor})
        found += page["versions"]
        if "next_cursor" not in page:
            break
        cursor = {"cursor": page["next_cursor"]}
    require([one["version"] for one in found] == written[::-1], f"listed {[one['version'] for one in found]}")
    require([one["is_latest"] for one in found] == [True, False, False], "another version is called the latest")


@case("STORE-92", capability="versioning")
async def a_removed_object_leaves_its_versions(bench: Bench) -> None:
    """``delete`` MUST leave earlier versions; with ``version`` it MUST remove that one for good and no other."""
    first, second = [(await put(bench, "k", content))["version"] for content in (b"first", b"second")]
    await bench.equal("delete", {"key": "k"}, {"deleted": True})
    await bench.equal("head", {"key": "k"}, {"found": False})
    require(await content_of(bench, "k", version=second) == b"second", "the version went with the object")
    listed = (await bench.call("list_versions", {"key": "k"}))["versions"]
    require([one["is_deleted"] for one in listed] == [True, False, False], "the removal is not listed, or not first")
    await bench.equal("delete", {"key": "k", "version": second}, {"deleted": True})
    await bench.refused("not_found", "get", {"key": "k", "version": second})
    require(await content_of(bench, "k", version=first) == b"first", "another version was removed")


@case("STORE-93", without="versioning")
async def a_version_is_refused_where_there_are_none(bench: Bench) -> None:
    """Without the capability ``versioning`` a ``version`` MUST be refused with ``unsupported``, and nothing removed."""
    await put(bench, "k")
    for action in ("get", "head", "delete"):
        await bench.refused("unsupported", action, {"key": "k", "version": "1"})
    await bench.equal("head", {"key": "k"}, {"found": True})


@case("STORE-95", capability="server_side_encryption")
async def objects_are_encrypted_with_the_chosen_key(bench: Bench) -> None:
    """An object with ``encryption_key`` MUST read back, and ``head`` MUST name the key; one without it MUST NOT."""
    key = bench.manifest.conformance["encryption_key"]
    await put(bench, "k", b"content", encryption_key=key)
    require(await content_of(bench, "k") == b"content", "the encrypted object reads back changed")
    head = await bench.call("head", {"key": "k"})
    require(head.get("encryption_key", "").endswith(key), f"the key is {head.get('encryption_key')!r}")
    upload = await begun(bench, encryption_key=key)
    parts = [await part_of(bench, upload, 1, b"content")]
    await bench.call("complete_multipart", {"key": "large", "upload": upload, "parts": parts})
    head = await bench.call("head", {"key": "large"})
    require(head.get("encryption_key", "").endswith(key), "the object of parts is not encrypted with the key")
    await put(bench, "k")
    require("encryption_key" not in await bench.call("head", {"key": "k"}), "the next object kept the key")


@case("STORE-96", without="server_side_encryption")
async def a_key_is_refused_where_nothing_is_encrypted(bench: Bench) -> None:
    """Without the capability ``server_side_encryption`` a key MUST be refused with ``unsupported``, and nothing stored."""
    params = {"key": "k", "content": text(b"secret"), "encryption_key": "mine"}
    await bench.refused("unsupported", "put", params)
    await bench.equal("head", {"key": "k"}, {"found": False})
