"""The certificate of the port: read again whenever its files have changed.

gRPC asks for it before each handshake, in a thread of its own. A connection keeps
the certificate that it was made with until it ends (`SERVER_MAX_CONNECTION_AGE_S`).
"""

import ssl
import threading
from pathlib import Path
from typing import Final

import grpc
import structlog

from server.watched_files import WatchedFiles

log = structlog.get_logger(__name__)

ENCRYPTED: Final = "the private key has a password; the server cannot ask for it"


class BadCertificate(Exception):
    """The files cannot be used together."""


class Certificates:
    """What gRPC shows to callers, and which callers' certificates it accepts.

    Args:
        cert_file: the server's certificate and those that lead to its root, PEM.
        key_file: the private key, PEM, without a password.
        client_ca_file: roots of callers' certificates, PEM; None: callers need none.
    """

    def __init__(self, cert_file: Path, key_file: Path, client_ca_file: Path | None) -> None:
        self._cert_file = cert_file
        self._key_file = key_file
        self._client_ca_file = client_ca_file
        paths = [path for path in (cert_file, key_file, client_ca_file) if path is not None]
        self._files = WatchedFiles(paths)
        # Several handshakes may begin at once.
        self._turn = threading.Lock()

    def credentials(self) -> grpc.ServerCredentials:
        """Return what a port needs.

        Raises:
            BadCertificate: the files cannot be used.
        """
        self._files.have_changed()
        return grpc.dynamic_ssl_server_credentials(
            self._read(),
            self._fetch,  # type: ignore[arg-type] # stub: forgets None, which means no change
            require_client_authentication=self._client_ca_file is not None,
        )

    def _fetch(self) -> grpc.ServerCertificateConfiguration | None:
        """Return the new certificate if there is one; None: go on with the old one."""
        with self._turn:
            if not self._files.have_changed():
                return None
            try:
                configuration = self._read()
            except BadCertificate as error:
                log.error("new certificate not used, the old one stays", reason=str(error))  # noqa: TRY400 - the reason says it all
                return None
            log.info("new certificate in use", file=str(self._cert_file))
            return configuration

    def _read(self) -> grpc.ServerCertificateConfiguration:
        try:
            certificate = self._cert_file.read_bytes()
            key = self._key_file.read_bytes()
            roots = self._client_ca_file.read_bytes() if self._client_ca_file else None
            _check(self._cert_file, self._key_file, self._client_ca_file)
        except (OSError, ValueError) as error:
            # `ssl.SSLError` is an OSError, and says nothing of what is in the files.
            raise BadCertificate(f"{error} ({self._cert_file}, {self._key_file})") from error
        return grpc.ssl_server_certificate_configuration([(key, certificate)], roots)


def _check(cert_file: Path, key_file: Path, client_ca_file: Path | None) -> None:
    """Find out what gRPC would find out only at a handshake, and then not say.

    Raises:
        OSError, ValueError: they are not what they should be, or do not belong together.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert_file, key_file, password=_no_password)
    if client_ca_file is not None:
        context.load_verify_locations(client_ca_file)


def _no_password() -> str:
    raise ValueError(ENCRYPTED)
