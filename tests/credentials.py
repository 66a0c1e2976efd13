"""Certificates and API keys made for a test."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import grpc
import trustme

from server.api_keys import digest, new_key


class Authority:
    """Signs certificates; `cert_file` is what those trust who trust it."""

    def __init__(self, folder: Path, name: str = "ca") -> None:
        self._ca = trustme.CA()
        self._folder = folder
        self.cert_file = folder / f"{name}.pem"
        self._ca.cert_pem.write_to_path(str(self.cert_file))

    def issue(self, name: str, *hosts: str, subject: str | None = None) -> "Identity":
        """Write a certificate and its key."""
        certificate = self._ca.issue_cert(*hosts, common_name=subject)
        identity = Identity(self._folder / f"{name}.pem", self._folder / f"{name}.key")
        certificate.private_key_pem.write_to_path(str(identity.key_file))
        chain = b"".join(pem.bytes() for pem in certificate.cert_chain_pems)
        identity.cert_file.write_bytes(chain)
        return identity


@dataclass(frozen=True)
class Identity:
    """Files of a certificate."""

    cert_file: Path
    key_file: Path

    def replace_with(self, other: "Identity") -> None:
        """Put the files of another one into the place of these."""
        other.key_file.replace(self.key_file)
        other.cert_file.replace(self.cert_file)

    def spoil(self, which: Literal["cert_file", "key_file"]) -> None:
        """Write nonsense into one of the files."""
        self._path(which).write_text("nonsense")

    def lose(self, which: Literal["cert_file", "key_file"]) -> None:
        """Delete one of the files."""
        self._path(which).unlink()

    def _path(self, which: Literal["cert_file", "key_file"]) -> Path:
        return self.cert_file if which == "cert_file" else self.key_file


def channel_credentials(
    authority: Authority, identity: Identity | None = None
) -> grpc.ChannelCredentials:
    """Return what a client needs that trusts `authority` and shows `identity`."""
    return grpc.ssl_channel_credentials(
        authority.cert_file.read_bytes(),
        identity.key_file.read_bytes() if identity else None,
        identity.cert_file.read_bytes() if identity else None,
    )


class Keys:
    """A file of API keys, and the keys."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._entries: dict[str, str] = {}
        self._keys: dict[str, str] = {}

    def __getitem__(self, name: str) -> str:
        return self._keys[name]

    def add(self, name: str, *scopes: str, **limits: float) -> str:
        """Add a key; with the name of an old one it takes its place."""
        self._keys[name] = key = new_key()
        lines = [
            "[[key]]",
            f'name = "{name}"',
            f'sha256 = "{digest(key)}"',
            f"scopes = {list(scopes)!r}",
            *(f"{limit} = {value!r}" for limit, value in limits.items()),
        ]
        self._entries[name] = "\n".join(lines)
        self._write()
        return key

    def remove(self, name: str) -> None:
        """Take a key out of the file."""
        del self._entries[name]
        self._write()

    def _write(self) -> None:
        new = self.path.with_suffix(".new")
        new.write_text("\n\n".join(self._entries.values()) + "\n")
        new.replace(self.path)


def bearer(key: str) -> tuple[tuple[str, str], ...]:
    """Return the metadata of a call with a key."""
    return (("authorization", f"Bearer {key}"),)
