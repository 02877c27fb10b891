"""Tunnels: connections made here that a host continues, to a port or a unix socket that it can reach."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Any

import asyncssh

from kubewright.errors import ExitCode, HostError

_BLOCK = 1 << 17
_CHECK = 2.0

Ends = tuple[asyncssh.SSHReader[bytes], asyncssh.SSHWriter[bytes]]
Opener = Callable[[], AbstractAsyncContextManager[Ends]]
"""Opens one connection to a tunnel's target, on whatever SSH connection the host has at that moment."""

# Carries one connection to a socket that only root may open: $1 is the socket. A "+" says that it is connected.
# perl is on every Debian, and python3 on nearly everything else.
RELAY = r"""
if command -v perl >/dev/null; then exec perl -e '
  use Socket;
  socket(S, PF_UNIX, SOCK_STREAM, 0) && connect(S, sockaddr_un($ARGV[0])) or die "$!\n";
  syswrite(STDOUT, "+");
  sub copy { my ($from, $to) = @_; my $b;
    while (sysread($from, $b, 65536)) { my $o = 0;
      while ($o < length $b) { $o += syswrite($to, $b, length($b) - $o, $o) // exit 1 } } }
  my $child = fork // die "$!\n";
  if (!$child) { copy(\*STDIN, \*S); shutdown(S, 1); exit }
  copy(\*S, \*STDOUT); kill "TERM", $child; wait
' "$1"; fi
for python in python3 /usr/libexec/platform-python; do
  if command -v "$python" >/dev/null; then exec "$python" -c '
import os, socket, sys, threading
s = socket.socket(socket.AF_UNIX)
try: s.connect(sys.argv[1])
except OSError as error: sys.exit(error.strerror)
os.write(1, b"+")
def up():
    while b := os.read(0, 65536): s.sendall(b)
    s.shutdown(socket.SHUT_WR)
threading.Thread(target=up, daemon=True).start()
while b := s.recv(65536):
    while b: b = b[os.write(1, b):]
os._exit(0)
' "$1"; fi
done
echo 'there is neither perl nor python3' >&2
exit 69
"""


async def check_tcp(opened: Opener, host: str, where: str) -> None:
    """Raise `HostError` where sshd forbids a tunnel. Anything else may still change: a port may open later."""
    try:
        async with asyncio.timeout(_CHECK), opened():
            pass
    except asyncssh.ChannelOpenError as error:
        if error.code == asyncssh.OPEN_ADMINISTRATIVELY_PROHIBITED:
            raise HostError(
                f"sshd on {host} forbids a tunnel to {where}",
                hint="set `AllowTcpForwarding yes` in its sshd_config", host=host,
                exit_code=ExitCode.HOST_NO_PRIVILEGE,
            ) from None  # fmt: skip
    except TimeoutError:  # an OSError, too
        pass
    except (asyncssh.Error, OSError) as error:
        raise HostError(f"the connection to {host} was lost: {error}", host=host) from None


async def check_unix(opened: Opener, host: str, path: str) -> None:
    """Raise `HostError` where a socket cannot be connected to. sshd says the same for each of the reasons."""
    try:
        async with asyncio.timeout(_CHECK), opened():
            pass
    except asyncssh.ChannelOpenError:
        raise HostError(
            f"{path} on {host} cannot be connected to",
            hint="is the service that listens there running, and does sshd allow it (AllowStreamLocalForwarding)?",
            host=host, exit_code=ExitCode.FAILURE,
        ) from None  # fmt: skip
    except TimeoutError:  # an OSError, too
        pass
    except (asyncssh.Error, OSError) as error:
        raise HostError(f"the connection to {host} was lost: {error}", host=host) from None


class Tunnel:
    """A server here whose connections are continued there, until it is closed with all of them."""

    def __init__(self, open_: Opener) -> None:
        self._open = open_
        self._tasks: set[asyncio.Task[Any]] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection: both directions at once, each ending when its source ends."""
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            # A target that refuses is, for our side, a connection that ends at once.
            with suppress(asyncssh.Error, OSError, HostError):
                async with self._open() as (far_reader, far_writer):
                    await asyncio.gather(_pump(reader, far_writer), _pump(far_reader, writer))
        except asyncio.CancelledError:
            pass  # by `serving`, which is the only one that cancels it
        finally:
            self._tasks.discard(task)
            writer.close()

    @asynccontextmanager
    async def serving(self, server: asyncio.Server) -> AsyncIterator[None]:
        """Keep the server up inside, and end it with all of its connections."""
        try:
            yield
        finally:
            server.close()
            for task in self._tasks:
                task.cancel()
            if self._tasks:
                await asyncio.wait(self._tasks, timeout=2)


async def _pump(source: Any, target: Any) -> None:
    with suppress(asyncssh.Error, OSError):
        while data := await source.read(_BLOCK):
            target.write(data)
            await target.drain()
        target.write_eof()
