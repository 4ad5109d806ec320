"""The bare handlers the layer is compared with: the same look-up, none of the steps.

Usage: python benchmarks/bare.py fastapi|starlette|asyncpg|fastapi-redis PORT
"""

from __future__ import annotations

import json
import os
import socket
import sys
from typing import Any

import uvicorn

STORE: dict[str, Any] = {f"k{number}": {"amount": "19.90", "currency": "EUR"} for number in range(1000)}


def fastapi_app() -> Any:
    """Return the handler as one would write it with FastAPI and typed models."""
    from fastapi import FastAPI
    from pydantic import BaseModel

    app = FastAPI()

    class Params(BaseModel):
        key: str

    class Body(BaseModel):
        params: Params

    class Result(BaseModel):
        found: bool
        value: Any = None

    class Answer(BaseModel):
        data: Result

    async def get(body: Body) -> Answer:
        value = STORE.get(body.params.key)
        return Answer(data=Result(found=value is not None, value=value))

    get.__annotations__.update(body=Body)
    app.post("/providers/cache/memory/get", response_model=Answer)(get)
    return app


def fastapi_redis_app(port: int) -> Any:
    """Return the handler as one would write it with FastAPI, typed models and redis-py."""
    from fastapi import FastAPI
    from pydantic import BaseModel
    from redis.asyncio import Redis

    app = FastAPI()
    client = Redis(host="127.0.0.1", port=port)

    class Params(BaseModel):
        key: str

    class Body(BaseModel):
        params: Params

    class Result(BaseModel):
        found: bool
        value: Any = None

    class Answer(BaseModel):
        data: Result

    async def get(body: Body) -> Answer:
        text = await client.get(f"bare:{body.params.key}")
        return Answer(data=Result(found=text is not None, value=None if text is None else json.loads(text)))

    get.__annotations__.update(body=Body)
    app.post("/providers/cache/redis/get", response_model=Answer)(get)
    return app


def fill_redis(port: int) -> None:
    """Put the values of the dictionary into Redis."""
    from redis import Redis

    with Redis(host="127.0.0.1", port=port) as client:
        client.mset({f"bare:{key}": json.dumps(value) for key, value in STORE.items()})


def starlette_app() -> Any:
    """Return the handler as one would write it with Starlette alone."""
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    async def get(request: Request) -> JSONResponse:
        value = STORE.get((await request.json())["params"]["key"])
        return JSONResponse({"data": {"found": value is not None, "value": value}})

    return Starlette(routes=[Route("/providers/cache/memory/get", get, methods=["POST"])])


def asyncpg_app() -> Any:
    """Return a handler that reads a row by key from the PostgreSQL of ``ERP_TEST_POSTGRES``, with FastAPI and asyncpg."""
    from decimal import Decimal

    import asyncpg
    from fastapi import FastAPI
    from pydantic import BaseModel

    app = FastAPI()
    pools: list[Any] = []

    class Params(BaseModel):
        id: int

    class Body(BaseModel):
        params: Params

    class Item(BaseModel):
        id: int
        name: str
        price: Decimal

    class Answer(BaseModel):
        data: list[Item]

    async def get(body: Body) -> Answer:
        if not pools:
            pools.append(await asyncpg.create_pool(os.environ["ERP_TEST_POSTGRES"], min_size=8, max_size=8))
        rows = await pools[0].fetch("select id, name, price from bench_item where id = $1", body.params.id)
        return Answer(data=[Item(**row) for row in rows])

    get.__annotations__.update(body=Body)
    app.post("/item", response_model=Answer)(get)
    return app


APPS = {"fastapi": fastapi_app, "starlette": starlette_app, "asyncpg": asyncpg_app}


def app_of(kind: str, *arguments: str) -> Any:
    """Return the application of a kind."""
    if kind == "fastapi-redis":
        fill_redis(int(arguments[0]))
        return fastapi_redis_app(int(arguments[0]))
    return APPS[kind]()


async def serve(*arguments: str) -> None:
    """Serve on a free loopback port under the same server as the layer."""
    app = app_of(*arguments)
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    config = uvicorn.Config(
        app, http="httptools", loop="none", access_log=False, log_config=None, log_level="warning", lifespan="off"
    )
    server = uvicorn.Server(config)
    print(f"ready http://127.0.0.1:{sock.getsockname()[1]}", file=sys.stderr, flush=True)
    await server.serve([sock])


if __name__ == "__main__":
    import uvloop

    uvloop.run(serve(*sys.argv[1:]))
