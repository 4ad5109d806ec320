"""Databases whose SQL is not what their manifest says."""

from __future__ import annotations

from typing import Any

from tests.conformance.saboteur import breaks

from erp.contracts.models import db
from erp.runtime.catalog import ProviderCatalog
from erp.runtime.spi import ErrorCode, ProviderError

REF = "db/sqlite"
SQL = ProviderCatalog.load().provider("db", "sqlite").sql


@breaks("DB-80", ref=REF)
class RoundsDecimals:
    async def query(self, request: Any, context: Any) -> Any:
        result = await super().query(request, context)  # type: ignore[misc]
        result.rows = [[round(float(v), 4) if v == "12345678901234.5678" else v for v in row] for row in result.rows]
        return result


@breaks(
    "DB-81",
    ref=REF,
    manifest={"sql": {**SQL, "upsert": "insert into {table} (id, name) values (?, ?) on conflict do nothing"}},
)
class KeepsWhatIsThere:
    pass


@breaks("DB-82", ref=REF, manifest={"sql": {**SQL, "returning": ["insert", "update"]}})
class ReturnsMoreThanItSays:
    pass


@breaks("DB-83", ref=REF, manifest={"sql": {**SQL, "json": "json_extract({column}, '$.b')"}})
class NamesTheWrongMember:
    pass


@breaks("DB-84", ref=REF, manifest={"sql": {**SQL, "isolation_levels": ["serializable", "snapshot"]}})
class AcceptsALevelItDoesNotList:
    pass


@breaks("DB-85", ref=REF)
class CommitsWithEachTable:
    async def execute(self, request: Any, context: Any) -> Any:
        if request.sql.startswith("create table") and isinstance(request.transaction, str):
            done = db.CommitRequest(transaction=request.transaction)
            await super().commit(done, context)  # type: ignore[misc]
            return await super().execute(db.ExecuteRequest(sql=request.sql), context)  # type: ignore[misc]
        return await super().execute(request, context)  # type: ignore[misc]

    async def rollback(self, request: Any, context: Any) -> Any:
        try:
            return await super().rollback(request, context)  # type: ignore[misc]
        except ProviderError as error:
            if error.code is ErrorCode.NOT_FOUND and "committed" in str(error):
                return db.RollbackResult(done=True)
            raise


@breaks("DB-86", ref=REF, manifest={"sql": {**SQL, "limits": {**SQL["limits"], "name_length": 40}}})
class TakesLongerNamesThanItSays:
    pass


@breaks("DB-87", ref=REF)
class TakesFewParameters:
    async def execute(self, request: Any, context: Any) -> Any:
        if request.sql.count("?") > 999:
            raise ProviderError(ErrorCode.INVALID_ARGUMENT, "There are too many parameters.")
        return await super().execute(request, context)  # type: ignore[misc]


@breaks("DB-88", ref=REF, manifest={"sql": {**SQL, "row_level_security": "none"}})
class HidesThatTablesAreShared:
    pass
