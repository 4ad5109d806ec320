"""Pages of objects: chosen by the names of their files, so that only what is shown is opened."""

from __future__ import annotations

import datetime
import heapq
from collections.abc import Iterator

from erp.contracts.models.storage import ListRequest, ListResult, Object
from erp.providers.storage.filesystem.objects import Head, ObjectFolder
from erp.runtime.spi import UNSET


def page(objects: ObjectFolder, request: ListRequest) -> ListResult:
    """Return one page by name: objects, and the prefixes that others are folded into."""
    names = heapq.nsmallest(request.limit + 1, set(_wanted(objects, request)))
    result = ListResult(objects=[], prefixes=[])
    for name, is_prefix in names[: request.limit]:
        if is_prefix:
            result.prefixes.append(name)
        elif (head := objects.head(name)) is not None:  # else it was removed meanwhile
            result.objects.append(_shown(head))
    if len(names) > request.limit:
        result.next_cursor = names[request.limit - 1][0]
    return result


def _wanted(objects: ObjectFolder, request: ListRequest) -> Iterator[tuple[str, bool]]:
    """Yield names behind the cursor, and whether each is a prefix that objects are folded into."""
    after = "" if request.cursor is UNSET else request.cursor
    for key, _ in objects.entries():
        if not key.startswith(request.prefix):
            continue
        name = key if request.delimiter is UNSET else _folded(key, request.prefix)
        if name > after:
            yield name, name != key


def _folded(key: str, prefix: str) -> str:
    """Return the prefix a key is folded into; itself when there is no slash behind ``prefix``."""
    inside, found, _ = key[len(prefix) :].partition("/")
    return f"{prefix}{inside}/" if found else key


def _shown(head: Head) -> Object:
    return Object(key=head.key, size=head.size, etag=head.etag, modified_at=moment(head))


def moment(head: Head) -> datetime.datetime:
    """Return when the object was written."""
    return datetime.datetime.fromtimestamp(head.modified_at, datetime.UTC)
