"""What is read out of apt, and the configuration that keeps it away from the user's."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from kubewright.components.apt import FRESH, LOOK_AGAIN, Apt, _key
from kubewright.components.apt_text import (
    Mirror,
    configuration,
    parse_simulation,
    parse_source_uris,
    parse_targets,
    source_list,
)
from kubewright.components.cache import Cache
from kubewright.errors import ComponentError

TARGETS = """\
http://mirror.example/debian/ bookworm bookworm main
http://second.example/debian/ bookworm bookworm main
http://mirror.example/debian/ bookworm bookworm contrib
http://security.example/debian-security/ bookworm-security oldstable-security main
http://mirror.example/debian/ bookworm-updates bookworm-updates main
https://other.example/node/ nodistro nodistro main
https://other.example/flat/
"""
SIMULATION = """\
NOTE: This is only a simulation!
Reading package lists...
Inst libc6 (2.36-9+deb12u14 Debian:12.15/oldstable [amd64]) []
Inst iptables [1.8.8-1] (1.8.9-2 Debian:12.15/oldstable [amd64])
Inst libssl3 (3.0.22-1 Debian:12.15/oldstable, Debian-Security:12/oldstable-security [amd64])
Inst adduser (3.134 Debian:12.15/oldstable [all])
Conf libc6 (2.36-9+deb12u14 Debian:12.15/oldstable [amd64])
"""


def test_each_mirror_belongs_to_its_own_suite() -> None:
    assert parse_targets(TARGETS) == [
        Mirror("http://mirror.example/debian/", "bookworm"),
        Mirror("http://mirror.example/debian/", "bookworm-updates"),
        Mirror("http://security.example/debian-security/", "bookworm-security"),
    ]


def test_before_the_first_update_the_source_lists_name_serves() -> None:
    lines = "http://mirror.example/debian/  bookworm main\n"
    assert parse_targets(lines) == [Mirror("http://mirror.example/debian/", "bookworm")]


def test_the_source_list_has_packages_and_sources_and_names_the_keys() -> None:
    lines = source_list(
        [Mirror("http://m/", "bookworm"), Mirror("http://s/", "bookworm-security")]
    ).splitlines()
    assert [line.split()[0] for line in lines] == ["deb", "deb", "deb-src", "deb-src"]
    assert all("signed-by=/usr/share/keyrings/debian-archive-keyring.gpg" in line for line in lines)
    assert lines[1].endswith("http://s/ bookworm-security main")


def test_the_users_proxies_are_kept_and_hooks_are_not() -> None:
    dump = (
        'APT::Update::Post-Invoke:: "rm -f /var/cache/apt/archives/*.deb || true";\n'
        'Acquire::http::Proxy "http://proxy.example:3128";\n'
        'Acquire::Languages:: "de";\n'
        'Dir::State::lists "lists/";\n'
    )
    text = configuration(Path("/cache/apt"), dump)
    assert 'Acquire::http::Proxy "http://proxy.example:3128";' in text
    assert "Post-Invoke" not in text
    assert '"de"' not in text
    assert 'Dir::State::lists "/cache/apt/lists";' in text
    assert 'Dir::Etc::parts "/dev/null";' in text
    assert 'Dir::State::status "/dev/null";' in text


def test_versions_are_read_out_of_a_simulation() -> None:
    assert parse_simulation(SIMULATION) == {
        "adduser": "3.134",
        "iptables": "1.8.9-2",
        "libc6": "2.36-9+deb12u14",
        "libssl3": "3.0.22-1",
    }
    with pytest.raises(ComponentError):
        parse_simulation("Reading package lists...\n")


def test_a_source_packages_version_and_digest_are_read() -> None:
    digest = "19fa1da5aefcef673894ac9511986bd98a14410cf8eea0b626613c30df435257"
    line = (
        "'http://m/pool/kubernetes_1.20.5%2breally1.20.2-1.1.dsc' kubernetes_1.20.5+really1.20.2-1.1.dsc 1973 "
        f"SHA256:{digest}\n"
    )
    assert parse_source_uris(line, "kubernetes") == {"version": "1.20.5+really1.20.2-1.1", "sha256": digest}
    with pytest.raises(ComponentError, match="knows no source package kubernetes"):
        parse_source_uris("Reading package lists...", "kubernetes")


class OfflineApt(Apt):
    """An apt whose index cannot be refreshed."""

    looked = 0

    async def _refresh(self, activity: object) -> None:
        self.looked += 1
        raise ComponentError("no network")


def keep(apt: Apt, age: float, versions: Mapping[str, str]) -> None:
    """Write what a look `age` seconds ago would have left, under the only key in use."""
    folder = apt._root / "resolved"
    folder.mkdir(parents=True)
    path = folder / f"{_key('extract', 'etcd-server')}.json"
    path.write_text(json.dumps({"at": time.time() - age, "versions": dict(versions)}))


@pytest.mark.parametrize("age", [0.0, FRESH * 2, LOOK_AGAIN - 60])
async def test_versions_looked_up_this_week_need_no_network(tmp_path: Path, age: float) -> None:
    apt = OfflineApt(Cache(tmp_path))
    keep(apt, age, {"etcd-server": "3.4.23-4"})
    assert await apt.resolve(["etcd-server"]) == {"etcd-server": "3.4.23-4"}
    assert apt.kept(["etcd-server"]) == {"etcd-server": "3.4.23-4"}
    assert apt.looked == 0


async def test_older_versions_serve_where_there_is_no_network(tmp_path: Path) -> None:
    apt = OfflineApt(Cache(tmp_path))
    keep(apt, LOOK_AGAIN + 60, {"etcd-server": "3.4.23-4"})
    assert apt.kept(["etcd-server"]) is None
    assert await apt.resolve(["etcd-server"]) == {"etcd-server": "3.4.23-4"}
    assert apt.looked == 1


async def test_versions_are_looked_up_anew_before_something_is_made_of_them(tmp_path: Path) -> None:
    apt = OfflineApt(Cache(tmp_path))
    keep(apt, FRESH * 2, {"etcd-server": "3.4.23-4"})
    await apt.resolve(["etcd-server"], enough=lambda versions: False)
    assert apt.looked == 1


async def test_without_network_and_without_a_past_it_fails(tmp_path: Path) -> None:
    with pytest.raises(ComponentError, match="no network"):
        await OfflineApt(Cache(tmp_path)).resolve(["etcd-server"])
