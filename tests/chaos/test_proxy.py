"""The proxy alone, against a server that echoes: forwards every byte; limits, cuts, holds back and refuses, and heals."""

from __future__ import annotations

import contextlib
import socket
import socketserver
import threading
import time
from collections.abc import Iterator

import pytest

from tests.chaos.proxy import TcpProxy

_TIMEOUT_S = 20


class _Echo(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        with contextlib.suppress(OSError):
            while data := self.request.recv(65_536):
                self.request.sendall(data)


@pytest.fixture
def echo() -> Iterator[tuple[str, int]]:
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Echo) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address
        server.shutdown()


@pytest.fixture
def proxy(echo: tuple[str, int]) -> Iterator[TcpProxy]:
    with TcpProxy(lambda: echo) as running:
        yield running


def connect(proxy: TcpProxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), _TIMEOUT_S)


def receive(connection: socket.socket, size_bytes: int) -> bytes:
    """So many bytes, or fewer where the connection ends."""
    out = b""
    while len(out) < size_bytes:
        try:
            data = connection.recv(65_536)
        except ConnectionError:
            break
        if not data:
            break
        out += data
    return out


def talk(connection: socket.socket, data: bytes) -> bytes:
    """What comes back; written from a thread, so that neither side waits for the other."""
    writing = threading.Thread(target=_send, args=(connection, data))
    writing.start()
    out = receive(connection, len(data))
    writing.join(_TIMEOUT_S)
    return out


def _send(connection: socket.socket, data: bytes) -> None:
    with contextlib.suppress(OSError):
        connection.sendall(data)


def test_every_byte_is_forwarded_on_many_connections(proxy: TcpProxy) -> None:
    data = bytes(range(256)) * 4_000
    with contextlib.ExitStack() as stack:
        for _ in range(3):
            assert talk(stack.enter_context(connect(proxy)), data) == data
    assert proxy.seen.connections == 3 and proxy.seen.cut == 0
    assert proxy.seen.size_bytes == 6 * len(data)


def test_all_connections_share_the_limit(proxy: TcpProxy) -> None:
    with connect(proxy) as first, connect(proxy) as second:
        assert talk(first, b"warm") == b"warm" and talk(second, b"warm") == b"warm"
        proxy.limit(100_000)
        began = time.monotonic()
        other = threading.Thread(target=talk, args=(second, b"y" * 10_000))
        other.start()
        assert talk(first, b"x" * 10_000) == b"x" * 10_000
        other.join(_TIMEOUT_S)
        # 40,000 bytes of both directions and both connections.
        assert time.monotonic() - began >= 0.35
        proxy.heal()
        assert talk(first, b"z" * 1_000_000) == b"z" * 1_000_000


@pytest.mark.parametrize("after", [1, 7, 5_000])
def test_a_connection_is_cut_in_the_middle_of_a_message(proxy: TcpProxy, after: int) -> None:
    with connect(proxy) as old:
        assert talk(old, b"warm") == b"warm"
        proxy.cut_after(after)
        with connect(proxy) as new:
            before = proxy.seen.size_bytes
            for number, connection in enumerate((old, new), start=1):
                assert len(talk(connection, b"x" * 20_000)) < 20_000
                assert connection.recv(1) == b""
                assert proxy.seen.size_bytes == before + number * after, "to the byte"
    assert proxy.seen.cut == 2
    proxy.heal()
    with connect(proxy) as healed:
        assert talk(healed, b"x" * 20_000) == b"x" * 20_000


def test_what_is_held_back_comes_later(proxy: TcpProxy) -> None:
    with connect(proxy) as old:
        assert talk(old, b"warm") == b"warm"
        proxy.hold()
        with connect(proxy) as new:
            for connection in (old, new):
                connection.sendall(b"held")
                connection.settimeout(0.2)
                with pytest.raises(TimeoutError):
                    connection.recv(1)
                connection.settimeout(_TIMEOUT_S)
            proxy.heal()
            assert [receive(connection, 4) for connection in (old, new)] == [b"held", b"held"]


def test_it_refuses_for_a_while_and_listens_again_at_the_same_port(proxy: TcpProxy) -> None:
    port = proxy.port
    with connect(proxy) as old:
        assert talk(old, b"warm") == b"warm"
        proxy.refuse()
        assert receive(old, 1) == b""
        with pytest.raises(ConnectionRefusedError):
            connect(proxy)
        proxy.heal()
        assert proxy.port == port
        with connect(proxy) as new:
            assert talk(new, b"again") == b"again"


def test_a_target_that_is_away_or_unknown_ends_the_connection(echo: tuple[str, int]) -> None:
    places: list[tuple[str, int]] = []
    with TcpProxy(lambda: places[0]) as proxy:
        with connect(proxy) as early:
            assert receive(early, 1) == b""
        with socket.socket() as closed:
            closed.bind(("127.0.0.1", 0))
            places.append(closed.getsockname())
            with connect(proxy) as away:
                assert receive(away, 1) == b""
        # It came back at another port.
        places[0] = echo
        with connect(proxy) as back:
            assert talk(back, b"here") == b"here"
