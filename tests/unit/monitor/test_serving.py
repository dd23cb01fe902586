# SPDX-License-Identifier: Apache-2.0
"""The HTTP server: what it answers, and that nobody can keep it busy."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import threading
from collections.abc import Callable, Iterator
from http.client import HTTPConnection, HTTPResponse

import pytest

from xdpkit.errors import KernelRefused, UsageError
from xdpkit.monitor import serving
from xdpkit.monitor.serving import MOST_CONNECTIONS, Answer, Response, Server, listen, url

# Only ends a test that has failed anyway.
_LONG_S = 30.0


class Running:
    """A server in a thread."""

    def __init__(self, answer: Answer) -> None:
        self.said: list[str] = []
        self._listening = listen("127.0.0.1:0")
        self.port: int = self._listening.getsockname()[1]
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._server = Server(self._listening, answer, self.said.append)
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        self._loop.run_until_complete(self._server.until(self._stop))
        self._loop.close()

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(_LONG_S)
        assert not self._thread.is_alive()

    def ask(self, path: str, method: str = "GET", **headers: str) -> tuple[HTTPResponse, bytes]:
        with contextlib.closing(HTTPConnection("127.0.0.1", self.port, _LONG_S)) as connection:
            connection.request(method, path, headers=headers)
            response = connection.getresponse()
            return response, response.read()

    def connect(self, data: bytes = b"") -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", self.port), _LONG_S)
        connection.sendall(data)
        return connection

    def say(self, data: bytes) -> bytes:
        with self.connect(data) as connection:
            return read_all(connection)


def read_all(connection: socket.socket) -> bytes:
    """Read until the other end closes."""
    parts = []
    with contextlib.suppress(ConnectionResetError):
        while part := connection.recv(1 << 16):
            parts.append(part)
    return b"".join(parts)


def send_until_closed(connection: socket.socket) -> None:
    """Send, without reading, until the other end closes, which an error tells."""
    while True:
        connection.sendall(b"x" * 4096)


Start = Callable[[Answer], Running]


@pytest.fixture
def start() -> Iterator[Start]:
    running: list[Running] = []

    def begin(answer: Answer) -> Running:
        running.append(Running(answer))
        return running[-1]

    yield begin
    for each in running:
        each.stop()


def echo(path: str, accept: str) -> Response:
    return Response(f"{path} for {accept}".encode())


def test_a_page_is_answered_by_its_path_and_what_is_accepted(start: Start) -> None:
    response, body = start(echo).ask("/metrics?collect=all", Accept="text/plain")
    assert response.status == 200
    assert body == b"/metrics for text/plain"
    assert response.headers["Content-Length"] == str(len(body))
    assert response.headers["Content-Type"] == "text/plain; charset=utf-8"


@pytest.mark.parametrize(
    ("target", "path"),
    [
        ("http://host:9435/metrics", "/metrics"),
        ("HTTP://[::1]:9435/metrics?collect=all", "/metrics"),
        ("http://host", "/"),
        ("http://host?collect=all", "/"),
        ("/http://host/metrics", "/http://host/metrics"),
        ("//metrics", "//metrics"),
    ],
)
def test_the_host_may_stand_before_the_path(start: Start, target: str, path: str) -> None:
    answer = start(echo).say(f"GET {target} HTTP/1.1\r\nHost: host\r\n\r\n".encode())
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert answer.endswith(f"\r\n\r\n{path} for ".encode())


def test_an_empty_line_before_a_request_is_no_part_of_it(start: Start) -> None:
    assert start(echo).say(b"\r\nGET /x HTTP/1.0\r\n\r\n").endswith(b"/x for ")


def test_head_is_answered_without_the_page(start: Start) -> None:
    response, body = start(echo).ask("/metrics", "HEAD", Accept="x")
    assert (response.status, body) == (200, b"")
    assert response.headers["Content-Length"] == str(len("/metrics for x"))


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "get"])
def test_other_methods_are_refused(start: Start, method: str) -> None:
    response, _ = start(echo).ask("/metrics", method)
    assert (response.status, response.headers["Allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"\x16\x03\x01\x02\r\n\r\n", 400),
        (b"GET /metrics\r\n\r\n", 400),
        (b"GET /met rics HTTP/1.1\r\n\r\n", 400),
        (b"GET / SMTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1x\r\n\r\n", 400),
        (b"GET / HTTP/1.\r\n\r\n", 400),
        (b"GET / HTTP/2.0\r\n\r\n", 400),
        (b"GET  HTTP/1.1\r\n\r\n", 400),
        (b"GET metrics HTTP/1.1\r\n\r\n", 400),
        (b"GET ?collect HTTP/1.1\r\n\r\n", 400),
        (b"GET * HTTP/1.1\r\n\r\n", 400),
        (b"GET http:///metrics HTTP/1.1\r\n\r\n", 400),
        (b"GET ftp://host/metrics HTTP/1.1\r\n\r\n", 400),
        (b"CONNECT host:443 HTTP/1.1\r\n\r\n", 405),
        (b" \r\n\r\n", 400),
        (b"\xff\0\x7f / HTTP/1.1\r\n\r\n", 405),
        (b"GET / HTTP/1.1\r\n" + b":\r\n" * 5_000 + b"\r\n", 200),
        (b"GET / HTTP/1.1\r\n" + b"accept" * 2_000 + b"\r\n\r\n", 200),
        (b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 10_000 + b"\r\n", 431),
        (b"GET /" + b"a" * 100_000, 431),
    ],
    ids=[
        "tls",
        "http-0.9",
        "space",
        "protocol",
        "version",
        "half a version",
        "another version",
        "no target",
        "no path",
        "query only",
        "asterisk",
        "no host",
        "another scheme",
        "authority",
        "blank",
        "bytes",
        "headers without names",
        "a header without a value",
        "headers",
        "path",
    ],
)
def test_whatever_comes_is_answered(start: Start, request_: bytes, status: int) -> None:
    with start(echo).connect() as connection:
        # The server may answer, and close, before all of it is sent.
        with contextlib.suppress(ConnectionError):
            connection.sendall(request_)
        answer = connection.recv(64)
    assert answer.startswith(b"HTTP/1.1 %d " % status)


def test_who_goes_without_asking_is_no_matter(start: Start) -> None:
    running = start(echo)
    with running.connect(b"GET / HT") as connection:
        connection.shutdown(socket.SHUT_WR)
        assert read_all(connection) == b""
    assert running.ask("/")[0].status == 200
    assert running.said == []


def test_a_page_that_cannot_be_made_is_told_and_the_others_are_answered(start: Start) -> None:
    def answer(path: str, accept: str) -> Response:
        if path == "/bad":
            raise LookupError("no such thing")
        return echo(path, accept)

    running = start(answer)
    assert running.ask("/bad")[0].status == 500
    assert running.said == ["cannot answer: unexpected LookupError: no such thing"]
    assert running.ask("/")[0].status == 200


def test_a_large_page_comes_as_a_whole(start: Start) -> None:
    page = bytes(range(256)) * 20_000
    assert start(lambda path, accept: Response(page)).ask("/")[1] == page


def test_when_there_are_too_many_connections_the_oldest_goes(start: Start) -> None:
    running = start(echo)
    with contextlib.ExitStack() as resources:
        idle = [resources.enter_context(running.connect(b"G")) for _ in range(MOST_CONNECTIONS)]
        for _ in range(3):
            assert running.ask("/")[0].status == 200
        # Three came and went, one after the other: the first made room for them.
        assert read_all(idle[0]) == b""
        idle[1].sendall(b"ET /late HTTP/1.1\r\n\r\n")
        assert b"/late" in read_all(idle[1])


def test_many_at_once_are_never_more_than_the_limit(start: Start) -> None:
    running = start(echo)
    with contextlib.ExitStack() as resources:
        idle = [resources.enter_context(running.connect()) for _ in range(5 * MOST_CONNECTIONS)]
        assert running.ask("/")[0].status == 200
        # The last ones, less the one that asked.
        for each in idle[: -MOST_CONNECTIONS + 1]:
            assert read_all(each) == b""
        for each in idle[-MOST_CONNECTIONS + 1 :]:
            each.sendall(b"GET / HTTP/1.1\r\n\r\n")
            assert b"200 OK" in read_all(each)


def test_a_client_that_is_slow_to_ask_is_dropped(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "LONGEST_S", 0.05)
    assert start(echo).say(b"GET / HTTP/1.1\r\n") == b""


def test_a_client_that_does_not_take_the_answer_is_dropped(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = b"x" * (64 << 20)
    running = start(lambda path, accept: Response(page if path == "/big" else b""))
    with monkeypatch.context() as patch:
        patch.setattr(serving, "LONGEST_S", 0.2)
        stuck = running.connect(b"GET /big HTTP/1.1\r\n\r\n")
        # Then it is being answered, and its time is set.
        stuck.recv(1)
    with stuck:
        assert running.ask("/")[0].status == 200
        with pytest.raises(ConnectionError):
            send_until_closed(stuck)


def test_connections_that_are_open_do_not_keep_it_from_ending(start: Start) -> None:
    running = start(echo)
    with running.connect(b"GET /") as idle:
        assert running.ask("/")[0].status == 200
        running.stop()
        assert read_all(idle) == b""
    with pytest.raises(ConnectionRefusedError):
        running.connect()
    running.stop = lambda: None  # type: ignore[method-assign]


def test_port_0_is_any_free_port_and_the_url_has_it() -> None:
    with listen("127.0.0.1:0") as one, listen("127.0.0.1:0") as other:
        assert url(one, "/metrics") == f"http://127.0.0.1:{one.getsockname()[1]}/metrics"
        assert url(one, "/") != url(other, "/")


def has_ipv6() -> bool:
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET6) as any_socket:
        any_socket.bind(("::1", 0))
        return True
    return False


@pytest.mark.skipif(not has_ipv6(), reason="this host has no ::1")
def test_an_ipv6_address_stands_in_brackets() -> None:
    with listen("[::1]:0") as listening:
        port = listening.getsockname()[1]
        assert url(listening, "/metrics") == f"http://[::1]:{port}/metrics"
        socket.create_connection(("::1", port), _LONG_S).close()


@pytest.mark.skipif(not has_ipv6(), reason="this host has no ::1")
def test_every_address_of_ipv6_is_every_address_of_ipv4_too() -> None:
    with listen("[::]:0") as listening:
        socket.create_connection(("127.0.0.1", listening.getsockname()[1]), _LONG_S).close()


@pytest.mark.parametrize(
    ("address", "text"),
    [
        ("", "it is no address with a port, such as 127.0.0.1:9435"),
        ("9435", "it is no address with a port, such as 127.0.0.1:9435"),
        ("127.0.0.1", "it is no address with a port, such as 127.0.0.1:9435"),
        ("127.0.0.1:", "it is no address with a port, such as 127.0.0.1:9435"),
        ("127.0.0.1:http", "it is no address with a port, such as 127.0.0.1:9435"),
        ("127.0.0.1:65536", "it is no address with a port, such as 127.0.0.1:9435"),
        ("127.0.0.1:-1", "it is no address with a port, such as 127.0.0.1:9435"),
        (f"127.0.0.1:{'9' * 5000}", "it is no address with a port, such as 127.0.0.1:9435"),
        ("127.0.0.1:²", "it is no address with a port, such as 127.0.0.1:9435"),
        (
            "::1:9435",
            "an IPv6 address stands in brackets\nRemedy: write [::1]:9435",
        ),
        *(
            (
                f"{host}:9435",
                f"{host!r} is no IP address of a host, and names are not looked up\n"
                "Remedy: 127.0.0.1:9435 is for this host only, [::]:9435 for all",
            )
            for host in ("", "localhost", "[]", "[x]", "1.2.3.400", "a\0b", "ü" * 300)
        ),
    ],
)
def test_what_is_no_address_is_refused(address: str, text: str) -> None:
    with pytest.raises(UsageError) as raised:
        listen(address)
    assert str(raised.value) == f"listen on {address}: {text}"


def test_an_address_in_use_is_refused_with_a_way_out() -> None:
    with listen("127.0.0.1:0") as listening:
        address = f"127.0.0.1:{listening.getsockname()[1]}"
        with pytest.raises(KernelRefused) as raised:
            listen(address)
    assert raised.value.errno == errno.EADDRINUSE
    assert str(raised.value) == (
        f"listen on {address}: another process listens there (EADDRINUSE)\n"
        "Remedy: choose another port: --listen 127.0.0.1:0 takes any free one"
    )


def test_an_address_of_another_host_is_refused() -> None:
    with pytest.raises(KernelRefused) as raised:
        # TEST-NET-1, RFC 5737.
        listen("192.0.2.1:0")
    assert str(raised.value) == (
        "listen on 192.0.2.1:0: no interface of this network namespace has that address"
        " (EADDRNOTAVAIL)"
    )
