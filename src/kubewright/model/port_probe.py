"""Whether ports can be reached, before anybody listens on them: two Perl programs, and what they print.

Perl is the one interpreter that every Debian and Ubuntu has (perl-base is an essential package); only modules of
that package are used.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

NAME = "kubewright-prob"
"""What a listener is called among the host's processes, whose names have 15 characters."""
LIFETIME = 120
"""Seconds after which a listener ends, whatever happens."""
PATIENCE = 4
"""Seconds that a connection is waited for: Linux asks again after 1 s and after 3 s (tcp(7), tcp_syn_retries)."""

_AT_ONCE = 800

# Arguments: a name of its own, seconds to live, the address, the ports. Whoever connects to its socket in the
# abstract name space (unix(7)) is told the ports that it does not have, and why; who says `stop` there ends it. It
# writes a dot a second, so that it also ends when nobody is there to read that: with its connection.
LISTEN = r"""
use strict; use Socket;
my ($name, $seconds, $address, @ports) = @ARGV;
$0 = 'kubewright-probe'; $| = 1; alarm $seconds;
my (@listeners, $report, %open);
for my $port (@ports) {
  socket(my $socket, AF_INET, SOCK_STREAM, 0) or die "socket: $!\n";
  setsockopt($socket, SOL_SOCKET, SO_REUSEADDR, 1);
  if (bind($socket, sockaddr_in($port, inet_aton($address))) && listen($socket, 1024)) { push @listeners, $socket }
  else { $report .= "$port $!\n" }
}
socket(my $control, AF_UNIX, SOCK_STREAM, 0) or die "socket: $!\n";
bind($control, pack_sockaddr_un("\0$name")) && listen($control, 8) or die "control: $!\n";
while (1) {
  my $wanted = '';
  vec($wanted, fileno($_), 1) = 1 for @listeners, $control, values %open;
  my $found = select(my $ready = $wanted, undef, undef, 1);
  if ($found <= 0) { syswrite(STDOUT, '.'); next }
  for my $socket (@listeners, $control) {
    next unless vec($ready, fileno($socket), 1) && accept(my $client, $socket);
    $open{fileno $client} = $client;
    syswrite($client, ($report // '') . "ready\n") if $socket == $control;
  }
  for my $number (keys %open) {
    next unless vec($ready, $number, 1);
    my $read = sysread($open{$number}, my $text, 64);
    exit 0 if $read && $text =~ /^stop/ && sockaddr_family(getsockname($open{$number})) == AF_UNIX;
    delete $open{$number} unless $read;
  }
}
"""

# Arguments: the listener's name, seconds to wait for it, and what to say to it.
CONTROL = r"""
use strict; use Socket;
my ($name, $seconds, $word) = @ARGV;
alarm $seconds;
socket(my $control, AF_UNIX, SOCK_STREAM, 0) or die "socket: $!\n";
until (connect($control, pack_sockaddr_un("\0$name"))) {
  exit 0 if $word eq 'stop';
  select(undef, undef, undef, 0.02);
}
if ($word eq 'stop') { syswrite($control, "stop\n"); 1 while sysread($control, my $text, 4096); exit 0 }
while (my $line = <$control>) { last if $line eq "ready\n"; print $line }
"""

# Arguments: seconds for one connection, and how many are made at once, as far as open files allow. Standard
# input: an address and a port a line. They are closed when they are open.
CONNECT = r"""
use strict; use Socket; use POSIX ();
my ($seconds, $most) = @ARGV;
my @ways = map { [split] } <STDIN>;
my $ticks = POSIX::sysconf(POSIX::_SC_CLK_TCK());
sub now { (POSIX::times())[0] / $ticks }
sub say_of { my ($way, $error) = @_; local $! = $error; printf "%s %s %s\n", @$way[0, 1],
  $error == 0 ? 'open' : $error == POSIX::ECONNREFUSED() ? 'refused' : $error < 0 ? 'silent' : "failed $!" }
my %open;
while (@ways || %open) {
  while (@ways && keys %open < $most) {
    socket(my $socket, AF_INET, SOCK_STREAM, 0) or %open ? last : die "socket: $!\n";
    my $way = shift @ways;
    fcntl($socket, POSIX::F_SETFL(), POSIX::O_NONBLOCK()) or die "fcntl: $!\n";
    if (connect($socket, sockaddr_in($way->[1], inet_aton($way->[0])))) { say_of($way, 0) }
    elsif ($! == POSIX::EINPROGRESS()) { $open{fileno $socket} = [$socket, $way, now() + $seconds] }
    else { say_of($way, $! + 0) }
  }
  next unless %open;
  my $wanted = '';
  vec($wanted, $_, 1) = 1 for keys %open;
  select(undef, my $ready = $wanted, undef, 0.1);
  for my $number (keys %open) {
    my ($socket, $way, $end) = @{$open{$number}};
    if (vec($ready, $number, 1)) { say_of($way, unpack 'i', getsockopt($socket, SOL_SOCKET, SO_ERROR)) }
    elsif (now() > $end) { say_of($way, -1) }
    else { next }
    delete $open{$number};
  }
}
"""


class Reach(StrEnum):
    """How a connection went."""

    OPEN = "open"
    REFUSED = "refused"
    """By the host itself where nobody listens, or by a firewall that rejects."""
    SILENT = "silent"
    """No answer at all: a firewall that drops, or nobody has that address."""
    FAILED = "failed"
    """The network says that there is no way."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of one connection."""

    reach: Reach
    why: str = ""
    """The system's words for `FAILED`."""

    def __str__(self) -> str:
        words = {Reach.REFUSED: "connection refused", Reach.SILENT: f"no answer in {PATIENCE} s"}
        return self.why or words.get(self.reach, str(self.reach))


def without_ours(listening: Mapping[int, str]) -> dict[int, str]:
    """Ports that are listened on, without those of a listener whose run was killed and which is about to end."""
    return {port: holder for port, holder in listening.items() if holder != NAME}


def listen_command(name: str, address: str, ports: Iterable[int]) -> list[str]:
    """The listener. `name` must be nobody else's on that host."""
    return ["env", "LC_ALL=C", "perl", "-e", LISTEN, name, str(LIFETIME), address, *map(str, ports)]


def control_command(name: str, word: str, seconds: int = 10) -> list[str]:
    """`ready` waits until the listener listens and prints what it does not have; `stop` ends it."""
    return ["env", "LC_ALL=C", "perl", "-e", CONTROL, name, str(seconds), word]


def connect_command() -> list[str]:
    """Connections to what `connect_input` has."""
    return ["env", "LC_ALL=C", "perl", "-e", CONNECT, str(PATIENCE), str(_AT_ONCE)]


def connect_input(targets: Iterable[tuple[str, int]]) -> bytes:
    """Addresses and ports as the program reads them."""
    return "".join(f"{address} {port}\n" for address, port in targets).encode()


def parse_report(text: str) -> dict[int, str]:
    """The ports that a listener does not have, and why."""
    rows = (line.partition(" ") for line in text.splitlines())
    return {int(port): why for port, _, why in rows if port.isdecimal()}


def parse_answers(text: str) -> Mapping[tuple[str, int], Answer]:
    """What became of the connections, by address and port. Lines that say something else are passed over."""
    found = {}
    for line in text.splitlines():
        match line.split(None, 3):
            case [address, port, reach, *why] if port.isdecimal() and reach in Reach.__members__.values():
                found[address, int(port)] = Answer(Reach(reach), why[0] if why else "")
    return found


def seconds_for(targets: Sequence[object]) -> float:
    """How long a run of so many connections may take, all of them silent, and its host slow."""
    return 20.0 + PATIENCE * 2 * (1 + len(targets) // _AT_ONCE)
