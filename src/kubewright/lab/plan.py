"""What a lab consists of: names, addresses and links, all derived from its name, its subnet and two counts."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import Any

from kubewright.errors import ConfigError, ExitCode, KubewrightError

MAX_MACHINES = 89
"""Of each role: the last byte of an address is 11 to 99 for a control plane, and 101 and more for a worker."""

POOLS = (IPv4Network("10.213.0.0/16"), IPv4Network("172.29.0.0/16"), IPv4Network("192.168.128.0/17"))
"""Where labs take their /24 subnets from; none overlaps the default Pod or service subnet."""

_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,30}[a-z0-9])?")
_MACHINE = re.compile(r"(cp|w)([1-9][0-9]?)")
_FIRST = {"cp": 10, "w": 100}


@dataclass(frozen=True, slots=True)
class MachinePlan:
    """One machine of a lab."""

    name: str
    """`cp1`, `w2`: its host name, and so its node's name."""
    address: IPv4Address

    @property
    def control_plane(self) -> bool:
        """Whether the machine is meant for a control plane."""
        return self.name.startswith("cp")

    @property
    def port(self) -> str:
        """The name of the machine's link on the lab's bridge."""
        return f"m-{self.name}"

    @property
    def mac(self) -> str:
        """A locally administered address of its own for each machine, the same after each boot."""
        return "02:6b:" + ":".join(f"{byte:02x}" for byte in self.address.packed)


@dataclass(frozen=True, slots=True)
class LabPlan:
    """A lab as it is to be. It is written down once, because certificates hold the addresses in it."""

    name: str
    subnet: IPv4Network
    machines: tuple[MachinePlan, ...]

    @property
    def gateway(self) -> IPv4Address:
        """The bridge's own address, the machines' default gateway. It leads nowhere and says so at once."""
        return self.subnet[1]

    @property
    def computer_address(self) -> IPv4Address:
        """This computer's address in the lab."""
        return self.subnet[254]

    @property
    def link(self) -> str:
        """The name of this computer's link into the lab: at most 15 bytes (IFNAMSIZ), one for each subnet."""
        second, third = self.subnet.network_address.packed[1:3]
        return f"kwlab{second}-{third}"

    def machine_for(self, name: str) -> MachinePlan:
        """The machine that `name` would be in this lab, planned or not."""
        if (match := _MACHINE.fullmatch(name)) is None:
            raise ValueError(f"{name!r} is no machine's name")
        return MachinePlan(name, self.subnet[_FIRST[match[1]] + int(match[2])])

    def to_json(self) -> str:
        """The plan as it is written down."""
        document = {
            "name": self.name,
            "subnet": str(self.subnet),
            "machines": {machine.name: str(machine.address) for machine in self.machines},
        }
        return json.dumps(document, indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str, where: str) -> LabPlan:
        """The plan that `to_json` wrote; `where` is its file, named in the error if it is damaged."""
        try:
            document: dict[str, Any] = json.loads(text)
            machines = [MachinePlan(name, IPv4Address(at)) for name, at in document["machines"].items()]
            return cls(check_lab_name(document["name"]), IPv4Network(document["subnet"]), tuple(machines))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise KubewrightError(
                f"{where} is damaged: {error}",
                hint="`kubewright lab down` removes the lab with what is left of it",
            ) from error


def check_lab_name(name: str) -> str:
    """`name`, if a lab can be called that; else `ConfigError`."""
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"a lab cannot be called {name!r}",
            hint="use at most 32 lower-case letters, digits and hyphens, with a letter or digit at both ends",
            exit_code=ExitCode.USAGE,
        )
    return name


def is_machine_name(name: str) -> bool:
    """Whether `name` is one that a lab gives to a machine."""
    return _MACHINE.fullmatch(name) is not None


def plan_machines(subnet: IPv4Network, control_planes: int, workers: int) -> tuple[MachinePlan, ...]:
    """The machines for these counts. A machine keeps its name and address when the counts change."""
    if control_planes < 1:
        raise ConfigError("a lab needs a control plane", hint="--control-planes 1", exit_code=ExitCode.USAGE)
    for option, count in (("--control-planes", control_planes), ("--workers", workers)):
        if not 0 <= count <= MAX_MACHINES:
            raise ConfigError(
                f"{option}: {count} is not between 0 and {MAX_MACHINES}", exit_code=ExitCode.USAGE
            )
    return tuple(
        MachinePlan(f"{kind}{number}", subnet[_FIRST[kind] + number])
        for kind, count in (("cp", control_planes), ("w", workers))
        for number in range(1, count + 1)
    )


def choose_subnet(taken: Iterable[IPv4Network]) -> IPv4Network:
    """The first /24 of the pools that overlaps none of `taken` (P32)."""
    in_use = [network for network in taken if network.prefixlen > 0]
    for subnet in _candidates():
        if not any(subnet.overlaps(network) for network in in_use):
            return subnet
    raise KubewrightError(
        f"no subnet is free for a lab: this computer has routes to all of {', '.join(map(str, POOLS))}",
        hint="remove a lab (`kubewright lab list`, `kubewright lab down NAME`) or a route",
    )


def _candidates() -> Iterator[IPv4Network]:
    for pool in POOLS:
        yield from pool.subnets(new_prefix=24)
