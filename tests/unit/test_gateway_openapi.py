"""The OpenAPI document says what the application does."""

import re
from typing import Any

import jsonschema_rs

from client.messages import Messages
from gateway import openapi
from gateway.app import create_app
from gateway.held_bytes import HeldBytes
from gateway.json_mapping import to_json
from gateway.settings import GatewaySettings
from gateway.stats_hub import StatsHub
from prediction.v1 import admin_pb2, prediction_pb2

DOCUMENT = openapi.document()
NOT_IN_IT = {"/", "/static/<name>"}
"""The page is for people."""


def routes() -> set[tuple[str, str]]:
    upstream = Messages("127.0.0.1:1")
    try:
        stats = StatsHub(upstream, max_listeners=1)
        app = create_app(GatewaySettings(), upstream, stats, HeldBytes(1))
    finally:
        upstream.close()
    return {
        (
            re.sub(r"<operation_id>", "{operation}", rule.rule).replace("<model:model>", "{model}"),
            method,
        )
        for rule in app.url_map.iter_rules()
        if rule.rule not in NOT_IN_IT
        for method in (rule.methods or set()) - {"HEAD"}
    }


def test_every_route_is_in_it_and_no_other() -> None:
    described = {
        (path, method.upper())
        for path, item in DOCUMENT["paths"].items()
        for method in item
        if method != "parameters"
    }
    assert described == routes()


def validator(name: str) -> Any:
    schema = {"$ref": f"#/components/schemas/{name}", "components": DOCUMENT["components"]}
    return jsonschema_rs.Draft202012Validator(schema)


def test_messages_are_as_their_schemas_say() -> None:
    response = prediction_pb2.PredictResponse(scores=[0.5], model="m")
    response.timing.total.FromMilliseconds(1500)
    response.predictions.add(label="cat", class_id=1, score=0.1)
    stats = admin_pb2.WatchStatsResponse()
    stats.time.GetCurrentTime()
    stats.models.add(model="m").queues.add(name="high").oldest_age.FromMilliseconds(1)
    for message in (response, stats, prediction_pb2.PredictResponse()):
        validator(message.DESCRIPTOR.name).validate(to_json(message))


def test_a_schema_knows_all_fields_of_its_message() -> None:
    check = validator("PredictResponse")
    good = to_json(prediction_pb2.PredictResponse())
    assert check.is_valid(good)
    assert not check.is_valid(good | {"colour": "red"})
    assert not check.is_valid({name: good[name] for name in good if name != "model"})


def test_every_path_may_be_refused_for_its_origin_or_host() -> None:
    for item in DOCUMENT["paths"].values():
        for method in item.keys() - {"parameters"}:
            assert "403" in item[method]["responses"]
