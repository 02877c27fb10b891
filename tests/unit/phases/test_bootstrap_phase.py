"""A kubelet's request for its certificate, granted by whoever founds the cluster or by its controllers."""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from typing import Any

import pytest

from kubewright.errors import ApiError, KubewrightError
from kubewright.model import kubeconfig, pki, x509
from kubewright.model.objects import Object
from kubewright.phases.bootstrap import Issuer, client_certificate

API = "certificates.k8s.io/v1"
NAME = "csr-1"


class Requests:
    """An API with one request; `controllers` give it their own certificate as soon as it is approved."""

    def __init__(self, controllers: bytes = b"") -> None:
        self.made: Object = {}
        self.controllers = controllers
        self.forbidden = 0
        """So many requests, until the API server knows its roles."""

    async def create(self, obj: Object) -> Object:
        self._allow()
        self.made = {**obj, "metadata": {"name": NAME}, "status": {}}
        return self.made

    def _allow(self) -> None:
        if self.forbidden:
            self.forbidden -= 1
            raise ApiError("no such role", status=403)

    async def get(self, *_: str) -> Object:
        return self.made

    async def patch(self, _version: str, _kind: str, name: str, change: Any, *, subresource: str) -> None:
        assert name == NAME
        self._allow()
        status = self.made["status"]
        if subresource == "approval":
            status |= change["status"]
            if self.controllers:
                status["certificate"] = base64.b64encode(self.controllers).decode()
            return
        if [one["type"] for one in status.get("conditions", [])] != ["Approved"]:
            raise ApiError("not approved", status=422)
        if status.get("certificate"):
            raise ApiError("it has one", status=422)
        status |= change["status"]


@pytest.fixture(scope="module")
def ca() -> x509.KeyPair:
    spec = pki.CertSpec("ca", "ca", "kubernetes", key_kind=pki.KeyKind.ECDSA_P256)
    return x509.self_signed_ca(spec, x509.new_key(spec.key_kind), datetime.now(UTC))


async def asked(api: Requests, issuer: Issuer | None) -> x509.KeyPair:
    return await client_certificate(api, "w1", API, issuer=issuer)  # type: ignore[arg-type]


async def test_the_founder_grants_what_a_kubelet_asks_for(ca: x509.KeyPair) -> None:
    api = Requests()
    pair = await asked(api, Issuer(api, ca))  # type: ignore[arg-type]
    assert x509.signed_by(pair.cert, ca.cert)
    assert x509.key_belongs(pair.cert, pair.key)
    assert not x509.matches(
        pair.cert, kubeconfig.node_client_cert("w1"), now=datetime.now(UTC), ca=ca.cert, key=pair.key
    )
    assert b"BEGIN CERTIFICATE REQUEST" in base64.b64decode(api.made["spec"]["request"])


async def test_roles_that_come_a_moment_later_are_waited_for(ca: x509.KeyPair) -> None:
    api = Requests()
    api.forbidden = 3
    assert x509.signed_by((await asked(api, Issuer(api, ca))).cert, ca.cert)  # type: ignore[arg-type]


async def test_a_token_that_may_not_ask_is_told_so_at_once() -> None:
    api = Requests()
    api.forbidden = 1
    with pytest.raises(ApiError, match="no such role"):
        await asked(api, None)


async def test_controllers_that_are_faster_are_no_failure(ca: x509.KeyPair) -> None:
    theirs = x509.sign(
        kubeconfig.node_client_cert("w1"), x509.new_key(pki.KeyKind.ECDSA_P256), ca, datetime.now(UTC)
    )
    api = Requests(controllers=theirs.cert)
    assert (await asked(api, Issuer(api, ca))).cert == theirs.cert  # type: ignore[arg-type]


async def test_without_an_issuer_the_cluster_is_waited_for(ca: x509.KeyPair) -> None:
    class Slow(Requests):
        looks = 0

        async def get(self, *_: str) -> Object:
            self.looks += 1
            if self.looks == 3:
                self.made["status"]["certificate"] = base64.b64encode(ca.cert).decode()
            return self.made

    api = Slow()
    assert (await asked(api, None)).cert == ca.cert
    assert api.looks == 3


async def test_a_request_that_was_refused() -> None:
    class Refusing(Requests):
        async def get(self, *_: str) -> Object:
            return {"status": {"conditions": [{"type": "Denied", "message": "not here"}]}}

    with pytest.raises(KubewrightError, match="w1: the kubelet's request csr-1 was refused: not here"):
        await asked(Refusing(), None)
