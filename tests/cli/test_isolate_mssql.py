"""``erp db isolate --dialect mssql``: what is sent to a SQL Server, in one transaction, and how its address is written."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from tests.support.mssql_catalogue import MssqlCatalogue
from typer.testing import CliRunner, Result

from erp.cli import app
from erp.cli.db.mssql_server import held, words_of
from erp.cli.db.servers import URL


class Recording(MssqlCatalogue):
    """A server that also takes statements, up to one that it refuses."""

    def __init__(self, refused: str = "", **answers: Any) -> None:
        super().__init__(**answers)
        self._refused = refused
        self.done: list[str] = []

    def execute(self, sql: str) -> MssqlCatalogue:
        if sql == self._refused:
            raise RuntimeError("[Microsoft] no\nmore")
        if sql in self._answers:
            return super().execute(sql)
        self.done.append(sql)
        return self

    def commit(self) -> None:
        self.done.append("COMMIT")

    def rollback(self) -> None:
        self.done.append("ROLLBACK")


def isolate(*words: str) -> Result:
    return CliRunner().invoke(app, ["db", "isolate", "--dialect", "mssql", *words])


def test_statements_are_printed_as_batches() -> None:
    printed = isolate("orders", "--role", "erp_app")

    assert printed.exit_code == 0
    lines = printed.output.splitlines()
    assert len(lines) == 14
    assert lines[1::2] == ["GO"] * 7
    assert lines[-2] == "DENY ALTER, REFERENCES, TAKE OWNERSHIP ON [dbo].[orders] TO [erp_app]"


def test_statements_and_the_look_are_one_transaction() -> None:
    server = Recording()

    assert held(server, ["A", "B"], "erp_app", check=True) == []
    assert server.done == ["A", "B", "COMMIT"]


def test_what_is_found_is_told_and_stays() -> None:
    server = Recording(parallel=[])

    (problem,) = held(server, ["A"], "erp_app", check=True)
    assert "MAXDOP" in problem
    assert server.done == ["A", "COMMIT"]


def test_what_fails_undoes_everything() -> None:
    server = Recording(refused="B")

    assert held(server, ["A", "B", "C"], "erp_app", check=True) == ["[Microsoft] no; nothing was changed"]
    assert server.done == ["A", "ROLLBACK"]


def test_an_address_becomes_the_words_of_the_driver() -> None:
    assert words_of("mssql://sa:p%40ss%3Bword@db.example.com:1444/shop%20a?tls=encrypt") == {
        "server": "tcp:db.example.com,1444",
        "database": "shop a",
        "uid": "sa",
        "pwd": "p@ss;word",
        "encrypt": "Mandatory",
        "trustservercertificate": "yes",
    }
    assert words_of("mssql://sa:x@h/d")["trustservercertificate"] == "no"


@pytest.mark.parametrize("url", ["", "postgresql://a:b@h/d", "mssql://h/d", "mssql://a:b@h", "mssql://a:b@h/d?tls=no"])
def test_another_address_is_refused_with_one_that_works(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv(URL, url)
    refused = isolate("orders", "--role", "erp_app", "--apply")

    assert refused.exit_code == 1
    assert "mssql://owner:password@host/database" in refused.output


@pytest.mark.slow
def test_a_server_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(URL, "mssql://sa:secret-word@127.0.0.1:1/shop")
    refused = isolate("--role", "erp_app", "--check")

    assert refused.exit_code == 1
    assert f"the server of {URL} cannot be reached: " in refused.output
    assert "secret-word" not in refused.output


def test_a_missing_driver_is_named_with_what_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(URL, "mssql://sa:x@127.0.0.1:1/shop")
    monkeypatch.setitem(sys.modules, "mssql_python", None)
    refused = isolate("--role", "erp_app", "--check")

    assert refused.exit_code == 2
    assert refused.output.endswith("pip install 'erp-provider-layer[mssql]'\n")


def test_a_driver_without_its_libraries_says_which_packages_have_them(monkeypatch: pytest.MonkeyPatch) -> None:
    def connect(**_: Any) -> None:
        raise OSError("libltdl.so.7: cannot open shared object file")

    monkeypatch.setenv(URL, "mssql://sa:x@127.0.0.1:1/shop")
    monkeypatch.setattr("mssql_python.connect", connect)
    refused = isolate("--role", "erp_app", "--check")

    assert refused.exit_code == 1
    assert refused.output.endswith("Debian: apt-get install libltdl7 libgssapi-krb5-2\n")
