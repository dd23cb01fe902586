# SPDX-License-Identifier: Apache-2.0
"""A small HTTP server for one page, which nobody can keep busy.

One thread, a bounded number of connections, and for each of them a bounded time: a client that is
slow to ask, or to take the answer, holds up nobody. When there are too many, the oldest goes.
Nothing is looked up in the DNS.
"""

from __future__ import annotations

import asyncio
import errno
import os
import re
import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus

from xdpkit.errors import KernelRefused, MissingPrivilege, UsageError, XdpkitError

MOST_CONNECTIONS = 16
LONGEST_S = 10.0
"""How long a connection may last, in seconds."""

_MOST_REQUEST = 16 << 10
_CHUNK = 64 << 10
_BACKLOG = 64
_HIGHEST_PORT = 65535
_PORT = re.compile(r"[0-9]{1,5}")

_VERSION = re.compile(r"HTTP/1\.[0-9]")
# RFC 9112, 3.2: a path, or, from clients that speak as to a proxy, with the host before it.
_TARGET = re.compile(
    r"(?P<host>http://[^/?#]+)?(?P<path>/[^?#]*)?(?:\?[^#]*)?", re.IGNORECASE | re.DOTALL
)


@dataclass(frozen=True, slots=True)
class Response:
    """An answer.

    Attributes:
        body: the page. content_type: its media type.
        status: the status. headers: more of them, with their values.
    """

    body: bytes
    content_type: str = "text/plain; charset=utf-8"
    status: HTTPStatus = HTTPStatus.OK
    headers: tuple[tuple[str, str], ...] = ()

    def encode(self, *, with_body: bool) -> bytes:
        """Return it as bytes, without the page for who asked by HEAD."""
        lines = [
            f"HTTP/1.1 {self.status.value} {self.status.phrase}",
            f"Content-Type: {self.content_type}",
            f"Content-Length: {len(self.body)}",
            "Connection: close",
            *(f"{name}: {value}" for name, value in self.headers),
        ]
        head = "\r\n".join([*lines, "", ""]).encode("ascii")
        return head + self.body if with_body else head


Answer = Callable[[str, str], Response]
"""Takes a path and the value of the header ``Accept``."""


def failure(status: HTTPStatus, *headers: tuple[str, str]) -> Response:
    """Return an answer that only says what is wrong."""
    return Response(f"{status.phrase}\n".encode(), status=status, headers=headers)


def listen(address: str) -> socket.socket:
    """Return a socket that listens on ``127.0.0.1:9435`` or ``[::1]:9435``; port 0: any free one.

    ``[::]`` is every address of this host, of IPv4, too.

    Raises:
        UsageError: it is no such address.
        MissingPrivilege: the port takes CAP_NET_BIND_SERVICE.
        KernelRefused: the port is taken, or the address is not one of this host's.
    """
    what = f"listen on {address}"
    family, place = _parsed(address, what)
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listening.bind(place)
        listening.listen(_BACKLOG)
    except OSError as error:
        listening.close()
        raise _refused(what, error.errno or 0) from None
    return listening


def url(listening: socket.socket, path: str) -> str:
    """Return where a path is found, with the port that the kernel chose."""
    host, port = listening.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}{path}"


def _parsed(address: str, what: str) -> tuple[socket.AddressFamily, tuple[object, ...]]:
    host, colon, port = address.rpartition(":")
    in_brackets = host.startswith("[") and host.endswith("]")
    if not colon or not _PORT.fullmatch(port) or int(port) > _HIGHEST_PORT:
        raise UsageError(what, cause="it is no address with a port, such as 127.0.0.1:9435")
    if ":" in host and not in_brackets:
        raise UsageError(
            what, cause="an IPv6 address stands in brackets", remedy=f"write [{host}]:{port}"
        )
    bare = host[1:-1] if in_brackets else host
    try:
        # With the flag that says that it is a number, nothing is looked up.
        found = socket.getaddrinfo(
            bare or "-", int(port), type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST
        )
    except (OSError, ValueError):
        raise UsageError(
            what,
            cause=f"{host!r} is no IP address of a host, and names are not looked up",
            remedy=f"127.0.0.1:{port} is for this host only, [::]:{port} for all",
        ) from None
    family, _, _, _, place = found[0]
    return family, place


def _refused(what: str, number: int) -> XdpkitError:
    if number == errno.EACCES:
        return MissingPrivilege(
            what,
            cause="so low a port takes CAP_NET_BIND_SERVICE, which this process lacks",
            remedy="choose another port: --listen 127.0.0.1:0 takes any free one",
        )
    if number == errno.EADDRINUSE:
        return KernelRefused(
            what,
            errno=number,
            cause="another process listens there",
            remedy="choose another port: --listen 127.0.0.1:0 takes any free one",
        )
    if number == errno.EADDRNOTAVAIL:
        cause = "no interface of this network namespace has that address"
        return KernelRefused(what, errno=number, cause=cause)
    return KernelRefused(what, errno=number, cause=os.strerror(number))


class Server:
    """Answers on a socket that listens."""

    def __init__(
        self, listening: socket.socket, answer: Answer, report: Callable[[str], None]
    ) -> None:
        """Prepare it.

        Args:
            listening: the socket; it is closed in the end.
            answer: answers a path; what it raises is told to ``report``, and the client that
                something went wrong.
            report: is told sentences for the operator.
        """
        self._listening = listening
        self._answer = answer
        self._report = report
        # In the order in which they came.
        self._open: dict[asyncio.Task[None], None] = {}

    def run(self, ready: Callable[[], None]) -> None:
        """Answer until SIGTERM or Ctrl-C; the main thread only.

        Where the process was told to ignore one of them, as a shell tells those that it runs in
        the background, it is ignored.

        Args:
            ready: is called when it can be asked, and a signal ends it as it should.
        """
        asyncio.run(self._until_signalled(ready))

    async def _until_signalled(self, ready: Callable[[], None]) -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) is not signal.SIG_IGN:
                loop.add_signal_handler(number, stop.set)
        ready()
        await self.until(stop)

    async def until(self, stop: asyncio.Event) -> None:
        """Answer until an event is set."""
        server = await asyncio.start_server(
            self._connected, sock=self._listening, limit=_MOST_REQUEST
        )
        try:
            await stop.wait()
        finally:
            server.close()
            for task in self._open:
                task.cancel()
            await asyncio.gather(*self._open, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        if len(self._open) >= MOST_CONNECTIONS:
            oldest = next(iter(self._open))
            # Now, not when it ends: another one that comes before that is to end another one.
            del self._open[oldest]
            oldest.cancel()
        self._open[task] = None
        try:
            async with asyncio.timeout(LONGEST_S):
                await self._talk(reader, writer)
                writer.close()
                await writer.wait_closed()
        except (OSError, asyncio.CancelledError):
            # It went, or it was too slow (a TimeoutError is an OSError), or others wait.
            pass
        finally:
            writer.transport.abort()
            self._open.pop(task, None)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            request = await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:
            return
        except asyncio.LimitOverrunError:
            writer.write(failure(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE).encode(with_body=True))
            return
        data = memoryview(self._response(request.decode("latin-1")))
        for start in range(0, len(data), _CHUNK):
            # In pieces, so that a client that does not read keeps one of them, not all.
            writer.write(data[start : start + _CHUNK])
            await writer.drain()

    def _response(self, request: str) -> bytes:
        # RFC 9112, 2.2: an empty line before a request is no part of it.
        first, *rest = request.removeprefix("\r\n").split("\r\n")
        words = first.split(" ")
        if len(words) != 3 or not _VERSION.fullmatch(words[2]):
            return failure(HTTPStatus.BAD_REQUEST).encode(with_body=True)
        method, target, _ = words
        if method not in ("GET", "HEAD"):
            refused = failure(HTTPStatus.METHOD_NOT_ALLOWED, ("Allow", "GET, HEAD"))
            return refused.encode(with_body=True)
        path = _path(target)
        if path is None:
            return failure(HTTPStatus.BAD_REQUEST).encode(with_body=method == "GET")
        headers = dict(_header(line) for line in rest if ":" in line)
        try:
            found = self._answer(path, headers.get("accept", ""))
        except Exception as error:
            # One page that cannot be made is no reason to leave the others unanswered.
            self._report(f"cannot answer: unexpected {type(error).__qualname__}: {error}")
            found = failure(HTTPStatus.INTERNAL_SERVER_ERROR)
        return found.encode(with_body=method == "GET")


def _path(target: str) -> str | None:
    """Return the path of what was asked for, None if that is no target of a request."""
    found = _TARGET.fullmatch(target)
    if found is None or not (found["host"] or found["path"]):
        return None
    return found["path"] or "/"


def _header(line: str) -> tuple[str, str]:
    name, _, value = line.partition(":")
    return name.strip().lower(), value.strip()
