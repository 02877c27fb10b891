"""What Kubewright's own pod network leaves on a host. Its agent (`network/`) makes it; a test compares the two."""

from __future__ import annotations

OWN_ROUTES = "107"
"""The protocol number of its routes (rtnetlink(7)): nobody else's carry it."""
OWN_CNI_FILE = "/etc/cni/net.d/10-kubewright.conflist"
OWN_CHAINS = (
    ("nat", "POSTROUTING", "KUBEWRIGHT-POSTROUTING"),
    ("filter", "FORWARD", "KUBEWRIGHT-FORWARD"),
)
"""Table, the chain that jumps, and the chain of ours."""
OWN_COMMENT = "kubewright pod network"
"""What the jumps' rules say."""
