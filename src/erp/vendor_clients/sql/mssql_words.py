"""The words by which Microsoft's driver for Python reaches a SQL Server (mssql-python, "Connection string keywords")."""

from __future__ import annotations

TLS = {"verify": ("Mandatory", "no"), "encrypt": ("Mandatory", "yes"), "disable": ("Optional", "yes")}
"""How a connection is encrypted -> whether it must be, and whether any certificate will do."""


def connection_words(*, address: str, port: int, database: str, user: str, password: str, tls: str) -> dict[str, str]:
    """Return the words of the connection string, which the driver escapes; ``tls`` is a key of ``TLS``."""
    encrypt, trust = TLS[tls]
    return {
        "server": f"tcp:{address},{port}",
        "database": database,
        "uid": user,
        "pwd": password,
        "encrypt": encrypt,
        "trustservercertificate": trust,
    }
