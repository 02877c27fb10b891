"""How files and objects differ from kubeadm's, and why; a comparison on machines refuses any other one."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Difference:
    """A difference that is meant.

    `pattern` is a regular expression that matches the whole line by which the comparison tells a difference: the
    file or object, the place in it, kubeadm's value and ours. `where` and `what` say it to a reader.
    """

    where: str
    what: str
    why: str
    pattern: str

    def covers(self, line: str) -> bool:
        """Whether a line of the comparison is this difference's."""
        return re.fullmatch(self.pattern, line) is not None


_EMPTY = Difference(
    "/etc/kubernetes/manifests/*.yaml",
    "`metadata.creationTimestamp: null` and `status: {}` are missing",
    "Go's types write them although nobody has said them; the kubelet reads both files alike",
    r"/etc/kubernetes/manifests/[a-z-]+\.yaml at content\."
    r"(metadata\.creationTimestamp: null|status: \{\}) -> nothing",
)

DIFFERENCES: tuple[Difference, ...] = (
    _EMPTY,
    Difference(
        "/etc/kubernetes/*.conf",
        "with the feature gate `PublicKeysECDSA`, the keys in them are ECDSA keys, too; so is the one with which "
        "the first control plane's kubelet begins",
        "kubeadm before 1.31 makes RSA keys there in spite of the gate, which is its bug "
        "[3072](https://github.com/kubernetes/kubeadm/issues/3072)",
        r"(/etc/kubernetes/[a-z-]+\.conf at content\.users|/var/lib/kubelet/pki/kubelet-client-DATE\.pem at "
        r"content)\..*\bRSA 2048\b.* -> .*\bECDSA secp256r1\b.*",
    ),
)
"""Between control planes that `init` made."""

JOINED: tuple[Difference, ...] = (
    _EMPTY,
    Difference(
        "/etc/kubernetes/pki/**/*ca.crt",
        "the authorities' certificates that a control plane downloads can be read by everybody",
        "they are no secret, and `init` of both tools writes them so; kubeadm 1.20 gives all that it downloads "
        "the mode of a key",
        r'/etc/kubernetes/pki/(etcd/|front-proxy-)?ca\.crt at mode: "600" -> "644"',
    ),
    Difference(
        "/etc/kubernetes/manifests",
        "it is there on a worker, too",
        "a kubelet that does not find it when it starts looks for it again, up to 20 s apart; Kubernetes' own "
        "packages of the kubelet bring it along",
        r'/etc/kubernetes/manifests: nothing -> \{"mode": "700", "owner": "0:0"\}',
    ),
)
"""Between nodes that joined the same cluster."""

ALONE: tuple[Difference, ...] = (
    Difference(
        "ConfigMap kube-system/kubeadm-config",
        "`init phase upload-config kubeadm` alone stores `authorization-mode: Node,RBAC` among the API server's "
        "arguments, as the whole of `init` does",
        "kubeadm 1.20 fills it in while it writes the static Pod, and stores it only where the same run did that",
        r"ConfigMap kube-system/kubeadm-config at data\.ClusterConfiguration\.apiServer\.extraArgs: "
        r'\{"authorization-mode": "Node,RBAC"\} -> nothing',
    ),
)
"""Where our phases have been run alone on a cluster of kubeadm's (the left side), and kubeadm's on ours."""
