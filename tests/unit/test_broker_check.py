"""An operator hears what is wrong with Redis before a caller does."""

import pytest

from dispatch.broker_check import complaints, parsed_info

GOOD = {
    "redis_version": "7.2.4",
    "maxmemory": "1000000",
    "maxmemory_policy": "noeviction",
    "aof_enabled": "1",
}


def test_a_server_as_shipped_is_fine() -> None:
    assert complaints(GOOD) == []


@pytest.mark.parametrize(
    ("field", "value", "word"),
    [
        ("redis_version", "6.2.14", "too old"),
        ("maxmemory", "0", "maxmemory"),
        ("maxmemory_policy", "allkeys-lru", "noeviction"),
        ("aof_enabled", "0", "append-only"),
    ],
)
def test_each_wrong_setting_is_named(field: str, value: str, word: str) -> None:
    (complaint,) = complaints({**GOOD, field: value})
    assert word in complaint


def test_what_is_not_told_is_not_complained_about() -> None:
    assert complaints({}) == []


def test_info_is_read_line_by_line() -> None:
    text = "# Server\r\nredis_version:9.1.0\r\n\r\n# Memory\r\nmaxmemory:0\r\n"
    assert parsed_info(text) == {"redis_version": "9.1.0", "maxmemory": "0"}
