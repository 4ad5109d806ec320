"""Proof that a tenant's audit records are whole: nothing changed, removed, reordered, put in between or cut off."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from erp.control_plane import ControlPlane
from erp.control_plane.audit import ChainHead, ChainLink
from erp.control_plane.batch import searched
from erp.control_plane.chain import GENESIS, BrokenChainError, ChainCheck
from erp.control_plane.merkle import CompactRange
from erp.runtime.ports import AuditEntry
from erp.security.checkpoints import origin_of
from erp.security.signed_note import Checkpoint, InvalidNoteError, PublicKey, opened

PAGE = 2000
WHOLE = "every record is what was written, and follows from the one before it"

_decode = msgspec.json.Decoder(AuditEntry).decode


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What checking a log found. ``broken_at``: number of the first record that does not fit."""

    is_whole: bool
    checked: int
    broken_at: int | None = None
    reason: str = WHOLE
    last_hash: bytes = GENESIS
    root: bytes = CompactRange().root()
    """Of the tree over what was checked."""
    deleted: int = 0
    """How many of the records were lawfully deleted."""
    checkpoints: int = 0
    """How many signed checkpoints agree."""


class Verification:
    """One check of one tenant's log, from its first record on."""

    def __init__(self, control: ControlPlane, tenant: str, keys: Sequence[PublicKey], notes: Sequence[str]) -> None:
        """``notes``: checkpoints kept elsewhere, which count like those of the database."""
        self._control = control
        self._tenant = tenant
        self._keys = keys
        self._notes = notes
        self._chain = ChainCheck()
        self._agreed = 0

    async def run(self, on_progress: Callable[[int], None] = lambda _: None) -> Verdict:
        """Check every record, the columns by which it is found, the kept tree, the head and the checkpoints."""
        try:
            await self._check(on_progress)
        except BrokenChainError as error:
            return self._verdict(error)
        return self._verdict()

    def _verdict(self, error: BrokenChainError | None = None) -> Verdict:
        return Verdict(
            is_whole=error is None,
            checked=self._chain.seq,
            broken_at=None if error is None else error.seq,
            reason=WHOLE if error is None else error.reason,
            last_hash=self._chain.hash,
            root=self._chain.tree.root(),
            deleted=self._chain.deleted,
            checkpoints=self._agreed,
        )

    async def _check(self, on_progress: Callable[[int], None]) -> None:
        # What comes while it runs is left to the next check: first the checkpoints are read, then the head.
        waiting = await self._checkpoints()
        head = await self._control.audit.head(self._tenant) or ChainHead(seq=0, hash=GENESIS)
        while page := await self._page(head):
            filled = []
            for link in page:
                filled += self._take(link)
                while waiting and waiting[-1].size == self._chain.seq:
                    self._compare(waiting.pop())
            await self._check_nodes(filled)
            on_progress(len(page))
        await self._check_end(head)
        if waiting:
            reason = f"a signed checkpoint covers {waiting[0].size} records, there are {self._chain.seq}"
            raise BrokenChainError(self._chain.seq + 1, reason)

    async def _page(self, head: ChainHead) -> list[ChainLink]:
        limit = min(PAGE, head.seq - self._chain.seq)
        return await self._control.audit.chain(self._tenant, after=self._chain.seq, limit=limit) if limit > 0 else []

    def _take(self, link: ChainLink) -> list[tuple[int, int, bytes]]:
        filled = self._chain.take(link.seq, link.record, link.prev_hash, link.hash)
        if link.record and searched(_decode(link.record)) != link.columns:
            raise BrokenChainError(link.seq, "a column by which the record is found was changed")
        return filled

    async def _check_nodes(self, filled: list[tuple[int, int, bytes]]) -> None:
        places = [(level, index) for level, index, _ in filled]
        kept = await self._control.audit.kept_nodes(self._tenant, places) if places else {}
        for level, index, digest in filled:
            if kept.get((level, index)) != digest:
                raise BrokenChainError((index << level) + 1, "a kept hash of the tree was changed")

    async def _check_end(self, head: ChainHead) -> None:
        chain = self._chain
        if (chain.seq, chain.hash) != (head.seq, head.hash):
            reason = f"the chain ends at {chain.seq}, but {head.seq} records were written"
            raise BrokenChainError(chain.seq + 1, reason)
        if chain.tree.packed() != head.subtrees:
            raise BrokenChainError(chain.seq + 1, "the tree at the head of the chain was changed")
        chain.check_deletions()
        beyond = await self._control.audit.chain(self._tenant, after=head.seq, limit=1)
        now = await self._control.audit.head(self._tenant)
        if beyond and (now is None or now.seq < beyond[0].seq):
            raise BrokenChainError(beyond[0].seq, "the head of the chain is missing or behind its records")

    async def _checkpoints(self) -> list[Checkpoint]:
        """Return the checkpoints that the log must agree with, the shortest last."""
        elsewhere = [self._opened(note) for note in self._notes]
        found = [one for one in elsewhere if one.origin == origin_of(self._tenant)]
        size = 0
        while page := await self._control.checkpoints.after(self._tenant, size, PAGE):
            for stored in page:
                found.append(self._opened(stored.note))
                if (found[-1].origin, found[-1].size) != (origin_of(self._tenant), stored.size):
                    raise BrokenChainError(1, f"the checkpoint over {stored.size} records is not that of this log")
            size = page[-1].size
        return sorted((one for one in found if one.size), key=lambda one: -one.size)

    def _opened(self, note: str) -> Checkpoint:
        try:
            return opened(note, self._keys)
        except InvalidNoteError as error:
            raise BrokenChainError(1, f"a checkpoint is not what was signed: {error}") from error

    def _compare(self, checkpoint: Checkpoint) -> None:
        if self._chain.tree.root() != checkpoint.root:
            reason = f"the first {checkpoint.size} records are not those of the signed checkpoint"
            raise BrokenChainError(checkpoint.size, reason)
        self._agreed += 1
