"""What each container image is made of: data, from which the images are written and by which they are cached."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from kubewright import __version__
from kubewright.components.image import Config, Tree

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

_XTABLES = "/usr/sbin/xtables-nft-multi"
# Debian makes these names when it configures the package, which nobody does for an image.
_XTABLES_LINKS = {
    f"/usr/sbin/{family}tables{action}": "xtables-nft-multi"
    for family in ("ip", "ip6")
    for action in ("", "-save", "-restore")
}
_XTABLES_MODULES = "/usr/lib/x86_64-linux-gnu/xtables"

IPTABLES_PACKAGES = ("iptables",)
IPTABLES_FILES = (_XTABLES, _XTABLES_MODULES)
IPTABLES_LINKS: Mapping[str, str] = _XTABLES_LINKS


@dataclass(frozen=True, slots=True)
class Recipe:
    """An image: Kubernetes' program of this name, files out of Debian's packages, or both."""

    name: str
    program: bool = False
    """Whether Kubernetes' program of this name goes to /usr/local/bin."""
    packages: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    """Programs and directories of the packages; the libraries that they need come by themselves."""
    links: Mapping[str, str] = field(default_factory=dict)
    version_of: str = ""
    """The package whose version the image's label states; without one, the version asked for."""
    entrypoint: tuple[str, ...] = ()
    user: str = ""

    def as_inputs(self) -> dict[str, Any]:
        """The recipe as JSON values, for a cache key."""
        return asdict(self)


# No certificates and no time zones are put in: kubeadm's manifests mount the host's certificates, and
# Kubernetes logs and schedules in UTC. No kmod: modules for IPVS are loaded on the host, where they are seen.
RECIPES: Mapping[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        Recipe("kube-apiserver", program=True, entrypoint=("kube-apiserver",)),
        Recipe("kube-controller-manager", program=True, entrypoint=("kube-controller-manager",)),
        Recipe("kube-scheduler", program=True, entrypoint=("kube-scheduler",)),
        Recipe(
            "kube-proxy",
            program=True,
            packages=(*IPTABLES_PACKAGES, "conntrack", "ipset"),
            files=(*IPTABLES_FILES, "/usr/sbin/conntrack", "/usr/sbin/ipset"),
            links=IPTABLES_LINKS,
            entrypoint=("kube-proxy",),
        ),
        Recipe(
            "etcd",
            packages=("etcd-server", "etcd-client"),
            files=("/usr/bin/etcd", "/usr/bin/etcdctl"),
            version_of="etcd-server",
            entrypoint=("etcd",),
        ),
        Recipe("pause", entrypoint=("/pause",), user="65535:65535"),
    )
}


def base_tree() -> Tree:
    """What a program expects of any root: user and group names, where names are looked up, a /tmp."""
    tree = Tree()
    tree.file("/etc/passwd", b"root:x:0:0:root:/root:/sbin/nologin\nnobody:x:65534:65534::/:/sbin/nologin\n")
    tree.file("/etc/group", b"root:x:0:\nnogroup:x:65534:\n")
    tree.file("/etc/nsswitch.conf", b"passwd: files\ngroup: files\nhosts: files dns\n")
    tree.directory("/root", 0o700)
    tree.directory("/tmp", 0o1777)  # noqa: S108  # in the image
    return tree


def config(recipe: Recipe, version: str) -> Config:
    """How a container of the image is run; `version` is the true one, whatever its tag says."""
    return Config(
        entrypoint=recipe.entrypoint,
        env={"PATH": PATH},
        labels={
            "org.opencontainers.image.title": recipe.name,
            "org.opencontainers.image.version": version,
            "org.opencontainers.image.vendor": f"kubewright {__version__}",
        },
        user=recipe.user,
    )


def upstream(version: str) -> str:
    """A Debian version without its epoch and revision: `1:3.4.23-4+b4` is `3.4.23`."""
    return version.partition(":")[2].rpartition("-")[0] if ":" in version else version.rpartition("-")[0]
