"""Databases that break one rule each."""

from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path
from typing import Any

from tests.conformance.saboteur import breaks

from erp.contracts.models import db
from erp.runtime.spi import UNSET, ErrorCode, ProviderError

REF = "db/sqlite"


def _run(**words: Any) -> Any:
    return db.ExecuteRequest(**words)


@breaks("DB-01", ref=REF)
class EmptyIsNull:
    async def execute(self, request: Any, context: Any) -> Any:
        if request.parameters is not UNSET and "" in request.parameters:
            request.parameters = [None if value == "" else value for value in request.parameters]
        return await super().execute(request, context)  # type: ignore[misc]


@breaks("DB-02", ref=REF)
class LosesNamesOfColumns:
    async def query(self, request: Any, context: Any) -> Any:
        result = await super().query(request, context)  # type: ignore[misc]
        for column in result.columns:
            column.name = "id" if column.name == "number" else column.name
        return result


@breaks("DB-03", ref=REF)
class CutsWithoutAWord:
    async def query(self, request: Any, context: Any) -> Any:
        result = await super().query(request, context)  # type: ignore[misc]
        result.truncated = False
        return result


@breaks("DB-04", ref=REF)
class WritesWhenAsked:
    async def query(self, request: Any, context: Any) -> Any:
        if request.sql.startswith("delete"):
            await super().execute(_run(sql=request.sql), context)  # type: ignore[misc]
        return await super().query(request, context)  # type: ignore[misc]


@breaks("DB-05", ref=REF)
class RunsTheSecondStatement:
    async def execute(self, request: Any, context: Any) -> Any:
        if request.sql.startswith("select 1;"):
            request.sql = request.sql.partition(";")[2].strip().rstrip(";")
        return await super().execute(request, context)  # type: ignore[misc]


@breaks("DB-06", ref=REF)
class AlwaysAffectsSomething:
    async def execute(self, request: Any, context: Any) -> Any:
        result = await super().execute(request, context)  # type: ignore[misc]
        if "where id > 9" in request.sql:
            result.rows_affected = 1
        return result


@breaks("DB-07", ref=REF)
class DuplicatesAreConflicts:
    async def execute(self, request: Any, context: Any) -> Any:
        try:
            return await super().execute(request, context)  # type: ignore[misc]
        except ProviderError as error:
            if error.code is ErrorCode.ALREADY_EXISTS and "'b'" in request.sql:
                raise ProviderError(ErrorCode.FAILED_PRECONDITION, "A duplicate.") from error
            raise


@breaks("DB-08", ref=REF)
class MissingParametersAreNull:
    async def query(self, request: Any, context: Any) -> Any:
        if "?" in request.sql and request.parameters is not UNSET and not request.parameters:
            request.parameters = [None] * request.sql.count("?")
        return await super().query(request, context)  # type: ignore[misc]


@breaks("DB-09", ref=REF)
class BatchesRunOneByOne:
    async def execute_batch(self, request: Any, context: Any) -> Any:
        if any("'d'" in str(one.parameters) for one in request.statements):
            first = request.statements[0]
            await super().execute(_run(sql=first.sql, parameters=first.parameters), context)  # type: ignore[misc]
            request.statements = request.statements[1:]
        return await super().execute_batch(request, context)  # type: ignore[misc]


@breaks("DB-10", ref=REF)
class ExpectsNothing:
    async def execute_batch(self, request: Any, context: Any) -> Any:
        for one in request.statements:
            one.expect_rows = UNSET
        return await super().execute_batch(request, context)  # type: ignore[misc]


@breaks("DB-11", ref=REF)
class EverythingIsNullable:
    async def metadata(self, request: Any, context: Any) -> Any:
        result = await super().metadata(request, context)  # type: ignore[misc]
        for table in result.tables:
            for column in table.columns:
                column.nullable = True
        return result


@breaks("DB-12", ref=REF)
class ListsAPageTwice:
    async def metadata(self, request: Any, context: Any) -> Any:
        result = await super().metadata(request, context)  # type: ignore[misc]
        if request.cursor is UNSET and request.limit == 2:
            result.tables = result.tables[:1]
        return result


@breaks("DB-13", ref=REF, also=("DB-65",))
class TenantsShareAFile:
    def __init__(self, config: Any, context: Any) -> None:
        shared = Path(*(part if part != "beta" else "alpha" for part in context.data_dir.parts))
        shared.mkdir(parents=True, exist_ok=True)
        super().__init__(config, dataclasses.replace(context, data_dir=shared))


@breaks("DB-14", ref=REF)
class ReadsThenWrites:
    async def execute(self, request: Any, context: Any) -> Any:
        if "set total = total + 1" not in request.sql:
            return await super().execute(request, context)  # type: ignore[misc]
        table = request.sql.split()[1]
        rows = (await super().query(db.QueryRequest(sql=f"select total from {table}"), context)).rows  # type: ignore[misc]
        await asyncio.sleep(0.001)
        request.sql = f"update {table} set total = {rows[0][0] + 1} where id = 1"
        return await super().execute(request, context)  # type: ignore[misc]


@breaks("DB-15", ref=REF)
class WritesRowByRow:
    async def execute(self, request: Any, context: Any) -> Any:
        if request.parameters is not UNSET and str(request.parameters[:1]).startswith("['v"):
            first = _run(sql=f"{request.sql} where id = 1", parameters=request.parameters)
            await super().execute(first, context)  # type: ignore[misc]
            await asyncio.sleep(0.01)
        return await super().execute(request, context)  # type: ignore[misc]


@breaks("DB-20", ref=REF)
class ItemsAreTooLarge:
    async def stream(self, request: Any, context: Any) -> Any:
        request.rows_per_item *= 2
        async for item in super().stream(request, context):  # type: ignore[misc]
            yield item


@breaks("DB-21", ref=REF)
class StreamsWhatChanges:
    async def stream(self, request: Any, context: Any) -> Any:
        if request.sql.startswith("delete"):
            await super().execute(_run(sql=request.sql), context)  # type: ignore[misc]
            request.sql = "select 1"
        async for item in super().stream(request, context):  # type: ignore[misc]
            yield item


@breaks("DB-30", ref=REF, also=("DB-34", "DB-40"))
class ForgetsToCommit:
    async def commit(self, request: Any, context: Any) -> Any:
        rollback = db.RollbackRequest(transaction=request.transaction)
        if context.connection in COMMITTED:
            return await super().commit(request, context)  # type: ignore[misc]
        COMMITTED.add(context.connection)
        await super().rollback(rollback, context)  # type: ignore[misc]
        return db.CommitResult(done=True)


COMMITTED: set[str] = set()


@breaks("DB-31", ref=REF, also=("DB-85",))
class RollbackCommits:
    async def rollback(self, request: Any, context: Any) -> Any:
        if request.savepoint is not UNSET:
            return await super().rollback(request, context)  # type: ignore[misc]
        await super().commit(db.CommitRequest(transaction=request.transaction), context)  # type: ignore[misc]
        return db.RollbackResult(done=True)


@breaks("DB-32", ref=REF)
class MadeUpHandlesAreCommitted:
    async def commit(self, request: Any, context: Any) -> Any:
        if request.transaction == "made-up":
            return db.CommitResult(done=True)
        return await super().commit(request, context)  # type: ignore[misc]


@breaks("DB-33", ref=REF)
class LeasesNeverEnd:
    async def begin(self, request: Any, context: Any) -> Any:
        request.lease_seconds = 30
        return await super().begin(request, context)  # type: ignore[misc]


@breaks("DB-34", ref=REF)
class KeepsPartOfAFailedStatement:
    async def execute(self, request: Any, context: Any) -> Any:
        if "(3, 'y'), (1, 'y')" in request.sql and request.transaction is not UNSET:
            table = request.sql.split()[2]
            part = f"insert into {table} (id, name) values (3, 'y')"
            await super().execute(_run(sql=part, transaction=request.transaction), context)  # type: ignore[misc]
        return await super().execute(request, context)  # type: ignore[misc]


@breaks("DB-35", ref=REF)
class ReadOnlyMeansNothing:
    async def begin(self, request: Any, context: Any) -> Any:
        request.read_only = request.isolation is not UNSET
        return await super().begin(request, context)  # type: ignore[misc]


@breaks("DB-40", ref=REF)
class AnySavepointWillDo:
    async def rollback(self, request: Any, context: Any) -> Any:
        if request.savepoint == "unknown":
            return db.RollbackResult(done=True)
        return await super().rollback(request, context)  # type: ignore[misc]


@breaks("DB-41", ref=REF)
class IsolationMeansNothing:
    async def query(self, request: Any, context: Any) -> Any:
        if "count(*)" in request.sql:
            request.transaction = UNSET
        return await super().query(request, context)  # type: ignore[misc]


@breaks("DB-50", ref=REF)
class EstimatesAMillion:
    async def metadata(self, request: Any, context: Any) -> Any:
        result = await super().metadata(request, context)  # type: ignore[misc]
        for table in result.tables:
            if table.row_estimate is not UNSET:
                table.row_estimate = 1_000_000
        return result


@breaks("DB-51", ref=REF)
class UsesMoreThanThereIs:
    async def metadata(self, request: Any, context: Any) -> Any:
        result = await super().metadata(request, context)  # type: ignore[misc]
        if result.pool is not UNSET:
            result.pool.in_use = result.pool.size + 1
        return result
