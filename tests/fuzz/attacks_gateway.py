"""What no browser would send to the REST gateway: odd requests, lying bodies, rude callers."""

import json
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse, RemoteDisconnected
from typing import Final

from hypothesis import strategies as st

from tests.fuzz.attacks import PATIENCE_S, Arena, attack
from tests.fuzz.images import samples
from tests.fuzz.verdict import Answer, Wrong
from tests.worker_process import MODEL

MIB: Final = 1 << 20
PROBLEM: Final = "application/problem+json"
PIECE_BYTES: Final = 64 * 1024
DRIPS: Final = 5
"""How many bytes come alone before the rest, from a caller that dawdles."""

PREDICT: Final = f"/v1/models/{MODEL}:predict"

SERVER_ERRORS: Final = frozenset(
    {
        # As busy as its own limits allow.
        *("503 GATEWAY_FULL", "503 TOO_MANY_LISTENERS"),
        # A method or a coding of HTTP that it does not have; a caller who gave too little time.
        *("501", "504 EXPIRED_IN_QUEUE"),
    }
)
"""Status and reason of the answers of 5xx that there may be."""


@dataclass(frozen=True, slots=True)
class WebRequest:
    """One request, as it goes over the wire, and what its caller does then."""

    method: str
    path: str
    headers: tuple[tuple[str, str], ...]
    body: str
    """What there is; see `BODIES`."""

    framing: str
    """How long the body is said to be; `honest`: as it is."""

    part: int
    """How much of it all is sent, percent; with less than all, the caller says no more."""

    leaves: str
    """What the caller does when it has sent that: `waits`, `half-closes`, `resets` or `drips`."""

    @property
    def is_sound(self) -> bool:
        """Whether HTTP demands an answer."""
        return (
            self.framing in {"honest", "chunked"} and self.part == 100 and self.leaves != "resets"
        )

    def pieces(self) -> Iterator[bytes]:
        """Yield what is sent."""
        body = BODIES[self.body]
        headers = [("Host", "localhost"), *self.headers, *FRAMINGS[self.framing](len(body))]
        lines = [f"{self.method} {self.path} HTTP/1.1", *(f"{k}: {v}" for k, v in headers)]
        yield "\r\n".join([*lines, "", ""]).encode("latin-1")
        for start in range(0, len(body), PIECE_BYTES):
            piece = body[start : start + PIECE_BYTES]
            if self.framing == "chunked":
                yield b"%x\r\n%b\r\n" % (len(piece), piece)
            else:
                yield piece
        if self.framing == "chunked":
            yield b"0\r\n\r\n"


def form(*parts: bytes, name: bytes = b"image") -> bytes:
    """Return a form with images."""
    head = b'Content-Disposition: form-data; name="%b"; filename="x"\r\n\r\n' % name
    return b"".join(b"--b\r\n" + head + part + b"\r\n" for part in parts) + b"--b--\r\n"


BODIES: Final = {
    "nothing": b"",
    "image": samples()["jpeg"],
    "noise": b"\xff\xd8" + bytes(range(256)) * 40,
    "text": b'{"image": "aGFsbG8="}',
    "large": bytes(15 * MIB),
    "too large": bytes(20 * MIB),
    "form": form(samples()["png"], b"", b"GIF89a"),
    "many parts": form(*(b"x" for _ in range(400))),
    "large parts": form(*(bytes(4 * MIB) for _ in range(4))),
    "endless part head": b"--b\r\nX: " + b"x" * MIB,
    "no parts": b"--b--",
}

FRAMINGS: Final[dict[str, Callable[[int], list[tuple[str, str]]]]] = {
    "honest": lambda size: [("Content-Length", str(size))],
    "chunked": lambda _: [("Transfer-Encoding", "chunked")],
    "too long": lambda size: [("Content-Length", str(size + 7))],
    "too short": lambda size: [("Content-Length", str(size // 2))],
    "huge": lambda _: [("Content-Length", "9" * 18)],
    "no number": lambda _: [("Content-Length", "-1")],
    "twice": lambda size: [("Content-Length", str(size)), ("Content-Length", "1")],
    "both": lambda size: [("Content-Length", str(size)), ("Transfer-Encoding", "chunked")],
    "not in chunks": lambda _: [("Transfer-Encoding", "chunked")],
    "none": lambda _: [],
}


def requests(arena: Arena) -> st.SearchStrategy[WebRequest]:
    """Return requests: any, to any path."""
    del arena
    method = st.sampled_from(("POST", "POST", "GET", "DELETE", "OPTIONS", "HEAD", "PUT", "BREW"))
    queries = (
        "topK=-1",
        "topK=" + "9" * 99,
        "includeScores=x",
        "wait=1e99",
        "a=%ff&&&=",
        "x" * 9000,
    )
    query = st.sampled_from(("", "", "", *(f"?{each}" for each in queries)))
    plain = st.sampled_from(
        (
            *(PREDICT, PREDICT, f"/v1/models/{MODEL}:submit", "/v1/models", f"/v1/models/{MODEL}"),
            *("/v1/operations/" + "x" * 300, "/v1/operations/%00", "/v1/models/%2e%2e:predict"),
            *("/v1/stats", "/healthz", "/readyz", "/openapi.json", "/", "/static/../../app.py"),
            *("/%ff", "/" + "x" * 9000, "*", "//", "/v1/models/" + "%41" * 900 + ":predict"),
        )
    )
    header = st.sampled_from(
        (
            *(("Content-Type", kind) for kind in ("image/jpeg", "text/html", "", "x" * 5_000)),
            ("Content-Type", "multipart/form-data; boundary=b"),
            *(("Content-Type", f"multipart/form-data{end}") for end in ("", "; boundary=")),
            *(("Expect", "100-continue"), ("Connection", "close"), ("Content-Encoding", "gzip")),
            *(("X-Request-Id", "\xff\x7f"), ("Authorization", "Bearer " + "x" * 9_000)),
            *(("traceparent", "00-" + "f" * 52), ("Origin", "null"), ("Range", "bytes=0-")),
            *(("X-Large", "x" * 70_000), ("X-Nothing", ""), ("Upgrade", "h2c"), ("Host", "")),
        )
    )
    return st.builds(
        WebRequest,
        method,
        st.builds(str.__add__, plain, query),
        st.lists(header, max_size=3).map(tuple),
        st.sampled_from(sorted(BODIES)),
        st.sampled_from(("honest", "honest", "honest", "chunked", "chunked", *sorted(FRAMINGS))),
        st.sampled_from((100, 100, 100, 50, 1)),
        st.sampled_from(("waits", "waits", "half-closes", "resets", "drips")),
    )


@attack("gateway", "odd paths, headers and bodies to the REST gateway, cut off or slow", requests)
def odd_requests(arena: Arena, request: WebRequest) -> None:
    """Send one, want an answer that says what is wrong, and then a good one."""
    answer = answer_to(arena.web_address, request)
    arena.tally.note(answer)
    judge_web(answer, request)
    good = WebRequest("POST", PREDICT, (), "image", "honest", 100, "waits")
    answer = answer_to(arena.web_address, good)
    arena.tally.note(answer)
    if answer.code != "200":
        raise Wrong(f"a good request got {answer.name} after {answer.took_s:.1f} s")


def judge_web(answer: Answer, request: WebRequest) -> None:
    """Accept an answer.

    Raises:
        Wrong: it came too late or not at all, does not say what is wrong, or that it is our fault.
    """
    if answer.took_s > PATIENCE_S:
        raise Wrong(f"{answer.name or 'nothing'} after {answer.took_s:.1f} s")
    if answer.code == "nothing":
        if request.is_sound:
            raise Wrong(f"a whole request got no answer: {answer.text}")
        return
    if not answer.code.isdigit():
        raise Wrong(f"{answer.code}: {answer.text}")
    if answer.code >= "500" and answer.name not in SERVER_ERRORS:
        raise Wrong(f"{answer.name}: {answer.text}")


def answer_to(address: str, request: WebRequest) -> Answer:
    """Send a request, and return status and reason, or why there are none."""
    host, _, port = address.rpartition(":")
    began = time.monotonic()
    with socket.create_connection((host, int(port)), PATIENCE_S + 5) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # Who hears a refusal need not go on.
        with suppress(OSError):
            send(connection, request)
        if request.leaves == "resets":
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return Answer("nothing", text="hung up", took_s=time.monotonic() - began)
        code, reason, text = heard(connection, request.method)
    return Answer(code, reason, text, time.monotonic() - began)


def send(connection: socket.socket, request: WebRequest) -> None:
    """Send as much as its caller wants to say."""
    sent = list(request.pieces())
    left = sum(map(len, sent)) * request.part // 100
    for piece in sent:
        start = 0
        if request.leaves == "drips":
            for start in range(1, min(DRIPS, len(piece), left) + 1):
                connection.sendall(piece[start - 1 : start])
        connection.sendall(piece[start:left])
        left -= min(left, len(piece))
    if request.leaves == "half-closes":
        connection.shutdown(socket.SHUT_WR)


def heard(connection: socket.socket, method: str) -> tuple[str, str, str]:
    """Return status, reason and text of an answer; `nothing` if none came, and what is odd."""
    response = HTTPResponse(connection, method=method)
    try:
        response.begin()
        if response.status < 400 or method == "HEAD":
            return str(response.status), "", ""
        if response.getheader("Content-Type") != PROBLEM:
            return "no problem", "", f"{response.status}: {response.read(300)!r}"
        problem = json.loads(response.read(MIB))
    except (OSError, RemoteDisconnected) as error:
        return "nothing", "", repr(error)
    except (HTTPException, ValueError) as error:
        return "garbage", "", repr(error)
    finally:
        response.close()
    return str(response.status), str(problem.get("reason", "")), str(problem["detail"])[:300]
