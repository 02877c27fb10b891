"""The annotation that tells whose a Node is."""

from __future__ import annotations

import pytest

from kubewright.model.config.cluster import ClusterSpec
from kubewright.model.node_origin import HOST_ANNOTATION, Origin, origin, strays


@pytest.mark.parametrize(
    "text", ["192.0.2.1", "root@192.0.2.1:2222", "me@cp1.example.com", "local", "a@[2001:db8::1]:22"]
)
def test_what_is_written_is_what_is_read(text: str) -> None:
    found = Origin.parse(text)
    assert found is not None
    assert str(found) == text


def test_an_annotation_that_leads_nowhere_is_none() -> None:
    for text in ("", "me@", "me@a:0", ":22"):
        assert Origin.parse(text) is None


def test_a_host_has_its_own_settings_over_the_clusters() -> None:
    hosts = [
        {"name": "a", "address": "192.0.2.1", "roles": ["control-plane"], "ssh": {"port": 2222}},
        {"name": "b", "address": "192.0.2.2"},
        {"name": "c", "address": "local"},
    ]
    spec = ClusterSpec.model_validate({"ssh": {"user": "root"}, "hosts": hosts})
    assert [str(Origin.of(spec, host)) for host in spec.hosts] == [
        "root@192.0.2.1:2222",
        "root@192.0.2.2",
        "local",
    ]


def test_nodes_that_the_file_does_not_name_are_ours_or_others() -> None:
    def node(name: str, where: str = "") -> dict[str, object]:
        return {"metadata": {"name": name, "annotations": {HOST_ANNOTATION: where} if where else None}}

    nodes = [node("cp1", "192.0.2.1"), node("old", "192.0.2.2"), node("theirs")]
    assert strays(nodes, {"cp1"}) == (["old"], ["theirs"])
    assert origin(nodes[2]) is None
