"""nginx as an endpoint's proxy: its configuration, its units, and the health checks that it lacks."""

from __future__ import annotations

from kubewright.model.loadbalancer import (
    BACKEND,
    BACKENDS_PATH,
    CA_PATH,
    CHECK_NAME,
    DIRECTORY,
    IDLE,
    OLD,
    STREAM_MODULE,
    health_socket,
    run_directory,
    stamp_path,
    unit_file,
    unit_of,
)
from kubewright.model.node import host_port

NGINX_CONFIG = f"{DIRECTORY}/nginx.conf"
NGINX_CHECK = f"{DIRECTORY}/check-backends"
CHECK_UNIT = "kubewright-nginx-check.service"
_RUN = run_directory("nginx")
UPSTREAM_PATH = f"{_RUN}/upstream.conf"
"""The servers as nginx has them now, with those that are down."""


def nginx_config(address: str, port: int, *, module: str = STREAM_MODULE) -> bytes:
    """nginx's configuration: a stream, which passes TLS through (ngx_stream_proxy_module).

    The API servers stand in a file of their own, which `nginx_check` keeps: nginx itself asks nobody for health.
    """
    return f"""\
# Written by kubewright; `kubewright apply` writes it anew.
load_module {module};
user www-data;
worker_processes 2;
worker_shutdown_timeout {OLD};
pid {_RUN}/pid;
error_log stderr error;

events {{
    worker_connections 16384;
}}

stream {{
    upstream {BACKEND} {{
        zone {BACKEND} 64k;
        least_conn;
        include {_RUN}/upstream.conf;
    }}

    server {{
        listen {host_port(address, port)} so_keepalive=30s:10s:3;
        proxy_pass {BACKEND};
        proxy_connect_timeout 500ms;
        proxy_next_upstream on;
        proxy_timeout {IDLE};
        proxy_socket_keepalive on;
    }}
}}

# A stream that returns something would end before its client has asked, who takes that for a failure.
http {{
    access_log off;
    server {{
        listen unix:{health_socket("nginx")};
        return 204;
    }}
}}
""".encode()


def nginx_check() -> bytes:
    """The program that asks the API servers behind nginx for /readyz, each second, as haproxy does itself.

    `render` writes the upstream's servers, with those that are down; `run` asks, renders and reloads for ever, and
    cuts connections to a server that is down, which nginx would keep until they end by themselves.
    """
    return f"""\
#!/bin/sh
# Written by kubewright; `kubewright apply` writes it anew.
set -u
state={_RUN}/check
mkdir -p "$state"

# Whether all of them are down: then all are tried, for better one that is ill than none at all.
all_down() {{
    while read -r name _ _; do [ -e "$state/$name.down" ] || return 1; done <{BACKENDS_PATH}
}}

# A reload renders, too, in another process: each writes a file of its own.
render() {{
    new=$state/../upstream.$$
    all_down && panic=1 || panic=
    while read -r name address port; do
        down=
        [ -z "$panic" ] && [ -e "$state/$name.down" ] && down=" down"
        case $address in *:*) address="[$address]" ;; esac
        echo "server $address:$port max_fails=1 fail_timeout=1s$down;"
    done <{BACKENDS_PATH} >"$new"
    mv "$new" "$state/../upstream.conf"
}}

# A server that cannot be connected to is down at the second failure; one that does not say that it is ready, at
# the third: all of them are silent for a moment while etcd elects a leader. One success makes it up.
# $1: name, $2: address, $3: port
ask() {{
    set -- "$1" $(curl --silent --output /dev/null --write-out '%{{http_code}} %{{time_connect}}' --noproxy '*' \\
        --cacert {CA_PATH} --connect-to "{CHECK_NAME}:$3:$2:$3" --connect-timeout 1 --max-time 3 \\
        "https://{CHECK_NAME}:$3/readyz")
    case ${{2:-}} in
    200 | 401)
        rm -f "$state/$1.failed" "$state/$1.down"
        return
        ;;
    esac
    [ "${{3:-0.000000}}" = 0.000000 ] && more=2 || more=1
    failed=$(($(cat "$state/$1.failed" 2>/dev/null || echo 0) + more))
    echo "$failed" >"$state/$1.failed"
    [ "$failed" -lt 3 ] || : >"$state/$1.down"
}}

run() {{
    while :; do
        sleep 1 &
        pause=$!
        asked=
        while read -r name address port; do
            case $address in *:*) shown="[$address]" ;; *) shown=$address ;; esac
            ask "$name" "$shown" "$port" &
            asked="$asked $!"
        done <{BACKENDS_PATH}
        [ -z "$asked" ] || wait $asked
        before=$(cat "$state/../upstream.conf")
        render
        if [ "$before" != "$(cat "$state/../upstream.conf")" ]; then
            echo "servers now: $(tr '\\n' ' ' <"$state/../upstream.conf")"
            nginx -q -t -c {NGINX_CONFIG} && kill -HUP "$(cat {_RUN}/pid)"
        fi
        while read -r name address port; do
            if [ -e "$state/$name.down" ] && ! all_down; then
                ss -K dst "$address" dport = "$port" >/dev/null 2>&1
            fi
        done <{BACKENDS_PATH}
        # What has failed and is not down yet is asked again soon.
        for failed in "$state"/*.failed; do
            if [ -e "$failed" ] && [ ! -e "${{failed%.failed}}.down" ]; then
                kill "$pause" 2>/dev/null
                sleep 0.3
                break
            fi
        done
        wait "$pause" 2>/dev/null
    done
}}

case $1 in
render) render ;;
run) run ;;
esac
""".encode()


def nginx_unit() -> bytes:
    """nginx as a service of its own; SIGHUP replaces its workers, and no connection is refused meanwhile."""
    check = f"/usr/sbin/nginx -q -t -c {NGINX_CONFIG}"
    return unit_file(
        "nginx",
        "the Kubernetes API's load balancer",
        f"""\
Type=forking
PIDFile={_RUN}/pid
ExecStartPre={NGINX_CHECK} render
ExecStartPre={check}
ExecStart=/usr/sbin/nginx -c {NGINX_CONFIG}
ExecReload={NGINX_CHECK} render
ExecReload={check}
ExecReload=/usr/bin/touch {stamp_path("nginx")}
ExecReload=/bin/kill -HUP $MAINPID
KillMode=mixed
TimeoutStopSec=5
""",
    )


def upstream_servers(text: bytes) -> set[str]:
    """The addresses in nginx's file of servers, those that are down, too."""
    lines = (line.split() for line in text.decode(errors="replace").splitlines())
    return {words[1].rstrip(";") for words in lines if words[:1] == ["server"] and len(words) > 1}


def nginx_check_unit() -> bytes:
    """The health checks of nginx's servers, which live and die with it."""
    return f"""\
[Unit]
Description=Health checks of the Kubernetes API's load balancer
BindsTo={unit_of("nginx")}
After={unit_of("nginx")}
StartLimitIntervalSec=0

[Service]
ExecStart={NGINX_CHECK} run
Restart=always
RestartSec=1
KillMode=control-group

[Install]
WantedBy={unit_of("nginx")}
""".encode()
