"""What is asked of a store that has not declared it."""

from __future__ import annotations

from typing import Any

from erp.runtime.conformance.bench import Bench
from erp.runtime.conformance.case import case

BEFORE, AFTER = "YmVmb3Jl", "YWZ0ZXI="


async def _refused_put(bench: Bench, **asked: Any) -> None:
    await bench.call("put", {"key": "k", "content": BEFORE})
    await bench.refused("unsupported", "put", {"key": "k", "content": AFTER, **asked})
    await bench.equal("get", {"key": "k"}, {"content": BEFORE})


@case("STORE-23", without="conditional_writes")
async def a_condition_that_cannot_be_kept_is_refused(bench: Bench) -> None:
    """Without ``conditional_writes`` a ``put`` with a condition MUST be refused with ``unsupported`` and change nothing."""
    await _refused_put(bench, if_none_match="*")
    await _refused_put(bench, if_match=(await bench.call("head", {"key": "k"}))["etag"])


@case("STORE-31", without="ranges")
async def a_part_that_cannot_be_read_is_refused(bench: Bench) -> None:
    """Without ``ranges`` a ``get`` of a part MUST be refused with ``unsupported``, never answered with the whole."""
    await bench.call("put", {"key": "k", "content": BEFORE})
    for part in ({"offset": 1}, {"length": 2}):
        await bench.refused("unsupported", "get", {"key": "k", **part})


@case("STORE-41", without="metadata")
async def metadata_that_cannot_be_kept_is_refused(bench: Bench) -> None:
    """Without ``metadata`` a ``put`` with text MUST be refused with ``unsupported`` and change nothing."""
    await _refused_put(bench, metadata={"colour": "red"})
