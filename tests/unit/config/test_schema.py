"""The JSON schema and the reference page: made from the models, and true."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from click.testing import CliRunner

from kubewright.cli.config import config
from kubewright.errors import ConfigError, ExitCode
from kubewright.model.config.example import EXAMPLE
from kubewright.model.config.load import parse_cluster
from kubewright.model.config.reference import reference
from kubewright.model.config.schema import cluster_schema
from kubewright.model.versions import facts_for

HOSTS = [{"name": "cp1", "address": "10.1.1.1", "roles": ["control-plane"]}]


@cache
def validator() -> jsonschema.Draft202012Validator:
    schema = cluster_schema(facts_for("v1.20.2"))
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def test_the_schema_accepts_the_example() -> None:
    validator().validate(yaml.safe_load(EXAMPLE))


@pytest.mark.parametrize(
    "document",
    [
        {}, {"hosts": []}, {"hosts": HOSTS, "nmae": "x"}, {"hosts": [{"name": "a", "adress": "b"}]},
        {"hosts": [HOSTS[0] | {"roles": ["x"]}]}, {"hosts": HOSTS, "ssh": {"port": 0}},
        {"hosts": HOSTS, "clusterConfiguration": {"apiServr": {}}},
        {"hosts": HOSTS, "clusterConfiguration": {"apiServer": {"extraArgs": {"v": 2}}}},
        {"hosts": HOSTS, "kubeletConfiguration": {"maxPod": 1}},
        {"hosts": HOSTS, "kubeletConfiguration": {"authentication": {"x509": {"ca": "x"}}}},
        {"hosts": HOSTS, "kubeProxyConfiguration": {"kind": "X"}},
    ],
)  # fmt: skip
def test_the_schema_refuses_what_the_reader_refuses(document: Any) -> None:
    assert not validator().is_valid(document)
    with pytest.raises(ConfigError):
        parse_cluster(yaml.safe_dump(document))


def test_every_field_has_a_title_and_a_description_in_camel_case() -> None:
    schema = cluster_schema(facts_for("v1.20.2"))
    parts = [schema, *(part for name, part in schema["$defs"].items() if not name.startswith("Kube"))]
    for part in parts:
        for name, property_ in part.get("properties", {}).items():
            assert "_" not in name
            if part is schema or name not in ("apiVersion", "kind"):
                assert property_.get("description") or "$ref" in property_, name
    assert schema["properties"]["hosts"]["title"] == "hosts"
    assert schema["$defs"]["HostSpec"]["properties"]["nodeIP"]["examples"] == ["192.168.7.11"]


def test_the_commands_print_the_schema_and_the_example() -> None:
    printed = CliRunner().invoke(config, ["schema"])
    assert printed.exit_code == 0
    assert json.loads(printed.stdout) == cluster_schema(facts_for("v1.20.2"))
    assert CliRunner().invoke(config, ["example"]).stdout == EXAMPLE


def test_a_schema_of_an_unknown_version_is_refused() -> None:
    result = CliRunner().invoke(config, ["schema", "--kubernetes-version", "v1.99.0"])
    assert isinstance(result.exception, ConfigError)
    assert result.exception.exit_code is ExitCode.VERSION_UNAVAILABLE
    assert result.exception.message.startswith("--kubernetes-version: ")


def test_the_reference_page_is_current() -> None:
    page = Path(__file__).parents[3] / "docs" / "cluster-yaml.md"
    assert page.read_text() == reference(), "run `kubewright config reference > docs/cluster-yaml.md`"
