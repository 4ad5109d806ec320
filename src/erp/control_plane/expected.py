"""Changes that were meant for another state than the present one are refused."""

from __future__ import annotations

from erp.contracts.models.errors import ErrorCode
from erp.errors import ProviderError

ABSENT = ""
"""The revision of what must not exist yet."""


def expect(what: str, wanted: str | None, present: str | None) -> None:
    """Pass when ``present``, the revision of what is stored (None: nothing is), is the one ``wanted``.

    Args:
        what: how the answer names it.
        wanted: the revision the caller has seen; ``ABSENT``: none; None: any will do.
        present: read in the transaction of the change.

    Raises:
        ProviderError: ``conflict``.
    """
    if wanted is None or wanted == (present or ABSENT):
        return
    happened = "was removed" if present is None else "was created" if wanted == ABSENT else "was changed"
    message = f"The {what} {happened} meanwhile. Read it again and repeat your change."
    raise ProviderError(ErrorCode.CONFLICT, message)
