"""The part of Cloud Storage's XML API that the provider uses, played for its tests, after Google's reference.

It proves that requests and answers fit the reference as it was read here, and nothing about Google.
"""

from __future__ import annotations

import datetime
import hashlib
import itertools
import json
import threading
import time
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import format_datetime
from xml.etree import ElementTree

import uvicorn
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from joserfc import jwt
from joserfc.jwk import RSAKey
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

BUCKET, EMAIL, TOKEN = "objects", "erp@example.iam.gserviceaccount.com", "ya29.granted"
_generations = itertools.count(1_700_000_000_000_001)


@dataclass
class Stored:
    content: bytes
    headers: dict[str, str]
    generation: int = field(default_factory=lambda: next(_generations))
    at: datetime.datetime = field(default_factory=lambda: datetime.datetime.now(datetime.UTC))

    def shown(self) -> dict[str, str]:
        return {
            **self.headers,
            "etag": f'"{self.generation:x}"',
            "x-goog-generation": str(self.generation),
            "last-modified": format_datetime(self.at.replace(microsecond=0), usegmt=True),
        }


class GcsPeer:
    """One bucket in memory."""

    def __init__(self) -> None:
        self.key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self.objects: dict[str, Stored] = {}
        self.uploads: dict[str, tuple[str, dict[str, str], dict[int, bytes]]] = {}
        self.tokens = 0
        self.port = 0
        routes = [
            Route("/token", self.token, methods=["POST"]),
            Route("/{rest:path}", self.serve, methods=["GET", "HEAD", "PUT", "POST", "DELETE"]),
        ]
        self.app = Starlette(routes=routes)

    @property
    def pem(self) -> str:
        form = serialization.PrivateFormat.PKCS8
        return self.key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()).decode()

    def config(self) -> dict[str, str]:
        url = f"http://127.0.0.1:{self.port}"
        key = {"type": "service_account", "client_email": EMAIL, "private_key": self.pem, "token_uri": f"{url}/token"}
        return {"endpoint": url, "bucket": BUCKET, "service_account_key": json.dumps(key)}

    async def token(self, request: Request) -> Response:
        form = urllib.parse.parse_qs((await request.body()).decode())
        claims = jwt.decode(form["assertion"][0], RSAKey.import_key(self.pem), algorithms=["RS256"]).claims
        if (
            claims["iss"] != EMAIL
            or claims["aud"] != f"http://127.0.0.1:{self.port}/token"
            or claims["exp"] < time.time()
        ):
            return JSONResponse({"error": "invalid_grant"}, 400)
        self.tokens += 1
        return JSONResponse({"access_token": TOKEN, "expires_in": 3600})

    async def serve(self, request: Request) -> Response:
        raw = request.scope["raw_path"].decode().split("?")[0]
        bucket, _, name = urllib.parse.unquote(raw.lstrip("/")).partition("/")
        if request.headers.get("authorization") != f"Bearer {TOKEN}":
            return refusal(401, "AuthenticationRequired")
        if bucket != BUCKET:
            return refusal(404, "NoSuchBucket")
        body = await request.body()
        if "uploads" in request.query_params or "uploadId" in request.query_params:
            return self.upload(request, name, body)
        if not name:
            return self.listed(request)
        return {"PUT": self.put, "DELETE": self.delete}.get(request.method, self.get)(request, name, body)

    def put(self, request: Request, name: str, body: bytes) -> Response:
        wanted, present = request.headers.get("x-goog-if-generation-match"), self.objects.get(name)
        if wanted is not None and int(wanted) != (present.generation if present else 0):
            return refusal(412, "PreconditionFailed")
        source = request.headers.get("x-goog-copy-source")
        if source is not None:
            found = self.objects.get(urllib.parse.unquote(source).removeprefix(f"/{BUCKET}/"))
            if found is None:
                return refusal(404, "NoSuchKey")
            body = found.content
        made = self.objects[name] = Stored(body, kept(request))
        document = "" if source is None else f"<CopyObjectResult><ETag>{made.shown()['etag']}</ETag></CopyObjectResult>"
        return Response(document, headers={one: made.shown()[one] for one in ("etag", "x-goog-generation")})

    def get(self, request: Request, name: str, _: bytes) -> Response:
        found = self.objects.get(name)
        if found is None:
            return refusal(404, "NoSuchKey")
        content, headers, status = found.content, found.shown(), 200
        if span := request.headers.get("range"):
            first, sep, last = span.removeprefix("bytes=").partition("-")
            if int(first) >= len(content):
                return refusal(416, "InvalidRange")
            part = content[int(first) : int(last) + 1 if sep and last else None]
            headers["content-range"] = f"bytes {first}-{int(first) + len(part) - 1}/{len(content)}"
            content, status = part, 206
        return Response(content, status, headers)

    def delete(self, _: Request, name: str, __: bytes) -> Response:
        return Response(status_code=204) if self.objects.pop(name, None) else refusal(404, "NoSuchKey")

    def listed(self, request: Request) -> Response:
        asked = request.query_params
        prefix, delimiter, after = asked.get("prefix", ""), asked.get("delimiter"), asked.get("continuation-token", "")
        entries: dict[str, Stored | None] = {}
        for name in sorted(one for one in self.objects if one.startswith(prefix)):
            inside, cut, _ = name[len(prefix) :].partition(delimiter or "\0")
            folded = f"{prefix}{inside}{delimiter}" if delimiter and cut else name
            if folded > after:
                entries[folded] = None if folded != name else self.objects[name]
        limit = int(asked["max-keys"])
        shown = list(entries.items())[:limit]
        root = ElementTree.Element("ListBucketResult", xmlns="http://doc.s3.amazonaws.com/2006-03-01")
        for name, one in shown:
            made = ElementTree.SubElement(root, "CommonPrefixes" if one is None else "Contents")
            ElementTree.SubElement(made, "Prefix" if one is None else "Key").text = urllib.parse.quote(name, safe="/")
            if one is not None:
                facts = {
                    "Generation": one.generation,
                    "Size": len(one.content),
                    "ETag": one.shown()["etag"],
                    "LastModified": one.at.isoformat(),
                }
                for tag, value in facts.items():
                    ElementTree.SubElement(made, tag).text = str(value)
        ElementTree.SubElement(root, "IsTruncated").text = str(len(entries) > limit).lower()
        if len(entries) > limit:
            ElementTree.SubElement(root, "NextContinuationToken").text = shown[-1][0]
        return Response(ElementTree.tostring(root), media_type="application/xml")

    def upload(self, request: Request, name: str, body: bytes) -> Response:
        if "uploads" in request.query_params:
            made = f"ABPnzm{next(_generations)}"
            self.uploads[made] = (name, kept(request), {})
            return Response(
                f"<InitiateMultipartUploadResult><UploadId>{made}</UploadId></InitiateMultipartUploadResult>"
            )
        upload = request.query_params["uploadId"]
        if self.uploads.get(upload, ("",))[0] != name:
            return refusal(404, "NoSuchUpload")
        _, headers, parts = self.uploads[upload]
        if request.method == "PUT":
            parts[int(request.query_params["partNumber"])] = body
            return Response(headers={"etag": f'"{hash_of(body)}"'})
        if request.method == "GET":
            rows = "".join(
                f"<Part><PartNumber>{number}</PartNumber><ETag>&quot;{hash_of(part)}&quot;</ETag><Size>{len(part)}</Size></Part>"
                for number, part in sorted(parts.items())
            )
            return Response(f"<ListPartsResult><IsTruncated>false</IsTruncated>{rows}</ListPartsResult>")
        if request.method == "DELETE":
            del self.uploads[upload]
            return Response(status_code=204)
        return self.complete(upload, name, headers, parts, body)

    def complete(
        self, upload: str, name: str, headers: dict[str, str], parts: dict[int, bytes], body: bytes
    ) -> Response:
        asked = ElementTree.fromstring(body)  # noqa: S314  (what the provider under test has written)
        wanted = [
            (int(one.findtext("{*}PartNumber") or 0), (one.findtext("{*}ETag") or "").strip('"')) for one in asked
        ]
        if any(hash_of(parts.get(number, b"\0")) != etag for number, etag in wanted):
            return refusal(400, "InvalidPart")
        del self.uploads[upload]
        made = self.objects[name] = Stored(b"".join(parts[number] for number, _ in wanted), headers)
        return Response(
            f"<CompleteMultipartUploadResult><ETag>{made.shown()['etag']}</ETag></CompleteMultipartUploadResult>"
        )


def hash_of(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def kept(request: Request) -> dict[str, str]:
    return {
        name: value
        for name, value in request.headers.items()
        if name == "content-type" or name.startswith("x-goog-meta-")
    }


def refusal(status: int, code: str) -> Response:
    return Response(f"<?xml version='1.0'?><Error><Code>{code}</Code></Error>", status)


@contextmanager
def playing() -> Iterator[GcsPeer]:
    """A peer that listens, in a thread of its own."""
    peer = GcsPeer()
    server = uvicorn.Server(uvicorn.Config(peer.app, host="127.0.0.1", port=0, log_level="critical", lifespan="off"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        until = time.monotonic() + 30
        while not server.started and time.monotonic() < until:
            time.sleep(0.01)
        peer.port = server.servers[0].sockets[0].getsockname()[1]
        yield peer
    finally:
        server.should_exit = True
        thread.join()
