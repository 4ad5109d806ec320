"""Values that must not be seen, by path and version."""

from __future__ import annotations

import asyncio
import datetime
from typing import Any

from erp.runtime.conformance.bench import Bench, require
from erp.runtime.conformance.case import case
from erp.runtime.conformance.cases.calls import recorded_texts
from erp.runtime.conformance.host import ALPHA, BETA

VALUES = ("s", " spaces kept ", "ünïcödé \u0000 \U0001f511", '{"json": "text"}', "line\nbreak\r\n", "0" * 65536)


async def _value(bench: Bench, path: str, version: int | None = None) -> Any:
    params: dict[str, Any] = {"path": path} if version is None else {"path": path, "version": version}
    return (await bench.call("get", params))["value"]


@case("SECRET-01")
async def a_secret_reads_back_as_it_was_stored(bench: Bench) -> None:
    """``get`` MUST answer exactly the text last stored by ``put``, of up to 65,536 characters."""
    path = bench.unique("exact")
    for value in VALUES:
        await bench.call("put", {"path": path, "value": value})
        require(await _value(bench, path) == value, f"a value of {len(value)} characters came back changed")


@case("SECRET-02")
async def every_put_is_a_new_version(bench: Bench) -> None:
    """``put`` MUST answer version numbers that grow by one from 1, and a reference that names path and version."""
    path = bench.unique("counted")
    for number in (1, 2, 3):
        stored = await bench.equal("put", {"path": path, "value": f"v{number}"}, {"version": number})
        reference = stored["reference"]
        require(reference.startswith("secret://") and reference.endswith(f"{path}#{number}"), f"it is {reference!r}")


@case("SECRET-03")
async def what_is_not_there_is_not_found(bench: Bench) -> None:
    """``get`` of a path or version that is not there MUST be refused with ``not_found``."""
    path = bench.unique("known")
    await bench.call("put", {"path": path, "value": "v"})
    await bench.refused("not_found", "get", {"path": bench.unique("unknown")})
    await bench.refused("not_found", "get", {"path": path, "version": 2})


@case("SECRET-04")
async def delete_destroys_every_version(bench: Bench) -> None:
    """``delete`` MUST destroy all versions of the path, no other path, and answer whether there was one."""
    path = bench.unique("deleted")
    for name in (path, f"{path}x", f"{path}/x"):
        await bench.call("put", {"path": name, "value": "v"})
    await bench.equal("delete", {"path": path}, {"deleted": True})
    await bench.refused("not_found", "get", {"path": path})
    await bench.refused("not_found", "get", {"path": path, "version": 1})
    await bench.equal("delete", {"path": path}, {"deleted": False})
    for name in (f"{path}x", f"{path}/x"):
        require(await _value(bench, name) == "v", f"deleting {path} took {name} with it")


@case("SECRET-05")
async def paths_are_listed_in_pages(bench: Bench) -> None:
    """``list`` MUST answer every path under the prefix once, in order, over as many pages as it takes."""
    base = bench.unique("listed")
    paths = sorted(f"{base}/{name}" for name in ("a", "b", "b.c", "b/c", "d", "e-1", "e_1"))
    for path in reversed(paths):
        await bench.call("put", {"path": path, "value": "v"})
    found: list[str] = []
    cursor: dict[str, Any] = {}
    for _ in range(len(paths) + 1):
        page = await bench.call("list", {"prefix": f"{base}/", "limit": 2, **cursor})
        require(len(page["paths"]) <= 2, f"a page of {len(page['paths'])} paths")  # noqa: PLR2004  (the limit above)
        found += page["paths"]
        if "next_cursor" not in page:
            break
        cursor = {"cursor": page["next_cursor"]}
    require(found == paths, f"listed {found}, stored {paths}")


@case("SECRET-06")
async def tenants_share_no_secrets(bench: Bench) -> None:
    """No tenant MUST ever read, list, replace or destroy a secret of another, whatever path it names."""
    path = bench.unique("apart")
    await bench.call("put", {"path": path, "value": "alpha's"}, tenant=ALPHA)
    await bench.refused("not_found", "get", {"path": path}, tenant=BETA)
    listed = await bench.call("list", {"prefix": path}, tenant=BETA)
    require(listed["paths"] == [], f"another tenant lists {listed['paths']}")
    await bench.call("put", {"path": path, "value": "beta's"}, tenant=BETA)
    await bench.call("delete", {"path": path}, tenant=BETA)
    require(await _value(bench, path) == "alpha's", "another tenant changed the secret")


@case("SECRET-07")
async def concurrent_puts_are_all_versions(bench: Bench) -> None:
    """Of concurrent ``put`` to one path each MUST become a version of its own."""
    path = bench.unique("raced")
    values = [f"value-{number}" for number in range(20)]
    stored = await asyncio.gather(*(bench.call("put", {"path": path, "value": value}) for value in values))
    numbers = sorted(answer["version"] for answer in stored)
    require(numbers == list(range(1, len(values) + 1)), f"versions {numbers}")


@case("SECRET-08")
async def only_get_answers_a_value(bench: Bench) -> None:
    """No answer but that of ``get``, no event, no problem and no log line MUST show a value."""
    path, value = bench.unique("silent"), f"canary-{bench.unique('value')}"
    await bench.call("put", {"path": path, "value": value})
    await bench.call("list", {"prefix": path})
    for name in ("rotate", "list_versions"):
        if name in {one.name for one in bench.host.catalog.actions_of(bench.manifest)}:
            await bench.call(name, {"path": path, **({"value": f"{value}-2"} if name == "rotate" else {})})
    await bench.call("delete", {"path": path})
    texts = [text for one in bench.recording.calls for text in recorded_texts(one) if one.action.name != "get"]
    texts += [str(event.data) for one in bench.recording.calls for event in one.emitted] + bench.recording.logs
    require(not [text for text in texts if value in text], "a value was seen")


@case("SECRET-20", capability="versions")
async def earlier_versions_stay_readable(bench: Bench) -> None:
    """Every earlier version MUST stay readable by its number."""
    path = bench.unique("versions")
    for number in (1, 2, 3):
        await bench.call("put", {"path": path, "value": f"v{number}"})
    for number in (3, 1, 2):
        require(await _value(bench, path, number) == f"v{number}", f"version {number} is another")


@case("SECRET-21", capability="versions")
async def versions_are_listed_with_their_state(bench: Bench) -> None:
    """``list_versions`` MUST list all versions; exactly the newest is ``current``. Of an unknown path: ``not_found``."""
    path = bench.unique("states")
    for number in (1, 2, 3):
        await bench.call("put", {"path": path, "value": f"v{number}"})
    versions = (await bench.call("list_versions", {"path": path}))["versions"]
    states = {one["version"]: one["state"] for one in versions}
    require(states == {1: "previous", 2: "previous", 3: "current"}, f"listed {states}")
    await bench.refused("not_found", "list_versions", {"path": bench.unique("unknown")})


@case("SECRET-30", capability="rotation")
async def rotating_keeps_the_version_before(bench: Bench) -> None:
    """``rotate`` MUST make a new current version and leave the one before readable."""
    path = bench.unique("rotated")
    await bench.call("put", {"path": path, "value": "old"})
    await bench.equal("rotate", {"path": path, "value": "new"}, {"version": 2})
    require(await _value(bench, path) == "new", "the current value is not the new one")
    require(await _value(bench, path, 1) == "old", "the version before is not readable")


@case("SECRET-31", capability="rotation")
async def only_what_exists_is_rotated(bench: Bench) -> None:
    """``rotate`` of a path that is not there MUST be refused with ``not_found`` and store nothing."""
    path = bench.unique("absent")
    await bench.refused("not_found", "rotate", {"path": path, "value": "v"})
    await bench.refused("not_found", "get", {"path": path})


@case("SECRET-32", capability="rotation")
async def rotating_is_announced(bench: Bench) -> None:
    """``rotate`` MUST be announced by one event ``rotated`` with path and version."""
    path = bench.unique("announced")
    await bench.call("put", {"path": path, "value": "old"})
    await bench.call("rotate", {"path": path, "value": "new"})
    emitted = bench.emitted()
    require(emitted == [("rotated", {"path": path, "version": 2})], f"announced {emitted}")


@case("SECRET-40", capability="overlap")
async def the_versions_before_a_rotation_are_to_be_destroyed(bench: Bench) -> None:
    """With ``overlap_seconds`` the version before MUST stay readable and be listed with when it is destroyed, no earlier."""
    path = bench.unique("overlapping")
    await bench.call("put", {"path": path, "value": "old"})
    began = datetime.datetime.now(datetime.UTC)
    await bench.call("rotate", {"path": path, "value": "new", "overlap_seconds": 3600})
    require(await _value(bench, path, 1) == "old", "the version before is not readable")
    old, new = (await bench.call("list_versions", {"path": path}))["versions"]
    due = datetime.datetime.fromisoformat(old.get("destroyed_after", "0001-01-01T00:00:00Z"))
    require(due >= began + datetime.timedelta(seconds=3600), f"the version before is destroyed after {due}")
    require("destroyed_after" not in new, "the new version is to be destroyed")


@case("SECRET-41", without="overlap")
async def an_overlap_that_is_not_kept_is_refused(bench: Bench) -> None:
    """Without the capability ``rotate`` MUST refuse ``overlap_seconds`` with ``unsupported`` and store nothing."""
    if "rotate" not in {one.name for one in bench.host.catalog.actions_of(bench.manifest)}:
        return
    path = bench.unique("unchanged")
    await bench.call("put", {"path": path, "value": "old"})
    await bench.refused("unsupported", "rotate", {"path": path, "value": "new", "overlap_seconds": 60})
    require(await _value(bench, path) == "old", "a refused rotation was stored")


@case("SECRET-42", capability="overlap")
async def a_destroyed_version_is_not_readable_and_the_current_one_stays(bench: Bench) -> None:
    """``destroy_version`` MUST make that version unreadable and no other; the current one MUST stay and be answered with false."""
    path = bench.unique("destroyed")
    await bench.call("put", {"path": path, "value": "one"})
    named: list[str] = []
    for value in ("two", "three"):
        named.append((await bench.call("newest", {"path": path}))["version_id"])
        await bench.call("rotate", {"path": path, "value": value, "overlap_seconds": 3600})
    current = (await bench.call("newest", {"path": path}))["version_id"]
    await bench.equal("destroy_version", {"path": path, "version_id": current}, {"destroyed": False})
    for _ in range(2):
        await bench.equal("destroy_version", {"path": path, "version_id": named[0]}, {"destroyed": True})
        await bench.refused("not_found", "get", {"path": path, "version": 1})
        await bench.refused("not_found", "get", {"path": path, "version_id": named[0]})
        kept = {number: await _value(bench, path, number) for number in (2, 3)}
        require(kept == {2: "two", 3: "three"}, f"kept are {kept}")
    versions = (await bench.call("list_versions", {"path": path}))["versions"]
    states = {one["version"]: one["state"] for one in versions}
    require(states.pop(1, "destroyed") == "destroyed", "the destroyed version is listed as if it were there")
    require(states == {2: "previous", 3: "current"}, f"listed {states}")


@case("SECRET-50", capability="following")
async def the_newest_version_can_be_named(bench: Bench) -> None:
    """``newest`` MUST name another version after every change, the same one until then, and ``get`` MUST read it by that."""
    path = bench.unique("followed")
    named: list[str] = []
    for value in ("first", "second"):
        await bench.call("put", {"path": path, "value": value})
        named += [(await bench.call("newest", {"path": path}))["version_id"] for _ in range(2)]
    require(named[0] == named[1] != named[2] == named[3], f"named {named}")
    for name, value in ((named[0], "first"), (named[2], "second")):
        found = (await bench.call("get", {"path": path, "version_id": name}))["value"]
        require(found == value, f"the version named {name!r} is another")
    await bench.refused("not_found", "newest", {"path": bench.unique("unknown")})
