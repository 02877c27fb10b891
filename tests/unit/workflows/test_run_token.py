"""The bootstrap token of one run: its Secret, and its signature of cluster-info before the controllers come."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from kubewright.clients.kube import KubeClient
from kubewright.errors import ApiError
from kubewright.model import discovery
from kubewright.model.objects import Object
from kubewright.workflows import run_token as run_token_module
from kubewright.workflows.run_token import RunToken


class Api:
    """Keeps what is created, and one ConfigMap."""

    def __init__(self, info: Object | None) -> None:
        self.info = info
        self.secrets: list[Object] = []
        self.unwell = False

    async def create(self, obj: Object) -> Object:
        self.secrets.append(obj)
        return obj

    async def get(self, *_: str) -> Object | None:
        return self.info

    async def merge(self, _version: str, _kind: str, name: str, change: Any, namespace: str) -> None:
        assert (name, namespace) == ("cluster-info", "kube-public")
        if self.unwell:
            self.unwell = False
            raise ApiError("the leader has changed", status=500)
        assert self.info is not None
        self.info["data"] |= change["data"]
        self.info["data"] = {key: value for key, value in self.info["data"].items() if value is not None}

    async def delete(self, _version: str, _kind: str, name: str, _namespace: str) -> bool:
        self.secrets = [one for one in self.secrets if one["metadata"]["name"] != name]
        return True


def run_token(api: Api) -> RunToken:
    async def answers() -> KubeClient:
        return api  # type: ignore[return-value]

    return RunToken(answers)


async def test_it_signs_cluster_info_and_goes_with_the_run() -> None:
    api = Api({"data": {"kubeconfig": "apiVersion: v1\nkind: Config\n"}})
    token = run_token(api)
    text = await token.text()
    assert await token.text() is text
    assert len(api.secrets) == 1
    assert api.info is not None
    discovery.verify_signature(api.info, text)
    await token.forget()
    assert api.secrets == []
    assert list(api.info["data"]) == ["kubeconfig"]


async def test_one_that_would_end_during_a_join_is_made_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    api = Api({"data": {"kubeconfig": "apiVersion: v1\nkind: Config\n"}})
    token = run_token(api)
    monkeypatch.setattr(run_token_module, "_LIFETIME", timedelta(0))
    old = await token.text()
    monkeypatch.undo()
    new = await token.text()
    assert new is not old
    assert api.info is not None
    discovery.verify_signature(api.info, new)
    assert await token.text() is new


async def test_a_signature_that_cannot_be_written_is_the_controllers_business() -> None:
    api = Api({"data": {"kubeconfig": "apiVersion: v1\nkind: Config\n"}})
    api.unwell = True
    token = run_token(api)
    await token.text()
    assert api.info == {"data": {"kubeconfig": "apiVersion: v1\nkind: Config\n"}}
    await token.forget()
    assert api.secrets == []


async def test_a_run_that_joins_nobody_makes_none() -> None:
    api = Api(None)
    await run_token(api).forget()
    assert api.secrets == []


@pytest.mark.parametrize("info", [None, {}, {"data": None}])
async def test_where_cluster_info_is_not_there_yet_the_controllers_will_sign_it(info: Object | None) -> None:
    api = Api(info)
    await run_token(api).text()
    assert len(api.secrets) == 1
    assert api.info == info
