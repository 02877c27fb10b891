"""What a node sends to see whether packets arrive (P04, P11, P39): a Perl program, its questions, and its answers.

Perl is what every Debian and Ubuntu has (perl-base is an essential package). `ping` is used where there is one:
nothing else that a bare host has sends a packet of a given size that may not be fragmented.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from kubewright.model.port_probe import Answer, Reach

SECONDS = 2
"""For one question. A lost TCP packet is sent again after 1 s (tcp(7)), and so is a question to DNS."""
LIFETIME = 10
"""Seconds after which the program ends, whatever happens."""
DNS_PORT = 53
SMALL = 56
"""What `ping` sends unless told otherwise, in bytes."""

# Arguments: seconds for one question, and for all, and the port of DNS. Standard input: a question a line, as
# `tcp ADDRESS PORT`, `dns ADDRESS NAME` or `ping ADDRESS SIZE`; all are asked at once. A line is printed for each
# that got an answer, or none in time, and none for what cannot be asked here.
PROBE = r"""
use strict; use Socket qw(:DEFAULT inet_pton pack_sockaddr_in6 AF_INET6); use POSIX ();
my ($seconds, $lifetime, $dns) = @ARGV;
alarm $lifetime; $| = 1; $SIG{PIPE} = 'IGNORE';
my $ticks = POSIX::sysconf(POSIX::_SC_CLK_TCK());
sub now { (POSIX::times())[0] / $ticks }
my (%open, @pings, $number);
sub told { my ($question, $text) = @_; print "@$question $text\n" }
sub failed {
  my ($question, $error) = @_; local $! = $error;
  told($question, $error == POSIX::ECONNREFUSED() ? 'refused' : "failed $!");
}
sub message {
  my ($id, $name) = @_;
  my $labels = join '', map { pack('C/a*', $_) } split /\./, $name;
  pack('n6', $id, 0x0100, 1, 0, 0, 0) . $labels . pack('Cnn', 0, 1, 1);
}
for my $question (map { [split] } <STDIN>) {
  my ($kind, $address, $what) = @$question;
  if ($kind eq 'ping') {
    next unless defined(my $child = open(my $output, '-|'));
    if (!$child) {
      open(STDERR, '>&', \*STDOUT); open(STDIN, '<', '/dev/null');
      exec qw(ping -n -c 1 -i 0.5 -M do), '-w', $seconds, '-s', $what, $address or POSIX::_exit(127);
    }
    push @pings, [$output, $question];
    next;
  }
  my $six = $address =~ /:/;
  my $udp = $kind eq 'dns';
  my $packed = inet_pton($six ? AF_INET6 : AF_INET, $address) or next;
  my $port = $udp ? $dns : $what;
  my $to = $six ? pack_sockaddr_in6($port, $packed) : pack_sockaddr_in($port, $packed);
  socket(my $socket, $six ? AF_INET6 : AF_INET, $udp ? SOCK_DGRAM : SOCK_STREAM, 0) or next;
  fcntl($socket, POSIX::F_SETFL(), POSIX::O_NONBLOCK()) or next;
  my $done = connect($socket, $to);
  if (!$done && $! != POSIX::EINPROGRESS()) { failed($question, $! + 0); next }
  if ($done && !$udp) { told($question, 'open'); next }
  my $one = { socket => $socket, question => $question, udp => $udp, end => now() + $seconds };
  if ($udp) {
    $one->{id} = ($$ + ++$number * 251) & 0xffff;
    $one->{again} = now() + $seconds / 2;
    syswrite($socket, $one->{message} = message($one->{id}, $what));
  }
  $open{fileno $socket} = $one;
}
while (%open) {
  my ($reads, $writes) = ('', '');
  for my $number (keys %open) {
    if ($open{$number}{udp}) { vec($reads, $number, 1) = 1 } else { vec($writes, $number, 1) = 1 }
  }
  select($reads, $writes, undef, 0.1);
  for my $number (keys %open) {
    my $one = $open{$number};
    if ($one->{udp} && vec($reads, $number, 1)) {
      if (defined sysread($one->{socket}, my $text, 4096)) {
        my ($id, $flags) = unpack 'n2', $text;
        next unless length $text >= 12 && $id == $one->{id} && $flags & 0x8000;
        told($one->{question}, 'answer ' . ($flags & 15));
      } else { next if $! == POSIX::EAGAIN(); failed($one->{question}, $! + 0) }
    } elsif (!$one->{udp} && vec($writes, $number, 1)) {
      my $error = unpack 'i', getsockopt($one->{socket}, SOL_SOCKET, SO_ERROR);
      $error ? failed($one->{question}, $error) : told($one->{question}, 'open');
    } elsif (now() > $one->{end}) { told($one->{question}, 'silent') }
    else {
      next unless $one->{udp} && $one->{again} && now() > $one->{again};
      $one->{again} = 0;
      syswrite($one->{socket}, $one->{message});
      next;
    }
    delete $open{$number};
  }
}
for (@pings) {
  my ($output, $question) = @$_;
  my $text = join '', <$output>;
  close $output;
  told($question, 'open') if $text =~ /bytes from/;
  told($question, "told $1") if $text !~ /bytes from/ && $text =~ /mtu ?= ?(\d+)/i;
  told($question, 'silent') if $text !~ /bytes from|mtu ?=/i && $text =~ /\b0 received/;
}
print "end\n";
"""


class Question(NamedTuple):
    """What is asked: `tcp` of a port, `dns` for a name, or `ping` with so many bytes."""

    kind: str
    address: str
    what: str


@dataclass(frozen=True, slots=True)
class Probed:
    """What became of a node's questions. What could not be asked is not there."""

    tcp: Mapping[tuple[str, int], Answer] = field(default_factory=dict)
    """By address and port."""
    pings: Mapping[tuple[str, int], str] = field(default_factory=dict)
    """By address and size: `open`, `silent`, or `told` where somebody said how large a packet may be."""
    dns: tuple[str, ...] = ()
    """Of each question for the cluster's name: `answer` with DNS' code of it, or what went wrong."""

    def reaches(self, address: str, port: int) -> bool | None:
        """Whether a connection was made; None where it was not tried."""
        answer = self.tcp.get((address, port))
        return None if answer is None else answer.reach is Reach.OPEN


def probe_command(dns_port: int = DNS_PORT) -> list[str]:
    """The program; `probe_input` is what it reads."""
    return ["env", "LC_ALL=C", "perl", "-e", PROBE, str(SECONDS), str(LIFETIME), str(dns_port)]


def probe_input(questions: Iterable[Question]) -> bytes:
    """Questions as the program reads them."""
    return "".join(" ".join(one) + "\n" for one in questions).encode()


def parse_probed(text: str) -> Probed | None:
    """What the program printed; None where it did not come to its end."""
    lines = text.splitlines()
    if "end" not in lines:
        return None
    tcp: dict[tuple[str, int], Answer] = {}
    pings: dict[tuple[str, int], str] = {}
    dns = []
    for line in lines:
        match line.split(None, 4):
            case ["tcp", address, port, reach, *why] if port.isdecimal() and reach in set(Reach):
                answer = Answer(Reach(reach), " ".join(why) or _words(reach))
                # It may have been asked several times.
                if answer.reach is Reach.OPEN or (address, int(port)) not in tcp:
                    tcp[address, int(port)] = answer
            case ["ping", address, size, said, *_] if size.isdecimal():
                pings[address, int(size)] = said
            case ["dns", _, _, *said]:
                dns.append(" ".join(said))
    return Probed(tcp, pings, tuple(dns))


def _words(reach: str) -> str:
    return f"no answer in {SECONDS} s" if reach == Reach.SILENT else ""
