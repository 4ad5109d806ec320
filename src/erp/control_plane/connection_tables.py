"""The tables about limits of connections that processes share."""

from __future__ import annotations

import sqlalchemy as sa

from erp.control_plane.tables import _number, _owner, _text, metadata

connection_rates = sa.Table(
    "connection_rates",
    metadata,
    _owner(),
    _text("name", key=True),
    _number("tokens"),
    _number("stamp"),
    comment="token buckets of connections; tokens in millionths",
)

connection_places = sa.Table(
    "connection_places",
    metadata,
    _owner(),
    _text("name", key=True),
    _text("owner", key=True),
    _number("places"),
    _number("wanted"),
    _number("since"),
    _number("expires_at"),
    comment="how many calls a process may have on a connection at a time, until it expires",
)
