"""Certificates that change under a server."""

from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from structlog.testing import capture_logs

from server.tls import BadCertificate, Certificates
from tests.credentials import Authority


def certificates(tmp_path: Path) -> tuple[Authority, Certificates]:
    authority = Authority(tmp_path)
    server = authority.issue("server", "localhost")
    made = Certificates(server.cert_file, server.key_file, authority.cert_file)
    made.credentials()
    return authority, made


def test_nothing_new_is_no_change(tmp_path: Path) -> None:
    _, made = certificates(tmp_path)
    assert made._fetch() is None


def test_a_new_pair_is_used_once_both_files_are_there(tmp_path: Path) -> None:
    authority, made = certificates(tmp_path)
    new = authority.issue("new", "localhost")
    with capture_logs() as logs:
        new.key_file.replace(made._key_file)
        assert made._fetch() is None  # the key of another certificate
        assert made._fetch() is None  # told once
        new.cert_file.replace(made._cert_file)
        assert made._fetch() is not None
        assert made._fetch() is None
    assert [line["event"] for line in logs] == [
        "new certificate not used, the old one stays",
        "new certificate in use",
    ]


def test_new_roots_of_callers_are_used(tmp_path: Path) -> None:
    authority, made = certificates(tmp_path)
    authority.cert_file.write_text("nonsense")
    with capture_logs() as logs:
        assert made._fetch() is None
    assert logs[0]["log_level"] == "error"
    Authority(tmp_path, "other").cert_file.replace(authority.cert_file)
    assert made._fetch() is not None


def test_a_complaint_names_the_files_and_shows_nothing_of_the_key(tmp_path: Path) -> None:
    server = Authority(tmp_path).issue("server", "localhost")
    key = server.key_file.read_text()
    server.key_file.write_text(key[:200])
    with pytest.raises(BadCertificate) as caught:
        Certificates(server.cert_file, server.key_file, None).credentials()
    assert str(server.key_file) in str(caught.value)
    assert key.splitlines()[1][:20] not in str(caught.value)


def test_a_key_with_a_password_is_refused_and_not_asked_for(tmp_path: Path) -> None:

    server = Authority(tmp_path).issue("server", "localhost")
    key = serialization.load_pem_private_key(server.key_file.read_bytes(), None)
    server.key_file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    with pytest.raises(BadCertificate, match="password"):
        Certificates(server.cert_file, server.key_file, None).credentials()
