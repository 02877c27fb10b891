"""What a machine consists of, item by item: a host after a reset is compared with the host before init.

The same items as in `kubewright.lab.snapshot`, which needs Python, as far as a reset has to do with them. Left out
are, with their reasons in docs/reset.md: kernel settings, directories that stay empty, the tables of iptables that
are empty, and the lock file of iptables; and the kernel's own routes to a host's addresses, which come with these.
"""

from __future__ import annotations

from cluster_fixtures import on

from kubewright.lab.lab import Lab

_ITEMS = r"""
exec 2>/dev/null
ip -o link | sed -E 's/^[0-9]+: ([^:@]+).*/link \1/'
ip -o address | awk '{print "address", $2, $3, $4}'
{ ip route show table all; ip -6 route show; } | grep -v '^local .* proto kernel' |
  sed -E 's/ +(expires|pref|metric) [^ ]+//g; s/^/route /'
{ ip rule; ip -6 rule; } | sed 's/^/rule /'
for save in iptables-nft-save ip6tables-nft-save iptables-legacy-save ip6tables-legacy-save; do
  $save | awk -v by=$save '/^\*/ {table = $0} /^-A/ {print "filter", by, table, $0}
    /^:[^ ]+ - / {print "filter", by, table, $1}'
done
nft list tables | grep -vE '^table ip6? (nat|filter|mangle|raw|security)$' | sed 's/^/nftables /'
ipset list -n | sed 's/^/set /'
awk '{print "mount", $5}' /proc/self/mountinfo
find /etc /var/lib /var/log/pods /var/log/containers /opt /usr/local /root /run \
  \( -path /var/lib/containerd -o -path /var/lib/systemd -o -path /run/systemd -o -path /run/containerd \
  -o -path /root/.kube/cache -o -path /run/udev -o -path /run/log -o -path /run/user \
  -o -path /run/xtables.lock \) -prune -o \
  \( -type f -o -type l -o -type s \) -printf 'file %p\n'
find /sys/fs/cgroup -maxdepth 4 -type d -name 'kube*' | sed 's/^/cgroup /'
for exe in /proc/[0-9]*/exe; do readlink "$exe"; done |
  sed -nE 's/.*\/((kube|etcd|coredns|pause|containerd)[^/]*)$/program \1/p'
for space in $(ctr namespaces ls -q); do
  ctr -n "$space" containers ls -q | sed "s/^/container $space /"
  ctr -n "$space" tasks ls | awk -v in_=$space 'NR > 1 {print "task", in_, $1, $3}'
done
systemctl list-units --plain --no-legend 'kube*' | awk '{print "unit", $1, $3}'
for file in /root/.kube/config; do [ ! -e "$file" ] || echo "content $(sha256sum "$file")"; done
true
"""


def items(lab: Lab, machine: str) -> set[str]:
    """A line for each."""
    return set(on(lab, machine, _ITEMS).splitlines())


def differences(before: set[str], after: set[str]) -> list[str]:
    """What has come and what has gone; empty where nothing has."""
    return sorted([*(f"+ {line}" for line in after - before), *(f"- {line}" for line in before - after)])
