"""Renewing certificates on a host: what they said is kept, whatever their age, and a kill is mended by a rerun."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509 as certificates
from tests.unit.phases.memory_host import KilledError, MemoryHost

from kubewright.errors import ConfigError, HostError
from kubewright.events import Events
from kubewright.hosts import FileWrite
from kubewright.model import kubeconfig, pki, renewal, x509
from kubewright.model.cert_settings import CertSettings
from kubewright.model.config.kubeadm_types import ClusterConfiguration
from kubewright.model.node import ControlPlaneNode
from kubewright.model.pki import PKI_DIR, KeyKind
from kubewright.phases.renewal import RenewCertificates, RequestRenewal, expiries
from kubewright.phases.requests import GenerateRequests
from kubewright.phases.user_kubeconfig import Endpoint, User, endpoint_of, user_kubeconfig
from kubewright.secret import Secret

NOW = datetime.now(UTC)
# ECDSA keys are made a hundred times faster than RSA's, and nothing here depends on the kind.
CLUSTER = ClusterConfiguration.model_validate({"encryptionAlgorithm": "ECDSA-P256"})
NODE = ControlPlaneNode("cp1", "192.0.2.1")
SETTINGS = CertSettings(external_etcd=False)
CONFIGS = ("admin.conf", "controller-manager.conf", "scheduler.conf")


def control_plane(age: timedelta = timedelta(days=400), *, own: tuple[str, ...] = ()) -> MemoryHost:
    """A host whose certificates were made that long ago, for a year; `own` are names that its user added."""
    made = NOW - age
    host = MemoryHost()
    cas = {}
    for spec in pki.cluster_cas(CLUSTER):
        cas[spec.name] = x509.self_signed_ca(spec, x509.new_key(spec.key_kind), made)
        put(host, spec.cert_path(), cas[spec.name].cert, pki.CERT_MODE)
        put(host, spec.key_path(), cas[spec.name].key, pki.KEY_MODE)
    for spec in pki.control_plane_certs(CLUSTER, NODE):
        wanted = replace(spec, dns_names=(*spec.dns_names, *own)) if spec.name == "apiserver" else spec
        pair = x509.sign(wanted, x509.new_key(spec.key_kind), cas[spec.ca], made)
        put(host, spec.cert_path(), pair.cert, pki.CERT_MODE)
        put(host, spec.key_path(), pair.key, pki.KEY_MODE)
    for config in kubeconfig.control_plane_kubeconfigs(CLUSTER, NODE):
        pair = x509.sign(config.cert, x509.new_key(KeyKind.ECDSA_P256), cas["ca"], made)
        document = kubeconfig.with_certificate(config, cas["ca"].cert, pair)
        document["clusters"].append({"name": "mine", "cluster": {"server": "https://192.0.2.9"}})
        put(host, config.path, kubeconfig.dump(document), kubeconfig.KUBECONFIG_MODE)
    return host


def put(host: MemoryHost, path: str, content: bytes | Secret[bytes], mode: int) -> None:
    host.files[path] = FileWrite(path, content, mode)


def cert_in(host: MemoryHost, name: str) -> bytes:
    [one] = [one for one in renewal.MANAGED if one.name == name]
    path = one.path(PKI_DIR)
    return renewal.certificate(one, host.files[path].data, path)


def said(cert: bytes) -> tuple[object, ...]:
    """All that a certificate says but for its key, its number and its end."""
    found = x509.load_cert(cert)
    kinds = (certificates.SubjectAlternativeName, certificates.ExtendedKeyUsage, certificates.KeyUsage)
    values: list[object] = []
    for kind in kinds:
        try:
            values.append(found.extensions.get_extension_for_class(kind).value)
        except certificates.ExtensionNotFound:
            values.append(None)
    return found.subject, found.issuer, *values


async def renew(host: MemoryHost, *names: str, settings: CertSettings = SETTINGS) -> RenewCertificates:
    phase = RenewCertificates(host, settings, names or renewal.NAMES)
    await phase.run(Events())
    return phase


async def test_expired_certificates_say_the_same_again_with_new_keys() -> None:
    """P22. No API server is there to be asked."""
    host = control_plane(own=("api.example.com",))
    before = {name: cert_in(host, name) for name in renewal.NAMES if name != "super-admin.conf"}
    leaves, _ = await expiries(host, SETTINGS)
    assert all(one.left(NOW) < 0 for one in leaves)
    phase = await renew(host)
    assert phase.result.done == sorted(before)
    assert phase.result.missing == phase.result.external == []
    for name, old in before.items():
        new = cert_in(host, name)
        assert said(new) == said(old), name
        assert x509.load_cert(new).public_key() != x509.load_cert(old).public_key()
        assert timedelta(days=364) < x509.ends(new) - datetime.now(UTC) <= timedelta(days=365, minutes=1)
        assert x509.kind_of(new) is KeyKind.ECDSA_P256
    names = x509.load_cert(cert_in(host, "apiserver")).extensions.get_extension_for_class(
        certificates.SubjectAlternativeName
    )
    assert "api.example.com" in names.value.get_values_for_type(certificates.DNSName)


async def test_each_key_belongs_to_its_certificate_and_is_private() -> None:
    host = control_plane()
    untouched = {
        path: file for path, file in host.files.items() if "ca." in path or path.endswith("kubelet.conf")
    }
    await renew(host)
    for one in renewal.managed_by(external_etcd=False):
        if one.base:
            assert host.files[one.path(PKI_DIR)].mode == 0o644
            key = host.files[one.key_path(PKI_DIR)]
            assert key.mode == 0o600
            assert key.secret
            assert x509.key_belongs(host.files[one.path(PKI_DIR)].data, Secret(key.data))
        elif one.name != "super-admin.conf":
            assert host.files[one.path(PKI_DIR)].mode == 0o600
    assert {path: host.files[path] for path in untouched} == untouched


@pytest.mark.parametrize("name", CONFIGS)
async def test_a_kubeconfig_keeps_what_is_not_the_certificates(name: str) -> None:
    host = control_plane()
    path = f"/etc/kubernetes/{name}"
    before = kubeconfig.load(host.files[path].data, name)
    await renew(host, name)
    after = kubeconfig.load(host.files[path].data, name)
    _, user = kubeconfig.current(after)
    key = Secret(kubeconfig.embedded(user, "client-key-data"))
    assert x509.key_belongs(kubeconfig.embedded(user, "client-certificate-data"), key)
    for document in (before, after):
        document["users"][0]["user"] = {}
    assert after == before


@pytest.mark.parametrize("files", range(17))
async def test_a_run_that_was_killed_is_finished_by_the_next(files: int) -> None:
    host = control_plane()
    host.dies_after = files
    with pytest.raises(KilledError):
        await renew(host)
    host.dies_after = None
    await renew(host)
    leaves, _ = await expiries(host, SETTINGS)
    assert all(one.left(NOW) > 0 for one in leaves)
    for one in renewal.managed_by(external_etcd=False):
        if one.base:
            key = Secret(host.files[one.key_path(PKI_DIR)].data)
            assert x509.key_belongs(host.files[one.path(PKI_DIR)].data, key)


async def test_a_ca_whose_key_is_elsewhere_signs_nothing_here() -> None:
    host = control_plane()
    del host.files[f"{PKI_DIR}/ca.key"]
    before = dict(host.files)
    phase = await renew(host)
    assert "front-proxy-client" in phase.result.done
    assert set(phase.result.external) == {
        "admin.conf", "apiserver", "apiserver-kubelet-client", "controller-manager.conf", "scheduler.conf",
    }  # fmt: skip
    assert host.files[f"{PKI_DIR}/apiserver.crt"] == before[f"{PKI_DIR}/apiserver.crt"]
    leaves, roots = await expiries(host, SETTINGS)
    assert {one.name for one in leaves if one.external} == set(phase.result.external)
    assert [one.name for one in roots if one.external] == ["ca"]


async def test_an_expired_or_foreign_ca_is_refused_before_anything_is_written() -> None:
    expired = control_plane(timedelta(days=3700))
    before = dict(expired.files)
    with pytest.raises(HostError, match=r"the CA /etc/kubernetes/pki/ca.crt itself ended on"):
        await renew(expired)
    assert expired.files == before
    foreign = control_plane()
    put(foreign, f"{PKI_DIR}/ca.key", x509.new_key(KeyKind.ECDSA_P256), 0o600)
    with pytest.raises(HostError, match=r"ca.key is not the key of /etc/kubernetes/pki/ca.crt"):
        await renew(foreign, "apiserver")


async def test_a_damaged_file_is_named() -> None:
    host = control_plane()
    put(host, f"{PKI_DIR}/etcd/peer.crt", b"nothing", 0o644)
    with pytest.raises(ConfigError, match=r"etcd/peer.crt: not a PEM certificate"):
        await expiries(host, SETTINGS)
    with pytest.raises(ConfigError, match=r"etcd/peer.crt: not a PEM certificate"):
        await renew(host)
    put(host, "/etc/kubernetes/admin.conf", kubeconfig.dump({"kind": "Config"}), 0o600)
    with pytest.raises(ConfigError, match=r"/etc/kubernetes/admin.conf: "):
        await renew(host, "admin.conf")


async def test_what_is_missing_is_said_and_etcds_is_not_asked_for_where_etcd_is_elsewhere() -> None:
    host = control_plane()
    del host.files[f"{PKI_DIR}/apiserver.crt"]
    phase = await renew(host, settings=replace(SETTINGS, external_etcd=True))
    assert phase.result.missing == ["apiserver"]
    assert not [name for name in phase.result.done if "etcd" in name]
    for path in [path for path in host.files if "/etcd/" in path]:
        del host.files[path]
    leaves, roots = await expiries(host, CertSettings())
    assert [one.name for one in leaves if one.ends is None] == ["apiserver"]
    assert [one.name for one in roots] == ["ca", "front-proxy-ca"]


async def test_which_programs_use_what_was_renewed() -> None:
    host = control_plane()
    assert (await renew(host, "etcd-peer")).result.programs() == ["etcd"]
    assert (await renew(host, "admin.conf")).result.programs() == []
    assert (await renew(host)).result.programs() == [
        "etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler",
    ]  # fmt: skip


async def test_a_plan_writes_nothing_and_the_cluster_may_say_kind_and_validity() -> None:
    host = control_plane()
    before = dict(host.files)
    changes = await RenewCertificates(host, SETTINGS, ["apiserver"]).look()
    assert [(change.action, change.target) for change in changes] == [("update", f"{PKI_DIR}/apiserver.crt")]
    assert host.files == before
    await renew(
        host, "apiserver", settings=replace(SETTINGS, kind=KeyKind.ECDSA_P384, validity=timedelta(days=30))
    )
    new = cert_in(host, "apiserver")
    assert x509.kind_of(new) is KeyKind.ECDSA_P384
    assert x509.ends(new) - NOW < timedelta(days=31)


async def test_requests_for_a_ca_elsewhere_replace_nothing() -> None:
    host = control_plane()
    del host.files[f"{PKI_DIR}/ca.key"]
    before = dict(host.files)
    phase = RequestRenewal(host, SETTINGS, renewal.NAMES, "/root/csr")
    await phase.run(Events())
    assert {path: host.files[path] for path in before} == before
    for name in phase.result.done:
        request = certificates.load_pem_x509_csr(host.files[f"/root/csr/{name}.csr"].data)
        key = host.files[f"/root/csr/{name}.key"]
        assert key.mode == 0o600
        assert request.is_signature_valid
        assert request.public_key() == x509.load_key(Secret(key.data)).public_key()
        assert request.subject == x509.load_cert(cert_in(host, name)).subject
    assert len(phase.result.done) == 10


async def test_requests_for_a_whole_control_plane() -> None:
    host = MemoryHost()
    phase = GenerateRequests(
        host, pki.control_plane_certs(CLUSTER, NODE), kubeconfig.control_plane_kubeconfigs(CLUSTER, NODE),
        directory="/tmp/pki", kubeconfig_dir="/tmp/kubernetes",
    )  # fmt: skip
    changes = await phase.run(Events())
    assert {change.target for change in changes} == set(host.files)
    assert len(host.files) == 2 * (7 + 4)
    assert {file.mode for file in host.files.values()} == {0o600}
    config = kubeconfig.load(host.files["/tmp/kubernetes/kubelet.conf"].data, "")
    cluster, user = kubeconfig.current(config)
    assert cluster == {"server": "https://192.0.2.1:6443"}
    assert set(user) == {"client-key-data"}
    request = certificates.load_pem_x509_csr(host.files["/tmp/kubernetes/kubelet.conf.csr"].data)
    assert request.subject.rfc4514_string() == "CN=system:node:cp1,O=system:nodes"
    with pytest.raises(HostError, match=r"\.csr, .* exist already"):
        await phase.run(Events())
    host.files = {"/tmp/pki/apiserver.key": host.files["/tmp/pki/apiserver.key"]}
    with pytest.raises(HostError, match=r": /tmp/pki/apiserver\.key exists already"):
        await phase.run(Events())


async def test_a_kubeconfig_for_a_user() -> None:
    host = control_plane(timedelta(days=1))
    where = await endpoint_of(host, "/etc/kubernetes/admin.conf")
    assert where == Endpoint("https://192.0.2.1:6443", "kubernetes")
    settings = replace(SETTINGS, kind=KeyKind.ECDSA_P256, validity=timedelta(hours=2))
    content = await user_kubeconfig(host, settings, where, User("jane", ("developers", "testers")))
    cluster, user = kubeconfig.current(kubeconfig.load(content.reveal(), "jane.conf"))
    cert = kubeconfig.embedded(user, "client-certificate-data")
    assert x509.load_cert(cert).subject.rfc4514_string() == "CN=jane,O=testers,O=developers"
    assert x509.signed_by(cert, kubeconfig.embedded(cluster, "certificate-authority-data"))
    assert x509.ends(cert) - datetime.now(UTC) < timedelta(hours=2, minutes=1)
    content = await user_kubeconfig(host, settings, where, User("jane", token=Secret("t0p")))
    _, user = kubeconfig.current(kubeconfig.load(content.reveal(), "jane.conf"))
    assert user == {"token": "t0p"}
    del host.files[f"{PKI_DIR}/ca.key"]
    with pytest.raises(HostError, match="the CA signs elsewhere"):
        await user_kubeconfig(host, settings, where, User("jane"))
    await user_kubeconfig(host, settings, where, User("jane", token=Secret("t0p")))
