from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config

from erp.control_plane import ControlPlane, schema
from erp.control_plane.audit_proofs import AuditProofs
from erp.control_plane.merkle import check_inclusion, leaf_hash
from erp.runtime.ports import Completion

pytestmark = pytest.mark.anyio


def migrate(connection: sa.Connection, step: str, revision: str) -> None:
    config = Config()
    config.set_main_option("script_location", "erp.control_plane:migrations")
    config.attributes["connection"] = connection
    getattr(command, step)(config, revision)


async def test_records_of_an_earlier_schema_get_their_tree_and_can_be_proved_and_searched(
    control: ControlPlane, make: Any
) -> None:
    for number in range(300):
        control.journal.note(make.audit(request_id=f"req_{number}"))
    await control.journal.complete(Completion(audit=make.audit(tenant="globex")))
    proofs = AuditProofs(control.database)
    roots = [await proofs.tree("acme"), await proofs.tree("globex")]
    await control.database.transact(lambda connection: migrate(connection, "downgrade", "0006"))
    await schema.bring_up_to_date(control.database)
    assert await control.database.run(schema.version) == schema.HEAD
    assert [(tree.size, tree.root()) for tree in (await proofs.tree("acme"), await proofs.tree("globex"))] == [
        (tree.size, tree.root()) for tree in roots
    ]
    proof = await proofs.inclusion("acme", 7, 300)
    (link,) = await control.audit.chain("acme", after=6, limit=1)
    check_inclusion(leaf_hash(link.hash), 6, 300, proof, roots[0].root())
    (found,), _ = await control.audit.search("acme", request_id="req_6")
    assert found.seq == 7


async def test_an_empty_database_goes_back_and_forth(control_plane_url: str | None, tmp_path: Path) -> None:
    control = await ControlPlane.open(tmp_path, control_plane_url, pepper=b"p")
    await control.database.transact(lambda connection: migrate(connection, "downgrade", "0006"))
    await schema.bring_up_to_date(control.database)
    await control.close()
