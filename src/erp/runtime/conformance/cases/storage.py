"""Objects by key."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from typing import Any

from erp.runtime.conformance.bench import Bench, require
from erp.runtime.conformance.case import case
from erp.runtime.conformance.host import ALPHA, BETA

CONTENTS = (b"", b"\x00", b"text\r\n", bytes(range(256)), b"ab" * 600_000)
KEYS = (
    "plain", "a/b/c", "a//b", "/lead", "trail/", "..", "../up", "a/../b", ".", "~", "CON", "nul.txt", "back\\slash", "sp ace ",
    "\u0000nul", "é", "e\u0301", "A", "a", "%2e%2e%2f", "ключ/键/🔑", "x" * 1024, "?q=1#f", "new\nline",
)  # fmt: skip


def text(content: bytes) -> str:
    """Return content as it stands in JSON."""
    return base64.b64encode(content).decode()


async def put(bench: Bench, key: str, content: bytes = b"content", **more: Any) -> Any:
    """Store an object."""
    return await bench.call("put", {"key": key, "content": text(content), **more})


async def content_of(bench: Bench, key: str, *, tenant: str = ALPHA, **more: Any) -> bytes:
    """Read an object, or a part of it."""
    answer = await bench.call("get", {"key": key, **more}, tenant=tenant)
    return base64.b64decode(answer["content"])


@case("STORE-01")
async def content_reads_back_byte_for_byte(bench: Bench) -> None:
    """``get`` MUST answer exactly the bytes last written by ``put``, the empty object included."""
    for content in CONTENTS:
        stored = await put(bench, "object", content)
        require(stored["size"] == len(content), f"{len(content)} bytes were stored as {stored['size']}")
        require(stored["sha256"] == hashlib.sha256(content).hexdigest(), "put answers another checksum")
        require(await content_of(bench, "object") == content, f"{len(content)} bytes came back changed")


@case("STORE-02")
async def what_is_not_there_is_said_so(bench: Bench) -> None:
    """``get`` of an absent key MUST be refused with ``not_found``; ``head`` MUST answer ``found: false`` and no more."""
    await bench.refused("not_found", "get", {"key": "absent"})
    answer = await bench.call("head", {"key": "absent"})
    require(answer == {"found": False}, f"answered {answer}")


@case("STORE-03")
async def keys_are_any_text_and_never_paths(bench: Bench) -> None:
    """Any text of up to 1024 characters MUST be a key of its own; none is a path of a file system."""
    for key in KEYS:
        await put(bench, key, key.encode())
    for key in KEYS:
        content = await content_of(bench, key)
        require(content == key.encode(), f"the object {key[:40]!r} holds that of {content[:40]!r}")
    listed = await _listed(bench, limit=1000)
    require(sorted(listed) == sorted(KEYS), f"listed other keys: {set(listed) ^ set(KEYS)}")


@case("STORE-04")
async def writing_replaces_the_whole_object(bench: Bench) -> None:
    """``put`` MUST replace content, type and text of an object, and change its etag when the content changes."""
    first = await put(bench, "k", b"a much longer first content", content_type="text/plain")
    second = await put(bench, "k", b"short")
    head = await bench.equal("head", {"key": "k"}, {"found": True, "size": 5, "etag": second["etag"]})
    require(first["etag"] != second["etag"], "the etag did not change with the content")
    require(head["content_type"] == "application/octet-stream", f"the type before stayed: {head['content_type']}")


@case("STORE-05")
async def head_describes_what_get_answers(bench: Bench) -> None:
    """``head`` and ``get`` MUST agree on type, size, etag and time; the time is that of the writing."""
    stored = await put(bench, "k", b"12345", content_type="text/csv; charset=utf-8")
    expected = {"content_type": "text/csv; charset=utf-8", "size": 5, "etag": stored["etag"]}
    head = await bench.equal("head", {"key": "k"}, {"found": True, **expected})
    got = await bench.equal("get", {"key": "k"}, expected)
    require(head["modified_at"] == got["modified_at"], "head and get answer different times")


@case("STORE-06")
async def a_wrong_checksum_is_refused(bench: Bench) -> None:
    """``put`` with a ``sha256`` that is not the content's MUST be refused and change nothing."""
    await put(bench, "k", b"before")
    params = {"key": "k", "content": text(b"after"), "sha256": "0" * 64}
    await bench.refused("invalid_argument", "put", params)
    require(await content_of(bench, "k") == b"before", "the refused content was written")
    await bench.call("put", {**params, "sha256": hashlib.sha256(b"after").hexdigest()})


@case("STORE-07")
async def delete_removes_one_object_once(bench: Bench) -> None:
    """``delete`` MUST remove the object and no other, and answer whether it was there."""
    for key in ("a", "a/b"):
        await put(bench, key)
    await bench.equal("delete", {"key": "a"}, {"deleted": True})
    await bench.equal("delete", {"key": "a"}, {"deleted": False})
    await bench.equal("head", {"key": "a"}, {"found": False})
    await bench.equal("head", {"key": "a/b"}, {"found": True})


@case("STORE-08")
async def copy_makes_an_equal_object(bench: Bench) -> None:
    """``copy`` MUST make the target equal to the source and leave the source alone; onto itself it changes nothing."""
    await put(bench, "source", b"content", content_type="text/plain")
    await put(bench, "target", b"replaced")
    for target in ("target", "source"):
        await bench.call("copy", {"source": "source", "target": target})
        for key in ("source", target):
            await bench.equal("get", {"key": key}, {"content": text(b"content"), "content_type": "text/plain"})
    await bench.refused("not_found", "copy", {"source": "absent", "target": "target"})
    require(await content_of(bench, "target") == b"content", "a refused copy changed the target")


async def _listed(bench: Bench, *, limit: int, tenant: str = ALPHA, **more: Any) -> list[str]:
    """Return keys and prefixes of all pages, in the order answered."""
    found: list[str] = []
    cursor: dict[str, Any] = {}
    for _ in range(100):
        page = await bench.call("list", {"limit": limit, **more, **cursor}, tenant=tenant)
        names = [one["key"] for one in page["objects"]] + page["prefixes"]
        require(len(names) <= limit, f"a page of {len(names)} entries, asked for {limit}")
        found += sorted(names)
        if "next_cursor" not in page:
            return found
        cursor = {"cursor": page["next_cursor"]}
    raise AssertionError("list goes on after 100 pages")


@case("STORE-09")
async def objects_are_listed_once_over_all_pages(bench: Bench) -> None:
    """``list`` MUST answer every object under the prefix exactly once over all pages, in the order of their keys."""
    keys = sorted(f"p/{number:02d}" for number in range(12))
    for key in [*keys, "q", "p"]:
        await put(bench, key)
    for limit in (1, 5, 12, 100):
        found = await _listed(bench, limit=limit, prefix="p/")
        require(found == keys, f"with pages of {limit} it listed {found}")


@case("STORE-10")
async def a_delimiter_folds_keys_into_prefixes(bench: Bench) -> None:
    """With a delimiter ``list`` MUST fold keys that go on after it into one prefix each, over all pages."""
    for key in ("a", "b/1", "b/2", "b/c/3", "d/4"):
        await put(bench, key)
    require(await _listed(bench, limit=100, delimiter="/") == ["a", "b/", "d/"], "the top is folded wrongly")
    require(await _listed(bench, limit=1, delimiter="/") == ["a", "b/", "d/"], "pages fold differently")
    inner = await _listed(bench, limit=100, delimiter="/", prefix="b/")
    require(inner == ["b/1", "b/2", "b/c/"], f"below b/ it listed {inner}")


@case("STORE-11")
async def tenants_share_no_objects(bench: Bench) -> None:
    """No tenant MUST ever read, list, replace, copy or remove an object of another, whatever key it names."""
    await put(bench, "k", b"alpha's")
    await bench.refused("not_found", "get", {"key": "k"}, tenant=BETA)
    await bench.refused("not_found", "copy", {"source": "k", "target": "mine"}, tenant=BETA)
    require(await _listed(bench, limit=10, tenant=BETA) == [], "another tenant lists the object")
    await bench.call("delete", {"key": "k"}, tenant=BETA)
    await bench.call("put", {"key": "k", "content": text(b"beta's")}, tenant=BETA)
    require(await content_of(bench, "k") == b"alpha's", "another tenant changed the object")


@case("STORE-12")
async def readers_see_one_whole_object(bench: Bench) -> None:
    """While an object is replaced readers MUST see the old one or the new one, whole, never a mixture."""
    versions = [bytes([letter]) * 200_000 for letter in b"abcdefgh"]
    await put(bench, "k", versions[0])

    async def write() -> None:
        for content in versions[1:]:
            await put(bench, "k", content)

    writing = asyncio.ensure_future(write())
    while not writing.done():
        content = await content_of(bench, "k")
        require(content in versions, f"a mixture of {sorted(set(content))} was read")
    await writing
    require(await content_of(bench, "k") == versions[-1], "the last writing is not what is there")


@case("STORE-13")
async def a_cancelled_write_leaves_the_object_whole(bench: Bench) -> None:
    """A cancelled ``put`` MUST leave the old object or the new one, and no other object behind."""
    whole = {"key": "k", "content": "YW55" * 100_000}
    _, took = [await bench.seconds("put", whole) for _ in range(2)]  # the first one opens the connection
    old, new = b"old" * 100_000, b"new" * 100_000
    await put(bench, "k", old)
    for number in reversed(range(10)):
        task = asyncio.ensure_future(put(bench, "k", new))
        await asyncio.sleep(number / 10 * took)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        require(await content_of(bench, "k") in {old, new}, "a cancelled write left something else")
    require(await _listed(bench, limit=10) == ["k"], "a cancelled write left another object")


@case("STORE-20", capability="conditional_writes")
async def an_absent_object_is_created_once(bench: Bench) -> None:
    """With ``if_none_match: '*'`` exactly one of concurrent writers MUST win where nothing was; the others are refused."""
    writers = (
        bench.call("put", {"key": "k", "content": text(b"%d" % number), "if_none_match": "*"}) for number in range(20)
    )
    answers = await asyncio.gather(*writers, return_exceptions=True)
    won = [number for number, answer in enumerate(answers) if isinstance(answer, dict)]
    codes = {getattr(answer, "code", answer) for answer in answers if not isinstance(answer, dict)}
    require(len(won) == 1, f"{len(won)} writers won")
    require(codes == {"failed_precondition"}, f"the others were answered {codes}")
    require(await content_of(bench, "k") == b"%d" % won[0], "what is there is not the winner's")


@case("STORE-21", capability="conditional_writes")
async def only_the_object_that_was_read_is_replaced(bench: Bench) -> None:
    """With ``if_match`` ``put`` MUST write over the object with that etag alone, else change nothing."""
    first = await put(bench, "k", b"first")
    second = await put(bench, "k", b"second", if_match=first["etag"])
    late = {"key": "k", "content": text(b"late"), "if_match": first["etag"]}
    await bench.refused("failed_precondition", "put", late)
    await bench.refused("failed_precondition", "put", {**late, "key": "absent"})
    await bench.equal("get", {"key": "k"}, {"content": text(b"second"), "etag": second["etag"]})
    await bench.equal("head", {"key": "absent"}, {"found": False})


@case("STORE-22", capability="conditional_writes")
async def a_read_can_ask_for_the_object_it_knows(bench: Bench) -> None:
    """``get`` with an ``if_match`` that is not the object's etag MUST be refused with ``failed_precondition``."""
    stored = await put(bench, "k", b"content")
    require(await content_of(bench, "k", if_match=stored["etag"]) == b"content", "the right etag read something else")
    await bench.refused("failed_precondition", "get", {"key": "k", "if_match": "no-such-etag"})


@case("STORE-30", capability="ranges")
async def a_part_of_an_object_is_read(bench: Bench) -> None:
    """``get`` with ``offset`` and ``length`` MUST answer that part; beyond the end less, at last nothing."""
    content = bytes(range(256)) * 4
    await put(bench, "k", content)
    for offset, length in ((0, 1), (1, 5), (1000, 24), (1000, 500), (1023, 1), (1024, 1), (5000, 10)):
        part = await content_of(bench, "k", offset=offset, length=length)
        require(part == content[offset : offset + length], f"{length} bytes from {offset}: got {len(part)} bytes")
    require(await content_of(bench, "k", offset=1020) == content[1020:], "an offset alone reads to the end")
    await bench.equal("get", {"key": "k", "offset": 10, "length": 1}, {"size": len(content)})


@case("STORE-40", capability="metadata")
async def objects_carry_text_by_name(bench: Bench) -> None:
    """``metadata`` MUST come back as it was given, by ``head`` and ``get``, be copied, and go with the next ``put``."""
    metadata = {"author": "Åsa", "note": "line\nbreak", "empty": ""}
    await put(bench, "k", metadata=metadata)
    await bench.equal("head", {"key": "k"}, {"metadata": metadata})
    await bench.call("copy", {"source": "k", "target": "copy"})
    await bench.equal("get", {"key": "copy"}, {"metadata": metadata})
    await put(bench, "k")
    await bench.equal("get", {"key": "k"}, {"metadata": {}})


@case("STORE-50", capability="streaming")
async def an_object_is_read_as_a_stream_of_parts(bench: Bench) -> None:
    """``read`` MUST answer the whole object in parts without gap or overlap, each of at most ``part_bytes``."""
    content = bytes(range(256)) * 40
    await put(bench, "k", content)
    parts = await bench.items("read", {"key": "k", "part_bytes": 1024})
    offset = 0
    for part in parts:
        require(part["offset"] == offset, f"a part begins at {part['offset']}, expected {offset}")
        size = len(base64.b64decode(part["content"]))
        require(0 < size <= 1024, f"a part of {size} bytes")  # noqa: PLR2004  (asked for above)
        offset += size
    require(b"".join(base64.b64decode(part["content"]) for part in parts) == content, "the parts are not the object")
    await bench.call("put", {"key": "empty", "content": ""})
    require(await bench.items("read", {"key": "empty"}) == [], "an empty object has parts")


@case("STORE-51", capability="streaming")
async def a_stream_of_nothing_is_not_found(bench: Bench) -> None:
    """``read`` of an absent key MUST be refused with ``not_found``."""
    await bench.refused_stream("not_found", "read", {"key": "absent"})


async def begun(bench: Bench, key: str = "large", **more: Any) -> str:
    """Begin an upload; return its handle."""
    upload: str = (await bench.call("create_multipart", {"key": key, **more}))["upload"]
    return upload


async def part_of(bench: Bench, upload: str, number: int, content: bytes, key: str = "large") -> dict[str, Any]:
    """Send a part; return it as complete_multipart wants it."""
    params = {"key": key, "upload": upload, "part": number, "content": text(content)}
    return {"part": number, "etag": (await bench.call("upload_part", params))["etag"]}


@case("STORE-60", capability="multipart")
async def parts_become_one_object(bench: Bench) -> None:
    """``complete_multipart`` MUST make one object of the parts in the order of their numbers, however they arrived."""
    upload = await begun(bench, content_type="text/plain", metadata={"a": "b"})
    contents = {number: bytes([64 + number]) * 6_000_000 for number in (3, 1, 2)}
    parts = [await part_of(bench, upload, number, content) for number, content in contents.items()]
    parts.sort(key=lambda part: part["part"])
    await bench.equal("head", {"key": "large"}, {"found": False})
    done = await bench.call("complete_multipart", {"key": "large", "upload": upload, "parts": parts})
    expected = b"".join(contents[number] for number in (1, 2, 3))
    require(done["size"] == len(expected), f"the object has {done['size']} bytes, sent {len(expected)}")
    head = {"found": True, "size": len(expected), "content_type": "text/plain", "etag": done["etag"]}
    await bench.equal("head", {"key": "large"}, head)
    for offset in (0, 5_999_999, 12_000_000, 17_999_990):
        part = await content_of(bench, "large", offset=offset, length=100)
        require(part == expected[offset : offset + 100], f"the object differs at {offset}")


@case("STORE-61", capability="multipart")
async def a_part_sent_again_replaces_itself(bench: Bench) -> None:
    """A part that is sent again MUST replace the first one, and ``list_parts`` list each number once, in order."""
    upload = await begun(bench)
    await part_of(bench, upload, 2, b"second")
    await part_of(bench, upload, 1, b"wrong")
    last = await part_of(bench, upload, 1, b"first")
    listed = (await bench.call("list_parts", {"key": "large", "upload": upload}))["parts"]
    require([part["part"] for part in listed] == [1, 2], f"listed {[part['part'] for part in listed]}")
    require(listed[0]["etag"] == last["etag"], "the etag listed is not that of the part sent last")
    await bench.call("abort_multipart", {"key": "large", "upload": upload})


@case("STORE-62", capability="multipart")
async def only_parts_that_arrived_are_completed(bench: Bench) -> None:
    """Completing with a part that did not arrive or has another etag MUST be refused with ``failed_precondition``."""
    upload = await begun(bench)
    part = await part_of(bench, upload, 1, b"content")
    for wrong in ({**part, "etag": "no-such-etag"}, {**part, "part": 2}):
        params = {"key": "large", "upload": upload, "parts": [wrong]}
        await bench.refused("failed_precondition", "complete_multipart", params)
    await bench.equal("head", {"key": "large"}, {"found": False})
    await bench.call("complete_multipart", {"key": "large", "upload": upload, "parts": [part]})
    require(await content_of(bench, "large") == b"content", "the object is not its only part")


@case("STORE-63", capability="multipart")
async def an_aborted_upload_is_gone(bench: Bench) -> None:
    """After ``abort_multipart`` the upload MUST be ``not_found``, the object absent; aborting again answers false."""
    upload = await begun(bench)
    part = await part_of(bench, upload, 1, b"content")
    aborted = {"key": "large", "upload": upload}
    await bench.equal("abort_multipart", aborted, {"aborted": True})
    await bench.equal("abort_multipart", aborted, {"aborted": False})
    await bench.refused("not_found", "upload_part", {**aborted, "part": 2, "content": ""})
    await bench.refused("not_found", "complete_multipart", {**aborted, "parts": [part]})
    await bench.equal("head", {"key": "large"}, {"found": False})


@case("STORE-64", capability="multipart")
async def an_upload_belongs_to_its_tenant_and_key(bench: Bench) -> None:
    """An upload MUST be ``not_found`` for another tenant, and for another key of the same one."""
    upload = await begun(bench)
    params = {"key": "large", "upload": upload, "part": 1, "content": ""}
    await bench.refused("not_found", "upload_part", params, tenant=BETA)
    await bench.refused("not_found", "list_parts", {"key": "large", "upload": upload}, tenant=BETA)
    await bench.refused("not_found", "upload_part", {**params, "key": "another"})
    await bench.equal("abort_multipart", {"key": "large", "upload": upload}, {"aborted": True})


@case("STORE-70", capability="signed_urls")
async def a_signed_url_says_when_it_ends(bench: Bench) -> None:
    """``signed_url`` MUST answer an absolute URL that no one can guess, and the time it ends at."""
    await put(bench, "k")
    params = {"key": "k", "method": "GET", "expires_seconds": 60}
    first, second = [await bench.call("signed_url", params) for _ in range(2)]
    for answer in (first, second):
        require(answer["url"].startswith(("http://", "https://")), f"the URL is {answer['url'][:40]!r}")
        require(len(answer["url"]) > 60, "the URL is too short to carry a signature")  # noqa: PLR2004  (256 bits)
    other = await bench.call("signed_url", {**params, "key": "other"})
    require(other["url"] != first["url"], "two keys have the same URL")


@case("STORE-80", capability="lifecycle")
async def lifecycle_rules_are_replaced_as_a_whole(bench: Bench) -> None:
    """``put_lifecycle`` MUST replace all rules, and ``get_lifecycle`` answer them; without any there is none."""
    require((await bench.call("get_lifecycle"))["rules"] == [], "there are rules nobody made")
    rules = [
        {"id": "old", "prefix": "tmp/", "expire_after_days": 7},
        {"id": "all", "prefix": "", "expire_after_days": 365},
    ]
    await bench.call("put_lifecycle", {"rules": rules})
    await bench.call("put_lifecycle", {"rules": rules[:1]})
    found = (await bench.call("get_lifecycle"))["rules"]
    require(found == rules[:1], f"answered {found}")
    await bench.call("put_lifecycle", {"rules": []})
    require((await bench.call("get_lifecycle"))["rules"] == [], "rules stay after all were removed")


@case("STORE-81", capability="lifecycle")
async def a_rule_removes_nothing_before_its_time(bench: Bench) -> None:
    """A lifecycle rule MUST NOT remove an object that is younger than it says."""
    await put(bench, "tmp/young")
    await bench.call("put_lifecycle", {"rules": [{"id": "tmp", "prefix": "tmp/", "expire_after_days": 1}]})
    await asyncio.sleep(0.05)
    await bench.equal("head", {"key": "tmp/young"}, {"found": True})
