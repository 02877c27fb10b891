"""etcd as a systemd unit: the unit, and the file by which a host without data is let into a cluster."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from kubewright.model.arguments import EtcdMember, etcd_args
from kubewright.model.kubeconfig import KUBERNETES_DIR
from kubewright.model.node import ControlPlaneNode
from kubewright.model.versions import VersionFacts

if TYPE_CHECKING:
    from kubewright.model.config.kubeadm import ClusterConfiguration

UNIT = "kubewright-etcd.service"
UNIT_PATH = f"/etc/systemd/system/{UNIT}"
"""Not `etcd.service`: that is the name of distributions' packages."""
DATA_DIR = "/var/lib/etcd"
MEMBER_DIR = f"{DATA_DIR}/member"
"""What etcd makes in its data directory when it starts for the first time."""
WAL_DIR = f"{MEMBER_DIR}/wal"
"""Its log, with what it has voted for: where this is missing, the member has no data, whatever else there is."""
PERMIT_PATH = f"{KUBERNETES_DIR}/etcd-start.env"

_FIRST_START = ("initial-cluster", "initial-cluster-state")

# What a database needs not to be able to do. Its files are root's own, so that it needs no capability for them.
_SANDBOX = (
    "NoNewPrivileges=yes",
    "CapabilityBoundingSet=",
    "PrivateTmp=yes",
    "ProtectHome=yes",
    "ProtectSystem=full",
    "UMask=0077",
)


class StartState(StrEnum):
    """What a member without data is let into (etcd's --initial-cluster-state)."""

    NEW = "new"
    EXISTING = "existing"


@dataclass(frozen=True, slots=True)
class Permit:
    """With whom a member without data may start. It is taken away when it is a member for good: one whose data is
    lost later must not come back as the member that it was, having forgotten what it voted for."""

    state: StartState
    members: tuple[EtcdMember, ...]

    def text(self, cluster_name: str) -> bytes:
        """The file, in the form that systemd reads (systemd.exec(5), EnvironmentFile)."""
        said = ",".join(f"{one.name}={one.peer_url}" for one in self.members)
        return (
            f"ETCD_INITIAL_CLUSTER={said}\nETCD_INITIAL_CLUSTER_STATE={self.state}\n"
            f"ETCD_INITIAL_CLUSTER_TOKEN={cluster_name}\n"
        ).encode()


def read_permit(text: bytes | None) -> Permit | None:
    """The permit in a file; None where there is none, or none that we wrote."""
    rows = dict(line.partition("=")[::2] for line in (text or b"").decode(errors="replace").splitlines())
    try:
        state = StartState(rows.get("ETCD_INITIAL_CLUSTER_STATE", ""))
    except ValueError:
        return None
    named = [item.partition("=") for item in rows.get("ETCD_INITIAL_CLUSTER", "").split(",")]
    return Permit(state, tuple(EtcdMember(name, url) for name, equals, url in named if equals))


def etcd_unit(
    program: str, cluster: ClusterConfiguration, node: ControlPlaneNode, facts: VersionFacts
) -> bytes:
    """The unit of a member on a host of its own, with the arguments that kubeadm gives a stacked one.

    It starts only where there is data or a `Permit`, and again for as long as it fails.
    """
    flags = [
        f"--{name}={value}" for name, value in etcd_args(cluster, node, facts) if name not in _FIRST_START
    ]
    lines = [
        "[Unit]",
        f"Description=etcd, where the Kubernetes cluster {cluster.cluster_name} keeps its state",
        "Documentation=https://etcd.io/docs/",
        "Wants=network-online.target",
        "After=network-online.target",
        f"ConditionPathExists=|{WAL_DIR}",
        f"ConditionPathExists=|{PERMIT_PATH}",
        "StartLimitIntervalSec=0",
        "",
        "[Service]",
        "Type=notify",
        # Without the permit, which comes over it, a member that has lost its data in this moment begins nothing.
        f"Environment=ETCD_INITIAL_CLUSTER_STATE={StartState.EXISTING}",
        f"EnvironmentFile=-{PERMIT_PATH}",
        " \\\n  ".join([f"ExecStart={program}", *(_quoted(flag) for flag in flags)]),
        "Restart=always",
        "RestartSec=1",
        # A member is ready when it has reached the others, which may be long after it was started.
        "TimeoutStartSec=infinity",
        "LimitNOFILE=65536",
        *_SANDBOX,
        "",
        "[Install]",
        "WantedBy=multi-user.target",
    ]
    return "".join(f"{line}\n" for line in lines).encode()


def _quoted(flag: str) -> str:
    """An argument as a unit's ExecStart writes it (systemd.service(5))."""
    flag = flag.replace("%", "%%").replace("$", "$$")
    return flag if flag.replace("%%", "").isprintable() and " " not in flag else f'"{flag}"'


def names(members: Sequence[EtcdMember]) -> str:
    """Members for a reader."""
    return ", ".join(member.name for member in members)
