"""A TCP proxy on the loopback interface that limits, cuts, holds back and refuses, by what it is told while it runs.

Connections are forwarded to a target that is asked for anew at each of them, since a broker may come back at another port. The
proxy runs an event loop in a thread of its own; its methods may be called from any thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple

Address = tuple[str, int]
_CHUNK = 64 * 1024
#: A limited connection is fed in slices of about this length, so that a slow network is slow, not bursty.
_SLICE_S = 0.02
_TIMEOUT_S = 10


class Seen(NamedTuple):
    """What passed so far: connections that were made, that were cut, and bytes of both directions."""

    connections: int = 0
    cut: int = 0
    size_bytes: int = 0


class _Link:
    """One connection and its twin to the target. ``left``: bytes after which it is cut; ``None``: it is not."""

    def __init__(self, left: int | None, writers: tuple[asyncio.StreamWriter, asyncio.StreamWriter]) -> None:
        self.left, self._writers = left, writers

    def close(self) -> None:
        for writer in self._writers:
            writer.close()


class TcpProxy:
    """Start it, or use it as a context. Without a fault it forwards every byte."""

    def __init__(self, target: Callable[[], Address], port: int = 0) -> None:
        """``target()`` is where a new connection goes; ``OSError`` and ``LookupError`` of it refuse that connection."""
        self._target, self.port = target, port
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._server: asyncio.Server | None = None
        self._links: set[_Link] = set()
        self._pumps: set[asyncio.Task[None]] = set()
        self._per_s: int | None = None
        self._cut_after: int | None = None
        self._flows = asyncio.Event()
        self._flows.set()
        #: Until when the limited line is taken, on the loop's clock.
        self._taken_until = 0.0
        self._connections = self._cut = self._bytes = 0

    # --- from any thread ------------------------------------------------------------------------------------------------------
    def start(self) -> None:
        self._thread.start()
        self._do(self._listen())

    def stop(self) -> None:
        """Cut every connection and give the port back."""
        self._do(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_TIMEOUT_S)
        self._loop.close()

    def limit(self, bytes_per_s: int) -> None:
        """All connections together pass so many bytes a second, both directions counted."""
        self._do(self._set(per_s=bytes_per_s))

    def cut_after(self, size_bytes: int) -> None:
        """Every connection, old and new, is cut once so many more bytes have passed through it: in the middle of a message."""
        self._do(self._set(cut_after=size_bytes))

    def hold(self) -> None:
        """Connections stay and new ones are accepted, and not one byte passes."""
        self._do(self._set(flows=False))

    def refuse(self) -> None:
        """Cut every connection and refuse new ones."""
        self._do(self._refuse())

    def heal(self) -> None:
        """Forward everything again; what was cut stays cut."""
        self._do(self._heal())

    @property
    def seen(self) -> Seen:
        return Seen(self._connections, self._cut, self._bytes)

    def __enter__(self) -> TcpProxy:
        self.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self.stop()

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(_TIMEOUT_S)

    # --- in the loop ----------------------------------------------------------------------------------------------------------
    async def _listen(self) -> None:
        if self._server is None:
            self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port, limit=_CHUNK)
            self.port = self._server.sockets[0].getsockname()[1]

    async def _close(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        for link in list(self._links):
            self._cut += 1
            link.close()
        self._links.clear()
        for pump in list(self._pumps):
            pump.cancel()
        await asyncio.gather(*self._pumps, return_exceptions=True)

    async def _refuse(self) -> None:
        await self._close()

    async def _set(self, per_s: int | None = None, cut_after: int | None = None, flows: bool = True) -> None:
        self._per_s, self._cut_after = per_s, cut_after
        self._taken_until = self._loop.time()
        for link in self._links:
            link.left = cut_after
        if flows:
            self._flows.set()
        else:
            self._flows.clear()

    async def _heal(self) -> None:
        await self._set()
        await self._listen()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection(*self._target(), limit=_CHUNK)
        except (OSError, LookupError):
            writer.close()
            return
        self._connections += 1
        link = _Link(self._cut_after, (writer, far_writer))
        self._links.add(link)
        for one in (writer, far_writer):
            # What was written has left this process before more is read: a cut is then exact.
            one.transport.set_write_buffer_limits(high=0)
        for source, sink in ((reader, far_writer), (far_reader, writer)):
            pump = self._loop.create_task(self._pump(link, source, sink))
            self._pumps.add(pump)
            pump.add_done_callback(self._pumps.discard)

    async def _pump(self, link: _Link, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(self._slice()):
                await self._flows.wait()
                await self._pace(len(data))
                # Another direction may have used the allowance up meanwhile.
                passed = data if link.left is None else data[: link.left]
                # Counted first: whoever has received it may ask at once.
                self._bytes += len(passed)
                sink.write(passed)
                if link.left is not None:
                    link.left -= len(passed)
                await sink.drain()
                if link.left == 0:
                    self._cut += link in self._links
                    break
        self._links.discard(link)
        link.close()

    def _slice(self) -> int:
        return _CHUNK if self._per_s is None else max(1, min(_CHUNK, int(self._per_s * _SLICE_S)))

    async def _pace(self, size_bytes: int) -> None:
        """Wait for a place on the line, which all connections share."""
        if self._per_s is None:
            return
        now = self._loop.time()
        self._taken_until = max(self._taken_until, now) + size_bytes / self._per_s
        await asyncio.sleep(self._taken_until - now)
