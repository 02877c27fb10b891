"""What every client of the Kubernetes API does with objects, whatever carries its requests."""

from __future__ import annotations

import asyncio
import builtins
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Self

from kubewright.clients.paths import Object, collection_path, object_path, path_of
from kubewright.clients.server import Server
from kubewright.errors import ApiError, ConfigError

FIELD_MANAGER = "kubewright"
# What the API server says, with a status of 500, of a request that met an election in etcd, or whose message from
# member to member was lost: etcd 3.4 sends none again and gives up after 7 s (etcdserver/errors.go).
_ELECTION = (
    "etcdserver: leader changed",
    "etcdserver: request timed out",
    "raft proposal dropped",
)
_ELECTION_PATIENCE = 10.0  # seconds


class ObjectClient(ABC):
    """Objects are dicts, as they stand in a manifest; paths are made from `apiVersion`, `kind`, namespace and
    name. Use it as an asynchronous context manager.

    A refused request raises `ApiError` with the server's own message; an unreachable server raises `ApiError`
    with status 0.
    """

    server: Server

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @abstractmethod
    async def close(self) -> None:
        """End all connections."""

    @abstractmethod
    async def request(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        params: Mapping[str, str] | None = None,
        content_type: str = "application/json",
        timeout: float | None = None,
    ) -> bytes:
        """One request; the answer's body. Raises `ApiError` for a status of 400 or more, or no answer.

        `timeout` is in seconds; without one it is the client's own.
        """

    def _identity(self) -> dict[str, str]:
        """The header by which a token proves who we are; none where a certificate does."""
        token = self.server.token
        if self.server.token_file is not None:
            try:
                token = self.server.token_file.read_text().strip()
            except OSError as error:
                raise ConfigError(
                    f"the token file {self.server.token_file} cannot be read: {error.strerror}"
                ) from None
        return {"Authorization": f"Bearer {token}"} if token else {}

    async def json(self, method: str, path: str, **options: Any) -> Any:
        """`request`, with the answer parsed; made again where it met an election in etcd, unless it creates."""
        data = await self._steadily(method, path, **options)
        try:
            return json.loads(data or b"null")
        except ValueError:
            raise ApiError(
                f"{method} {self.server.url}{path}: what answers there is no Kubernetes API",
                hint="does the address lead to the API server, or to a proxy before it?",
            ) from None

    async def _steadily(self, method: str, path: str, **options: Any) -> bytes:
        """All but a POST may be made twice: one that met an election may have been carried out, or not."""
        loop = asyncio.get_running_loop()
        end = 0.0  # counted from the first refusal, which may come after many seconds
        while True:
            try:
                return await self.request(method, path, **options)
            except ApiError as error:
                met = any(text in error.message for text in _ELECTION)
                end = end or loop.time() + _ELECTION_PATIENCE
                if not met or method == "POST" or loop.time() > end:
                    raise
            await asyncio.sleep(0.1)

    async def get(self, api_version: str, kind: str, name: str, namespace: str = "") -> Object | None:
        """One object, or None where there is none."""
        try:
            found: Object = await self.json("GET", object_path(api_version, kind, namespace, name))
        except ApiError as error:
            if error.status == 404:
                return None
            raise
        return found

    async def list(
        self, api_version: str, kind: str, namespace: str = "", *, labels: str = "", fields: str = ""
    ) -> list[Object]:
        """All objects of a kind, of one namespace or of all, with their apiVersion and kind filled in."""
        items, _ = await self.list_with_version(api_version, kind, namespace, labels=labels, fields=fields)
        return items

    async def list_with_version(
        self, api_version: str, kind: str, namespace: str = "", *, labels: str = "", fields: str = ""
    ) -> tuple[builtins.list[Object], str]:
        """`list`, and the resourceVersion from which a watch goes on."""
        answer = await self.json(
            "GET", object_path(api_version, kind, namespace), params=selectors(labels, fields)
        )
        for item in answer.get("items") or []:
            item.setdefault("apiVersion", api_version)
            item.setdefault("kind", kind)
        return answer.get("items") or [], answer.get("metadata", {}).get("resourceVersion", "")

    async def create(self, obj: Object) -> Object:
        """Create an object; `ApiError` with status 409 where it exists."""
        created: Object = await self.json("POST", collection_path(obj), body=obj)
        return created

    async def apply(self, obj: Object, *, dry_run: bool = False) -> Object:
        """Server-side apply: create the object, or change the fields that `obj` names and no others."""
        params = {"fieldManager": FIELD_MANAGER, "force": "true"}
        if dry_run:
            params["dryRun"] = "All"
        applied: Object = await self.json(
            "PATCH", path_of(obj), body=obj, params=params, content_type="application/apply-patch+yaml"
        )
        return applied

    async def patch(
        self,
        api_version: str,
        kind: str,
        name: str,
        change: Any,
        namespace: str = "",
        *,
        subresource: str = "",
    ) -> Object:
        """A strategic merge patch."""
        path = object_path(api_version, kind, namespace, name) + (f"/{subresource}" if subresource else "")
        patched: Object = await self.json(
            "PATCH", path, body=change, content_type="application/strategic-merge-patch+json"
        )
        return patched

    async def merge(self, api_version: str, kind: str, name: str, change: Any, namespace: str = "") -> Object:
        """A JSON merge patch (RFC 7386): a list in it replaces the whole list."""
        path = object_path(api_version, kind, namespace, name)
        patched: Object = await self.json(
            "PATCH", path, body=change, content_type="application/merge-patch+json"
        )
        return patched

    async def delete(
        self, api_version: str, kind: str, name: str, namespace: str = "", *, grace: int | None = None
    ) -> bool:
        """Delete an object in the background; False where there was none. `grace` is in seconds."""
        options: Object = {"propagationPolicy": "Background"}
        if grace is not None:
            options["gracePeriodSeconds"] = grace
        try:
            await self._steadily("DELETE", object_path(api_version, kind, namespace, name), body=options)
        except ApiError as error:
            if error.status == 404:
                return False
            raise
        return True


def payload(body: Any) -> bytes:
    """What a request sends: `body` itself where it is bytes, else its JSON."""
    return body if isinstance(body, bytes) else json.dumps(body).encode()


def selectors(labels: str, fields: str) -> dict[str, str]:
    """The query of a list or watch."""
    return ({"labelSelector": labels} if labels else {}) | ({"fieldSelector": fields} if fields else {})


_NOT_KNOWN = (
    "the API server does not know the kubeconfig's user: its certificate may have expired, or be of another "
    "cluster's CA; on a control plane, `kubewright certs check-expiration` shows it, and `kubewright certs renew "
    "admin.conf` renews that of /etc/kubernetes/admin.conf (P22)"
)


def _no_answer_hint(error: BaseException) -> str:
    """The mend where a request had no answer; a certificate that is not accepted is no matter of reaching it."""
    if "CERTIFICATE_VERIFY_FAILED" not in str(error):
        return "is the API server up, and reachable from here?"
    return (
        "the API server's certificate has expired, lacks this name, or is of another cluster's CA: on the "
        "control plane, `kubewright certs check-expiration` shows it, and `kubewright certs renew apiserver` "
        "renews it (P22)"
    )


def unanswered(method: str, url: str, error: Exception) -> ApiError:
    """The error for a request that had no answer, or none that could be read."""
    return ApiError(f"{method} {url}: {str(error) or type(error).__name__}", hint=_no_answer_hint(error))


def _budgets(status: Object) -> list[str]:
    """What a `v1.Status` says of the PodDisruptionBudget that forbids an eviction; its message has no name."""
    causes = (status.get("details") or {}).get("causes") or []
    return [f"{cause.get('message')}." for cause in causes if cause.get("reason") == "DisruptionBudget"]


def refused(method: str, path: str, status: int, data: bytes) -> ApiError:
    """The error for a request that was answered with a status of 400 or more."""
    reason, message = "", data.decode(errors="replace")[:300]
    with suppress(ValueError):
        body = json.loads(data)
        if isinstance(body, dict):
            reason, message = str(body.get("reason", "")), str(body.get("message", message))
            message = " ".join([message, *_budgets(body)])
    hint = _NOT_KNOWN if status == 401 else ""
    return ApiError(f"{method} {path}: {status} {message}", status=status, reason=reason, hint=hint)
