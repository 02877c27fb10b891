"""Discovery against an API server of our own: every way in, and each failure of P10 with its own words."""

from __future__ import annotations

import asyncio
import base64
import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from tests.free_ports import free_port

from kubewright.errors import ConfigError
from kubewright.hosts import Completed
from kubewright.hosts.local import LocalHost
from kubewright.model import discovery, kubeconfig, pki, stored, tokens, x509
from kubewright.model.node import ControlPlaneNode
from kubewright.model.objects import to_yaml
from kubewright.model.pki import CertSpec, KeyKind, Usage
from kubewright.phases import discovery as phase
from kubewright.phases import discovery_file
from kubewright.secret import Secret

TOKEN = Secret("abcdef.0123456789abcdef")
NOW = datetime.now(UTC)
CA_SPEC = CertSpec("ca", "ca", "kubernetes", validity=pki.CA_VALIDITY, key_kind=KeyKind.ECDSA_P256)


class Here(LocalHost):
    """This computer, with a clock of its own and without its own list of authorities."""

    def __init__(self, ahead: timedelta = timedelta(0), bundle: bytes = b"") -> None:
        super().__init__("joiner")
        self.ahead, self.bundle = ahead, bundle

    async def run(self, argv: Any, **options: Any) -> Completed:
        if argv == ["date", "+%s"]:
            return Completed(tuple(argv), 0, str(int((datetime.now(UTC) + self.ahead).timestamp())).encode())
        return await super().run(argv, **options)

    async def read_files(self, paths: Any) -> dict[str, bytes]:
        wanted = list(paths)
        return {wanted[0]: self.bundle} if "ssl" in wanted[0] else await super().read_files(wanted)


def authority(start: datetime = NOW - timedelta(days=1)) -> x509.KeyPair:
    return x509.self_signed_ca(CA_SPEC, x509.new_key(KeyKind.ECDSA_P256), start)


@dataclass
class Api:
    """What the API server shows, and to whom."""

    ca: x509.KeyPair
    url: str = ""
    config_map: dict[str, Any] | None = None
    accepts: set[str] = field(default_factory=lambda: {TOKEN.reveal()})
    bearers: list[str] = field(default_factory=list)
    later: Callable[[Api], None] | None = None

    async def answer(self, request: web.Request) -> web.Response:
        bearer = request.headers.get("Authorization", "").removeprefix("Bearer ")
        self.bearers.append(bearer)
        if bearer and bearer not in self.accepts:
            return self.status(401, "Unauthorized")
        if request.path == "/version":
            return web.json_response({"major": "1"})
        if self.config_map is None:
            return self.status(403, "forbidden")
        response = web.json_response(self.config_map)
        if self.later is not None:
            self.later(self)
        return response

    def status(self, code: int, message: str) -> web.Response:
        return web.json_response({"kind": "Status", "message": message, "code": code}, status=code)

    def sign(self, secret: str = "0123456789abcdef") -> None:
        assert self.config_map is not None
        content = self.config_map["data"][stored.CLUSTER_INFO_KEY]
        self.config_map["data"]["jws-kubeconfig-abcdef"] = tokens.sign_jws(content, "abcdef", Secret(secret))

    @property
    def pins(self) -> list[str]:
        return [x509.ca_hash(self.ca.cert)]


async def serve(tmp_path: Path, handler: Any, pair: x509.KeyPair) -> tuple[web.AppRunner, int]:
    pem = tmp_path / "server.pem"
    pem.write_bytes(pair.cert + pair.key.reveal())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
    await site.start()
    return runner, runner.addresses[0][1]


def leaf(ca: x509.KeyPair, *, address: str = "127.0.0.1", over: bool = False) -> x509.KeyPair:
    spec = CertSpec(
        "apiserver", "apiserver", "kube-apiserver", usages=(Usage.SERVER,), addresses=(address,), ca="ca",
        validity=timedelta(hours=-1) if over else timedelta(days=365), key_kind=KeyKind.ECDSA_P256,
    )  # fmt: skip
    return x509.sign(spec, x509.new_key(KeyKind.ECDSA_P256), ca, NOW)


@pytest.fixture
async def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Api]:
    monkeypatch.setattr(phase, "_GRACE", 0.1)
    monkeypatch.setattr(phase, "_ASK_EVERY", 0.0)
    found = Api(authority())
    runner, port = await serve(tmp_path, found.answer, leaf(found.ca))
    found.url = f"https://127.0.0.1:{port}"
    found.config_map = stored.cluster_info(found.url, found.ca.cert)[0]
    found.sign()
    yield found
    await runner.cleanup()


async def find(api: Api, **options: Any) -> phase.Discovered:
    settings: dict[str, Any] = {"hashes": api.pins, "deadline": 0.5} | options
    host = settings.pop("host", Here())
    endpoint = settings.pop("endpoint", api.url.removeprefix("https://"))
    return await phase.by_token(
        host, endpoint, settings.pop("token", TOKEN), settings.pop("hashes"), **settings
    )


# -- by token -----------------------------------------------------------------------------------------------------


async def test_a_token_and_a_hash_find_the_cluster_and_the_token_stays_here(api: Api) -> None:
    found = await find(api, hashes=["SHA256:" + api.pins[0][7:].upper()])
    assert (found.server.url, found.ca, found.token_id) == (api.url, api.ca.cert, "abcdef")
    assert not any(api.bearers)


async def test_one_of_several_hashes_is_enough(api: Api) -> None:
    assert (await find(api, hashes=["sha256:" + "0" * 64, *api.pins])).ca == api.ca.cert


async def test_without_a_hash_the_risk_must_be_taken_in_words(api: Api) -> None:
    with pytest.raises(ConfigError, match="anybody could pass"):
        await find(api, hashes=[])
    assert not api.bearers
    assert (await find(api, hashes=[], unsafe_skip_ca_verification=True)).ca == api.ca.cert


async def test_a_signature_that_comes_late_is_waited_for(api: Api) -> None:
    assert api.config_map is not None
    del api.config_map["data"]["jws-kubeconfig-abcdef"]
    said: list[str] = []

    def sign_at_the_third(server: Api) -> None:
        if server.bearers.count("") == 3:
            server.sign()

    api.later = sign_at_the_third
    await find(api, deadline=20, progress=said.append)
    assert said == ["waiting for kube-controller-manager to sign cluster-info"]


async def test_p10_nothing_answers(api: Api) -> None:
    with pytest.raises(discovery.UnreachableError) as caught:
        await find(api, endpoint=f"127.0.0.1:{free_port()}", deadline=0.2)
    assert "nothing answers" in caught.value.message
    assert any("refused" in line.lower() for line in caught.value.evidence)
    assert "--print-join-command" in caught.value.hint


async def test_p10_a_wrong_port(api: Api, tmp_path: Path) -> None:
    async def other(_: web.Request) -> web.Response:
        return web.Response(text="<html>welcome</html>", content_type="text/html")

    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"SSH-2.0-OpenSSH_9.2\r\n")
        await writer.drain()

    (tmp_path / "other").mkdir()
    runner, port = await serve(tmp_path / "other", other, leaf(authority()))
    plain = await asyncio.start_server(greet, "127.0.0.1", 0)
    for wrong in (port, plain.sockets[0].getsockname()[1]):
        with pytest.raises(discovery.NotTheApiError, match="no API server"):
            await find(api, endpoint=f"127.0.0.1:{wrong}")
    plain.close()
    await runner.cleanup()


async def test_p10_an_unknown_or_deleted_token(api: Api) -> None:
    with pytest.raises(discovery.UnknownTokenError, match="does not know token 222222") as caught:
        await find(api, token=Secret("222222.0123456789abcdef"), deadline=20)
    assert caught.value.evidence == ("tokens that sign cluster-info: abcdef",)
    assert "token create --print-join-command" in caught.value.hint


async def test_p10_a_token_that_nobody_signs_with(api: Api) -> None:
    assert api.config_map is not None
    del api.config_map["data"]["jws-kubeconfig-abcdef"]
    with pytest.raises(discovery.UnsignedError, match="which the API server accepts") as caught:
        await find(api, deadline=0.1)
    assert "kube-controller-manager" in caught.value.hint
    with pytest.raises(discovery.UnsignedError, match="unknown, or has expired"):
        await find(api, hashes=[], unsafe_skip_ca_verification=True, deadline=0.1)


async def test_the_token_is_kept_from_one_who_adds_his_own_ca_to_the_pinned_one(
    api: Api, tmp_path: Path
) -> None:
    other = authority()
    (tmp_path / "other").mkdir()
    between = Api(other)
    runner, port = await serve(tmp_path / "other", between.answer, leaf(other))
    between.config_map = stored.cluster_info(f"https://127.0.0.1:{port}", api.ca.cert + other.cert)[0]
    with pytest.raises(discovery.OtherClusterError, match="none of this cluster"):
        await find(api, endpoint=f"127.0.0.1:{port}")
    assert not any(between.bearers)
    await runner.cleanup()


async def test_p10_an_expired_token(api: Api) -> None:
    found = await find(api)
    assert (await phase.require_accepted(Here(), found, TOKEN)).token == TOKEN.reveal()
    api.accepts.clear()
    with pytest.raises(discovery.ExpiredTokenError, match="abcdef has expired") as caught:
        await phase.require_accepted(Here(), found, TOKEN)
    assert "24 hours" in caught.value.hint
    with pytest.raises(discovery.UnknownTokenError, match="for the TLS bootstrap"):
        await phase.require_accepted(Here(), found, Secret("222222.0123456789abcdef"))


async def test_p10_a_wrong_half_of_a_token(api: Api) -> None:
    with pytest.raises(discovery.WrongTokenError, match="second half"):
        await find(api, token=Secret("abcdef.ffffffffffffffff"))


async def test_p10_another_ca(api: Api) -> None:
    with pytest.raises(
        discovery.OtherClusterError, match=r"another CA than the hash says: sha256:"
    ) as caught:
        await find(api, hashes=["sha256:" + "0" * 64], deadline=20)
    assert "--print-join-command" in caught.value.hint


async def test_p10_the_hosts_clock_is_wrong(api: Api) -> None:
    for ahead, why in ((timedelta(days=-30), "not valid before"), (timedelta(days=9999), "has expired")):
        with pytest.raises(discovery.ClockError, match=why) as caught:
            await find(api, host=Here(ahead), deadline=20)
        assert "by this host's clock" in caught.value.message
        assert "by the API server's" in caught.value.message
        assert "timedatectl" in caught.value.hint


async def test_p10_the_servers_certificate_is_over(api: Api, tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    runner, port = await serve(tmp_path / "old", api.answer, leaf(api.ca, over=True))
    with pytest.raises(discovery.ClockError, match="expired"):
        await find(api, endpoint=f"127.0.0.1:{port}")
    await runner.cleanup()


async def test_a_certificate_of_another_name_or_ca_is_no_proof(api: Api, tmp_path: Path) -> None:
    for name, pair, why in (
        ("name", leaf(api.ca, address="192.0.2.1"), "is not for"),
        ("ca", leaf(authority()), "none of this cluster"),
    ):
        (tmp_path / name).mkdir()
        runner, port = await serve(tmp_path / name, api.answer, pair)
        with pytest.raises(discovery.OtherClusterError, match=why):
            await find(api, endpoint=f"127.0.0.1:{port}")
        await runner.cleanup()


async def test_a_cluster_info_that_changes_between_two_looks_is_refused(api: Api) -> None:
    def change(server: Api) -> None:
        server.config_map = stored.cluster_info("https://192.0.2.66:6443", server.ca.cert)[0]
        server.sign()

    api.later = change
    with pytest.raises(discovery.OtherClusterError, match="changed while"):
        await find(api)


async def test_a_cluster_that_shows_no_cluster_info(api: Api) -> None:
    api.config_map = None
    with pytest.raises(discovery.NotPublicError, match="shows no cluster-info"):
        await find(api, deadline=20)


async def test_what_is_wrong_before_anybody_is_asked(api: Api) -> None:
    for options in ({"hashes": ["sha256:abc"]}, {"hashes": ["md5:" + "0" * 64]}, {"endpoint": "a:b:c"}):
        with pytest.raises(ConfigError):
            await find(api, **options)
    assert not api.bearers


# -- by file ------------------------------------------------------------------------------------------------------


def document(api: Api, **user: str) -> dict[str, Any]:
    spec = kubeconfig.KubeconfigSpec(
        "x.conf", api.url, "kubernetes", pki.client_cert("x", "me", kind=KeyKind.ECDSA_P256)
    )
    config = kubeconfig.with_rotating_certificate(spec, api.ca.cert)
    config["users"][0]["user"] = user
    return config


async def by_file(tmp_path: Path, config: dict[str, Any]) -> phase.Discovered:
    path = tmp_path / "discovery.conf"
    path.write_bytes(to_yaml(config))
    return await phase.by_file(Here(), str(path), deadline=0.5)


async def test_a_file_without_a_user_and_one_with_a_token(api: Api, tmp_path: Path) -> None:
    found = await by_file(tmp_path, document(api))
    assert (found.server.url, found.ca) == (api.url, api.ca.cert)
    assert not discovery_file.has_credentials(found.server)
    with_token = await by_file(tmp_path, document(api, token=TOKEN.reveal()))
    assert with_token.server.token == TOKEN.reveal()
    assert discovery_file.has_credentials(with_token.server)


async def test_cluster_info_itself_is_a_discovery_file_and_files_inside_are_read(
    api: Api, tmp_path: Path
) -> None:
    config = kubeconfig.cluster_info(api.url, api.ca.cert)
    ca = tmp_path / "ca.crt"
    ca.write_bytes(api.ca.cert)
    config["clusters"][0]["cluster"] = {"server": api.url, "certificate-authority": str(ca)}
    assert (await by_file(tmp_path, config)).ca == api.ca.cert
    ca.unlink()
    with pytest.raises(ConfigError, match=r"ca\.crt, which is not on joiner"):
        await by_file(tmp_path, config)


async def test_a_file_takes_server_and_ca_from_cluster_info_where_it_can(api: Api, tmp_path: Path) -> None:
    config = document(api)
    api.config_map = stored.cluster_info("https://lb.example.test:6443", api.ca.cert)[0]
    assert (await by_file(tmp_path, config)).server.url == "https://lb.example.test:6443"
    api.config_map = None
    assert (await by_file(tmp_path, config)).server.url == api.url


async def test_a_file_of_another_cluster_is_refused(api: Api, tmp_path: Path) -> None:
    config = document(api)
    other = base64.b64encode(authority().cert).decode()
    config["clusters"][0]["cluster"]["certificate-authority-data"] = other
    with pytest.raises(discovery.OtherClusterError, match="none of this cluster"):
        await by_file(tmp_path, config)


async def test_what_cannot_be_a_discovery_file(api: Api, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no file"):
        await phase.by_file(Here(), str(tmp_path / "none"))
    for url in ("http://127.0.0.1/x", "https://127.0.0.1:99999/x", "https://[fd00::1/x"):
        with pytest.raises(ConfigError, match="neither a path nor an https URL"):
            await phase.by_file(Here(), url)
    without_ca = document(api)
    del without_ca["clusters"][0]["cluster"]["certificate-authority-data"]
    plain = document(api)
    plain["clusters"][0]["cluster"]["server"] = "http://127.0.0.1"
    far = document(api)
    far["clusters"][0]["cluster"]["server"] = "https://127.0.0.1:99999"
    for config, why in (
        ({"kind": "Config"}, "names no cluster"),
        (without_ca, "no certificate-authority"),
        (plain, "no https URL"),
        (far, "no https URL"),
        (document(api, username="me"), "username"),
    ):
        with pytest.raises(ConfigError, match=why):
            await by_file(tmp_path, config)


async def test_a_url_is_verified_by_what_the_host_trusts(api: Api, tmp_path: Path) -> None:
    web_ca = authority()

    async def give(request: web.Request) -> web.Response:
        if request.path == "/old.conf":
            return web.Response(status=302, headers={"Location": "/new.conf"})
        if request.path == "/plain.conf":
            return web.Response(status=302, headers={"Location": "http://127.0.0.1/x"})
        return web.Response(body=to_yaml(document(api)))

    (tmp_path / "web").mkdir()
    runner, port = await serve(tmp_path / "web", give, leaf(web_ca))
    url = f"https://127.0.0.1:{port}"
    found = await phase.by_file(Here(bundle=web_ca.cert), f"{url}/old.conf")
    assert found.ca == api.ca.cert
    with pytest.raises(ConfigError, match="which is not https"):
        await phase.by_file(Here(bundle=web_ca.cert), f"{url}/plain.conf")
    with pytest.raises(ConfigError, match=r"self-signed|unable to get") as caught:
        await phase.by_file(Here(bundle=api.ca.cert), f"{url}/new.conf")
    assert "update-ca-certificates" in caught.value.hint
    await runner.cleanup()


def test_node_addresses_of_the_model_are_endpoints() -> None:
    assert phase._url(ControlPlaneNode("cp1", "fd00::1").host_port) == "https://[fd00::1]:6443"
    assert phase._url("lb.example.test") == "https://lb.example.test:6443"
