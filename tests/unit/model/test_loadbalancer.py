"""What an endpoint's programs are configured with. (That they take it is tried on machines.)"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from kubewright.model import haproxy, keepalived, nginx
from kubewright.model.keepalived import VirtualIp
from kubewright.model.loadbalancer import Backend, backends_file, port_holder, read_backends, unit_of

BACKENDS = [Backend("cp2", "10.0.0.2", 6443), Backend("cp1", "10.0.0.1", 6443)]
VIRTUAL = VirtualIp("10.0.0.9", 51, "nginx")


def seconds(config: str, name: str) -> float:
    [(number, unit)] = re.findall(rf"^ *{name} +(\d+)(ms|s|m|h)$", config, re.MULTILINE)
    return int(number) * {"ms": 0.001, "s": 1, "m": 60, "h": 3600}[unit]


def test_the_order_of_backends_does_not_matter() -> None:
    assert backends_file(BACKENDS) == backends_file(BACKENDS[::-1])
    assert read_backends(backends_file(BACKENDS)) == sorted(BACKENDS, key=lambda one: one.name)
    assert read_backends(b"half a line\ncp1 10.0.0.1 x\n\n") == []
    assert haproxy.haproxy_config(BACKENDS, "0.0.0.0", 6443) == haproxy.haproxy_config(
        BACKENDS[::-1], "0.0.0.0", 6443
    )


def test_haproxy_checks_the_certificate_and_cuts_what_is_down() -> None:
    text = haproxy.haproxy_config(BACKENDS, "0.0.0.0", 6443).decode()
    checked, _, unchecked = text.partition(f"backend {haproxy.UNCHECKED}\n")
    assert "bind 0.0.0.0:6443" in text
    assert "GET uri /readyz" in checked
    assert (
        "check-ssl ca-file /etc/kubewright/endpoint/ca.crt verify required verifyhost kubernetes" in checked
    )
    assert "inter 1s fastinter 300ms downinter 1s fall 3 rise 1 on-marked-down shutdown-sessions" in checked
    assert "server cp1 10.0.0.1:6443 check " in checked
    assert "server cp2 10.0.0.2:6443 check " in checked
    assert "server cp1 10.0.0.1:6443 " in unchecked, "better a server that is ill than none"
    assert "option redispatch 1" in text


def test_a_dead_machine_is_out_within_five_seconds() -> None:
    text = haproxy.haproxy_config(BACKENDS, "0.0.0.0", 6443).decode()
    connect = seconds(text, "timeout connect")
    assert 1 + connect + 2 * (0.3 + connect) < 4, "the interval, then three connections that cannot be made"
    servers = [line for line in text.splitlines() if line.startswith("    server ")]
    assert len(servers) == 4
    assert all("tcp-ut 2s" in line for line in servers), "and what is open to it is cut before"


def test_silent_watches_live_for_hours() -> None:
    text = haproxy.haproxy_config(BACKENDS, "0.0.0.0", 6443).decode()
    for name in ("timeout client", "timeout server"):
        lengths = [int(number) for number in re.findall(rf"^    {name} +(\d+)h$", text, re.MULTILINE)]
        assert lengths, name
        assert min(lengths) >= 2, name
    assert "clitcpka" in text
    assert "srvtcpka" in text
    assert "proxy_timeout 4h;" in nginx.nginx_config("0.0.0.0", 6443).decode()


def test_a_local_proxy_listens_on_its_own_address_alone() -> None:
    assert "bind 127.0.0.1:6444 " in haproxy.haproxy_config(BACKENDS, "127.0.0.1", 6444).decode()
    assert "listen 127.0.0.1:6444 " in nginx.nginx_config("127.0.0.1", 6444).decode()


def test_the_packages_own_units_and_files_are_not_ours() -> None:
    for program, unit in (
        ("haproxy", haproxy.haproxy_unit()),
        ("nginx", nginx.nginx_unit()),
        ("keepalived", keepalived.keepalived_unit()),
    ):
        assert unit_of(program) == f"kubewright-{program}.service"
        assert f"/etc/{program}" not in unit.decode()
        assert "ExecReload=" in unit.decode()


def test_no_unit_of_ours_gives_up() -> None:
    units = (
        haproxy.haproxy_unit(), nginx.nginx_unit(), nginx.nginx_check_unit(), keepalived.keepalived_unit(),
    )  # fmt: skip
    for unit in units:
        head, _, service = unit.decode().partition("[Service]")
        assert "StartLimitIntervalSec=0\n" in head
        assert "Restart=always\n" in service


def test_nginx_answers_for_its_health_in_http() -> None:
    stream, _, http = nginx.nginx_config("0.0.0.0", 6443).decode().partition("http {")
    assert "unix:" not in stream
    assert "listen unix:/run/kubewright-nginx/health.sock;" in http


def test_haproxy_tells_its_checked_servers() -> None:
    answer = (
        "# pxname,svname,addr,status,\n"
        "kubernetes,FRONTEND,,OPEN,\n"
        "api,cp1,10.0.0.1:6443,UP,\n"
        "api,cp2,10.0.0.2:6443,DOWN,\n"
        "api,BACKEND,,UP,\n"
        "unchecked,cp1,10.0.0.1:6443,no check,\n"
    )
    assert haproxy.stat_servers(answer) == {("cp1", "10.0.0.1:6443"), ("cp2", "10.0.0.2:6443")}


def test_the_checks_of_nginx_are_a_script_that_a_shell_reads() -> None:
    for script in (nginx.nginx_check(), keepalived.proxy_check("nginx")):
        subprocess.run(["sh", "-n"], input=script, check=True)


def check_in(folder: Path) -> Path:
    """nginx's check, its paths led elsewhere."""
    script = nginx.nginx_check().decode()
    script = script.replace("/run/kubewright-nginx", f"{folder}/run")
    script = script.replace("/etc/kubewright/endpoint", f"{folder}")
    (folder / "backends").write_bytes(backends_file(BACKENDS))
    (folder / "run/check").mkdir(parents=True)
    file = folder / "check-backends"
    file.write_text(script)
    return file


def rendered(folder: Path, down: list[str]) -> str:
    """What the check writes, with these servers down."""
    script = check_in(folder)
    for name in down:
        (folder / f"run/check/{name}.down").touch()
    subprocess.run(["sh", script, "render"], check=True)
    return (folder / "run/upstream.conf").read_text()


@pytest.mark.parametrize(
    ("answers", "down"),
    [
        (["000 0.000000"], False),
        (["000 0.000000", "000 0.000000"], True),
        (["500 0.000200", "500 0.000200"], False),
        (["500 0.000200", "000 0.000200", "500 0.000200"], True),
        (["000 0.000000", "200 0.000200", "000 0.000000"], False),
        (["000 0.000000", "000 0.000000", "401 0.000200"], False),
        (["", ""], True),
    ],
)
def test_nginx_takes_a_server_for_down(tmp_path: Path, answers: list[str], down: bool) -> None:
    script = check_in(tmp_path)
    turns = "".join(f'curl() {{ echo "{answer}"; }}; ask cp1 10.0.0.1 6443; ' for answer in answers)
    subprocess.run(["sh", "-c", f"set -- none; . {script}; {turns}"], check=True)
    assert (tmp_path / "run/check/cp1.down").exists() is down


def test_nginx_is_reloaded_while_its_checks_write(tmp_path: Path) -> None:
    script = check_in(tmp_path)
    slow = f'set -- none; . {script}; mv() {{ sleep 0.3; command mv "$@"; }}; render'
    both = [subprocess.Popen(["sh", "-c", slow]) for _ in range(2)]
    assert [one.wait() for one in both] == [0, 0]
    assert len(nginx.upstream_servers((tmp_path / "run/upstream.conf").read_bytes())) == 2
    assert [path.name for path in (tmp_path / "run").glob("upstream*")] == ["upstream.conf"]


def test_nginx_leaves_out_what_is_down(tmp_path: Path) -> None:
    text = rendered(tmp_path, ["cp1"])
    assert "server 10.0.0.1:6443 max_fails=1 fail_timeout=1s down;" in text
    assert "server 10.0.0.2:6443 max_fails=1 fail_timeout=1s;" in text
    assert nginx.upstream_servers(text.encode()) == {"10.0.0.1:6443", "10.0.0.2:6443"}


def test_nginx_tries_all_where_all_are_down(tmp_path: Path) -> None:
    assert "down" not in rendered(tmp_path, ["cp1", "cp2"])


def test_keepalived_speaks_to_its_peers_alone() -> None:
    text = keepalived.keepalived_config(VIRTUAL, "eth0", "10.0.0.5", {"lb2": "10.0.0.6"}).decode()
    assert "unicast_src_ip 10.0.0.5\n" in text
    assert re.search(r"unicast_peer \{\n +10\.0\.0\.6 # host lb2\n +\}", text)
    assert "nopreempt" in text
    assert "state BACKUP" in text
    assert "virtual_router_id 51" in text
    assert "10.0.0.9/32 dev eth0" in text
    assert "enable_script_security" in text
    assert "auth_pass" not in text
    assert keepalived.read_peers(text.encode()) == {"lb2": "10.0.0.6"}


def test_one_host_alone_has_no_peers() -> None:
    text = keepalived.keepalived_config(VIRTUAL, "eth0", "10.0.0.5", {}).decode()
    assert "unicast" not in text


@pytest.mark.parametrize("count", [2, 3, 5])
def test_no_two_hosts_have_one_priority(count: int) -> None:
    ips = {f"lb{n}": f"10.0.0.{n}" for n in range(5, 5 + count)}
    texts = [
        keepalived.keepalived_config(
            VIRTUAL, "eth0", own, {name: ip for name, ip in ips.items() if ip != own}
        ).decode()
        for own in ips.values()
    ]
    found = {re.findall(r"priority (\d+)", text)[0] for text in texts}
    assert len(found) == count


@pytest.mark.parametrize(
    ("there", "address", "taken"),
    [
        ("0.0.0.0", "0.0.0.0", True),
        ("*", "127.0.0.1", True),
        ("10.0.0.5", "0.0.0.0", True),
        ("127.0.0.1", "127.0.0.1", True),
        ("10.0.0.5", "127.0.0.1", False),
        ("127.0.0.53%lo", "127.0.0.1", False),
        ("[::]", "0.0.0.0", True),
    ],
)
def test_who_has_the_port(there: str, address: str, taken: bool) -> None:
    line = f'LISTEN 0 4096 {there}:6443 0.0.0.0:* users:(("nginx",pid=183,fd=6),("nginx",pid=184,fd=6))'
    assert port_holder(line, address) == ("nginx (process 183)" if taken else "")
    assert port_holder("", address) == ""
