"""Writes the AsyncAPI 3.0 document: every event of every domain and service as CloudEvents 1.0 JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from erp.contracts.models_writer import pascal
from erp.contracts.schemas import inlined

if TYPE_CHECKING:
    from erp.contracts.authored import Authored, Contract


def asyncapi(authored: Authored) -> dict[str, Any]:
    """Return the document."""
    channels: dict[str, Any] = {}
    operations: dict[str, Any] = {}
    messages: dict[str, Any] = {}
    for contract in authored.contracts:
        for event, described in contract.events.items():
            name = f"{pascal(contract.name)}{pascal(event)}"
            messages[name] = _message(authored, contract, event, described)
            channels[name] = _channel(contract, event, name, described)
            operations[f"receive{name}"] = {
                "action": "receive",
                "summary": described["summary"],
                "channel": {"$ref": f"#/channels/{name}"},
                "messages": [{"$ref": f"#/channels/{name}/messages/{name}"}],
            }
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "ERP Provider Layer events",
            "version": authored.gateway["version"],
            "description": "Delivered at least once, in order per key, through the tenant's bus provider.",
            "license": {"name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
        },
        "defaultContentType": "application/cloudevents+json",
        "channels": channels,
        "operations": operations,
        "components": {"messages": messages},
    }


def _channel(contract: Contract, event: str, name: str, described: dict[str, Any]) -> dict[str, Any]:
    messages = {name: {"$ref": f"#/components/messages/{name}"}}
    if contract.kind == "service":
        address = f"service.events.{contract.name}.{event}"
        return {"address": address, "description": described["summary"], "messages": messages}
    return {
        "address": f"provider.events.{contract.name}.{{name}}.{event}",
        "description": described["summary"],
        "parameters": {"name": {"description": "The provider, for example memory."}},
        "messages": messages,
    }


def _message(authored: Authored, contract: Contract, event: str, described: dict[str, Any]) -> dict[str, Any]:
    envelope = authored.schemas["cloud_event"]
    payload = inlined({key: value for key, value in envelope.items() if key != "$defs"}, envelope.get("$defs", {}))
    payload = {**payload, "properties": {**payload["properties"]}}
    payload["properties"]["type"] = {"type": "string", "const": f"erp.{contract.name}.{event}"}
    payload["properties"]["data"] = inlined(described["payload"], contract.definitions)
    return {
        "name": f"erp.{contract.name}.{event}",
        "title": f"{contract.document['title']}: {event}",
        "summary": described["summary"],
        "contentType": "application/cloudevents+json",
        "payload": payload,
    }
