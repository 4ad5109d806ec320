"""Events leave the layer as CloudEvents 1.0, and come in as whoever wrote them."""

from __future__ import annotations

import datetime
import json

import msgspec
import pytest

from erp.contracts.models.bus import CloudEvent
from erp.vendor_clients import cloudevents


def test_extensions_stand_beside_the_attributes() -> None:
    event = CloudEvent(id="1", source="/s", type="t", extensions={"tenantregion": "eu"}, data={"a": 1})

    written = json.loads(cloudevents.encode(event))

    assert written == {
        "specversion": "1.0",
        "id": "1",
        "source": "/s",
        "type": "t",
        "tenantregion": "eu",
        "data": {"a": 1},
    }
    assert cloudevents.decode(cloudevents.encode(event)) == event


def test_an_extension_cannot_take_the_place_of_an_attribute() -> None:
    event = CloudEvent(id="1", source="/s", type="t", extensions={"id": "2", "extensions": "x"})

    assert cloudevents.decode(cloudevents.encode(event)).id == "1"


def test_times_and_data_survive() -> None:
    moment = datetime.datetime(2026, 1, 2, 3, 4, 5, 123456, tzinfo=datetime.UTC)
    event = CloudEvent(id="1", source="/s", type="t", time=moment, extensions={"x": "y"}, data=[None, "ü", 1.5])

    assert cloudevents.decode(cloudevents.encode(event)) == event


def test_what_other_systems_write_is_read() -> None:
    body = (
        b'{"specversion":"1.0","id":"1","source":"/s","type":"t","size":3,"flag":true,"none":null,"data_base64":"aGk="}'
    )

    event = cloudevents.decode(body)

    assert (event.data, event.extensions) == ("aGk=", {"size": "3", "flag": "true"})


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"\xff", b'{"id":"1"}', b'{"specversion":"0.3","id":"1","source":"s","type":"t"}']
)
def test_what_is_no_cloudevent_is_refused(body: bytes) -> None:
    with pytest.raises((msgspec.DecodeError, UnicodeDecodeError)):
        cloudevents.decode(body)
