"""A provider without the layer has its folders, and is told which port it misses."""

from __future__ import annotations

from pathlib import Path

import pytest

from erp.runtime.standalone import place


def test_folders_and_tenant_are_the_ones_given(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    alone, beside = place(tmp_path), place(tmp_path, shared_dir=shared, tenant="acme")

    assert (alone.tenant, alone.data_dir, alone.shared_dir) == ("standalone", tmp_path, tmp_path)
    assert (beside.tenant, beside.data_dir, beside.shared_dir) == ("acme", tmp_path, shared)


@pytest.mark.parametrize(("port", "asked"), [("vault", "get"), ("links", "url"), ("identity", "issue")])
def test_a_port_that_is_not_there_says_which_one_it_is(tmp_path: Path, port: str, asked: str) -> None:
    with pytest.raises(RuntimeError, match=rf"^the provider needs {port}\.{asked}, which only the layer has"):
        getattr(getattr(place(tmp_path), port), asked)
