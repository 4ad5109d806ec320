"""What SCIM clients are told of the service (RFC 7643, sections 5 to 7)."""

from __future__ import annotations

from typing import Any

SCHEMAS = {
    "User": "urn:ietf:params:scim:schemas:core:2.0:User",
    "Group": "urn:ietf:params:scim:schemas:core:2.0:Group",
}
_LIST = "urn:ietf:params:scim:api:messages:2.0:ListResponse"


def _attribute(name: str, type_: str = "string", **facts: Any) -> dict[str, Any]:
    return {
        "name": name,
        "type": type_,
        "multiValued": False,
        "required": False,
        "caseExact": False,
        "mutability": "readWrite",
        "returned": "default",
        "uniqueness": "none",
        **facts,
    }


def _page(items: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "schemas": [_LIST],
        "totalResults": len(items),
        "startIndex": 1,
        "itemsPerPage": len(items),
        "Resources": items,
    }


def _schema(name: str, attributes: list[dict[str, Any]]) -> dict[str, Any]:
    schema = "urn:ietf:params:scim:schemas:core:2.0:Schema"
    return {"schemas": [schema], "id": SCHEMAS[name], "name": name, "attributes": attributes}


def _type(name: str) -> dict[str, Any]:
    schema = "urn:ietf:params:scim:schemas:core:2.0:ResourceType"
    return {"schemas": [schema], "id": name, "name": name, "endpoint": f"/{name}s", "schema": SCHEMAS[name]}


_MEMBER = [_attribute("value", mutability="immutable"), _attribute("display", mutability="readOnly")]

DOCUMENTS: dict[str, dict[str, Any]] = {
    "ServiceProviderConfig": {
        "schemas": ["urn:ietf:params:scim:schemas:core:2.0:ServiceProviderConfig"],
        "patch": {"supported": True},
        "bulk": {"supported": False, "maxOperations": 0, "maxPayloadSize": 0},
        "filter": {"supported": True, "maxResults": 200},
        "changePassword": {"supported": False},
        "sort": {"supported": False},
        "etag": {"supported": True},
        "authenticationSchemes": [
            {"type": "oauthbearertoken", "name": "API key", "description": "Authorization: Bearer KEY"}
        ],
    },
    "ResourceTypes": _page([_type("User"), _type("Group")]),
    "Schemas": _page(
        [
            _schema(
                "User",
                [
                    _attribute("userName", required=True, uniqueness="server"),
                    _attribute("displayName"),
                    _attribute("active", "boolean"),
                    _attribute("groups", "complex", multiValued=True, mutability="readOnly", subAttributes=_MEMBER),
                ],
            ),
            _schema(
                "Group",
                [
                    _attribute("displayName", required=True, uniqueness="server", caseExact=True),
                    _attribute("members", "complex", multiValued=True, subAttributes=_MEMBER),
                ],
            ),
        ]
    ),
}
