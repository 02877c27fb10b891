"""Our context in the user's kubeconfig: P24, and rule 9: nothing of the user's is touched."""

from __future__ import annotations

import multiprocessing
import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kubewright.clients import kubeconfig
from kubewright.clients.server import Server
from kubewright.errors import ConfigError, ExitCode

ADMIN: dict[str, Any] = {
    "apiVersion": "v1", "kind": "Config", "current-context": "kubernetes-admin@kubernetes",
    "clusters": [{"name": "kubernetes", "cluster": {"server": "https://10.0.0.1:6443",
                                                    "certificate-authority-data": "Y2E="}}],
    "users": [{"name": "kubernetes-admin",
               "user": {"client-certificate-data": "Yw==", "client-key-data": "aw=="}}],
    "contexts": [{"name": "kubernetes-admin@kubernetes",
                  "context": {"cluster": "kubernetes", "user": "kubernetes-admin"}}],
}  # fmt: skip

names = st.text(st.characters(blacklist_categories=("Cs", "Cc")), min_size=1, max_size=12).filter(
    lambda name: name != "lab" and not name.startswith("kubewright:")
)
scalars = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20)
    | st.sampled_from(["yes", "1e3", "2020-01-01T00:00:00Z", "0x1f", "null", "~", "a: b", "#x", " x "])
)  # fmt: skip
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=6,
)


def entries(inner: str) -> st.SearchStrategy[list[dict[str, Any]]]:
    entry = st.fixed_dictionaries(
        {"name": names, inner: st.dictionaries(names, values, max_size=4)}, optional={"extensions": values}
    )
    return st.lists(entry, max_size=4, unique_by=lambda item: item["name"])


configs = st.fixed_dictionaries(
    {},
    optional={
        "apiVersion": st.just("v1"), "kind": st.just("Config"), "preferences": values, "extra": values,
        "current-context": names | st.just(""), "clusters": entries("cluster") | st.none(),
        "users": entries("user"), "contexts": entries("context"),
    },
)  # fmt: skip


def without_ours(config: dict[str, Any]) -> dict[str, Any]:
    """The document less our context, and less what an empty kubeconfig has anyway."""
    rest = {key: value for key, value in config.items() if key not in ("apiVersion", "kind")}
    for section, ours in (("clusters", "kubewright:lab"), ("users", "kubewright:lab"), ("contexts", "lab")):
        rest[section] = [item for item in rest.get(section) or [] if item["name"] != ours]
    if rest.get("current-context") in ("lab", "", None):
        rest.pop("current-context", None)
    return rest


@settings(
    deadline=None,
    max_examples=25,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(config=configs, flow=st.booleans())
def test_merging_and_removing_touch_nothing_of_the_users(
    tmp_path: Path, config: dict[str, Any], flow: bool
) -> None:
    target = tmp_path / "config"
    target.write_text(yaml.safe_dump(config, default_flow_style=flow, allow_unicode=True, sort_keys=False))
    before = yaml.safe_load(target.read_text())
    merged = kubeconfig.merge_context(target, ADMIN, "lab")
    after = yaml.safe_load(target.read_text())
    assert without_ours(after) == without_ours(before)
    assert [key for key in after if key in before] == list(before), "the order stays"
    assert merged.current == (after["current-context"] == "lab") == (not before.get("current-context"))
    assert Server.from_kubeconfig(after, context="lab").url == "https://10.0.0.1:6443"
    assert kubeconfig.merge_context(target, ADMIN, "lab") == merged
    assert yaml.safe_load(target.read_text()) == after
    assert kubeconfig.remove_context(target, "lab")
    gone = yaml.safe_load(target.read_text())
    assert without_ours(gone) == without_ours(before)
    assert "lab" not in [item["name"] for item in gone["contexts"]]
    assert gone["current-context"] == (before.get("current-context") or "")


def test_a_new_file_is_private_and_ours_is_current(tmp_path: Path) -> None:
    target = tmp_path / ".kube" / "config"
    assert kubeconfig.merge_context(target, ADMIN, "lab").current
    assert target.stat().st_mode & 0o777 == 0o600
    assert target.parent.stat().st_mode & 0o777 == 0o700
    assert sorted(path.name for path in target.parent.iterdir()) == ["config"], (
        "no lock or scratch file stays"
    )


def test_quoting_anchors_and_dates_survive(tmp_path: Path) -> None:
    target = tmp_path / "config"
    target.write_text(
        "users:\n- name: a\n  user: &u\n    token: '007'\n    expiry: 2020-01-01T00:00:00Z\n    flag: \"yes\"\n"
        "- name: b\n  user: *u\n"
    )
    kubeconfig.merge_context(target, ADMIN, "lab")
    text = target.read_text()
    for part in ("token: '007'", "expiry: 2020-01-01T00:00:00Z", 'flag: "yes"'):
        assert part in text
    assert kubeconfig.load([target])["users"][1]["user"]["expiry"] == "2020-01-01T00:00:00Z"


def test_a_foreign_context_of_that_name_is_refused(tmp_path: Path) -> None:
    target = tmp_path / "config"
    target.write_text("contexts:\n- name: lab\n  context: {cluster: c, user: u}\n")
    before = target.read_text()
    with pytest.raises(ConfigError, match="did not make"):
        kubeconfig.merge_context(target, ADMIN, "lab")
    assert not kubeconfig.remove_context(target, "lab")
    assert target.read_text() == before


def test_a_namespace_that_the_user_set_in_our_context_stays(tmp_path: Path) -> None:
    target = tmp_path / "config"
    kubeconfig.merge_context(target, ADMIN, "lab")
    config = yaml.safe_load(target.read_text())
    config["contexts"][0]["context"]["namespace"] = "web"
    target.write_text(yaml.safe_dump(config))
    kubeconfig.merge_context(target, ADMIN, "lab")
    assert yaml.safe_load(target.read_text())["contexts"][0]["context"]["namespace"] == "web"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: [1", "line 1"),
        ("- 1\n", "not a mapping"),
        ("contexts: 3\n", "contexts: must be a list"),
        ("users:\n- user: {}\n", r"users\[0\]"),
    ],
)
def test_a_broken_file_is_named_and_left_alone(tmp_path: Path, text: str, says: str) -> None:
    target = tmp_path / "config"
    target.write_text(text)
    with pytest.raises(ConfigError, match=says) as caught:
        kubeconfig.merge_context(target, ADMIN, "lab")
    assert str(target) in caught.value.message
    assert target.read_text() == text


def test_no_secret_of_a_broken_file_is_shown(tmp_path: Path) -> None:
    target = tmp_path / "config"
    target.write_text("users:\n- name: a\n  user:\n    token: hunter2: [\n")
    with pytest.raises(ConfigError) as caught:
        kubeconfig.load([target])
    assert "hunter2" not in f"{caught.value.message}{caught.value.hint}{caught.value.evidence}"


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("{}\n")
    (tmp_path / "config").symlink_to(tmp_path / "real")
    kubeconfig.merge_context(tmp_path / "config", ADMIN, "lab")
    assert (tmp_path / "config").is_symlink()
    assert "kubewright:lab" in (tmp_path / "real").read_text()


def test_the_lock_of_a_dead_process_is_removed_and_a_living_one_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, lock = tmp_path / "config", tmp_path / "config.lock"
    child = multiprocessing.get_context("fork").Process(target=os.getpid)
    child.start()
    child.join()
    lock.write_text(f"kubewright {child.pid}")
    kubeconfig.merge_context(target, ADMIN, "lab")
    assert not lock.exists()
    monkeypatch.setattr("kubewright.clients.filelock._PATIENCE", 0.1)
    lock.touch()
    with pytest.raises(ConfigError, match=r"config\.lock is there") as caught:
        kubeconfig.merge_context(target, ADMIN, "other")
    assert caught.value.exit_code is ExitCode.BUSY
    assert lock.exists(), "a lock that is not ours is not removed"


def _merge(target: Path, number: int) -> None:
    kubeconfig.merge_context(target, ADMIN, f"lab{number}")


def test_processes_at_once_lose_nothing(tmp_path: Path) -> None:
    target = tmp_path / "config"
    context = multiprocessing.get_context("fork")
    children = [context.Process(target=_merge, args=(target, number)) for number in range(6)]
    for child in children:
        child.start()
    for child in children:
        child.join()
    assert [child.exitcode for child in children] == [0] * 6
    assert {item["name"] for item in kubeconfig.load([target])["contexts"]} == {f"lab{n}" for n in range(6)}


def test_several_files_are_read_as_kubectl_reads_them(tmp_path: Path) -> None:
    (tmp_path / "a").write_text(
        "clusters: [{name: one, cluster: {server: a, certificate-authority: ca.crt}}]\n"
    )
    (tmp_path / "b").write_text(
        "current-context: two\nclusters: [{name: one, cluster: {server: b}}, {name: two, cluster: {server: b}}]\n"
    )
    env = {"KUBECONFIG": f"{tmp_path}/a:{tmp_path}/none:{tmp_path}/b"}
    files = kubeconfig.default_files(env)
    config = kubeconfig.load(files)
    assert config["current-context"] == "two"
    assert [(item["name"], item["cluster"]["server"]) for item in config["clusters"]] == [
        ("one", "a"),
        ("two", "b"),
    ]
    assert config["clusters"][0]["cluster"]["certificate-authority"] == f"{tmp_path}/ca.crt"
    assert kubeconfig.default_target(env) == tmp_path / "a"
    assert kubeconfig.default_target({"KUBECONFIG": "/none/a:/none/b"}) == Path("/none/b")
    assert kubeconfig.default_files({}) == [Path("~/.kube/config").expanduser()]


def test_a_cluster_without_authority_is_verified_by_the_systems(tmp_path: Path) -> None:
    config = {
        "current-context": "c", "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": "https://a"}}],
        "users": [{"name": "u", "user": {"token": "t"}}],
    }  # fmt: skip
    try:
        assert Server.from_kubeconfig(config).ca is not None
    except ConfigError as error:
        assert "certificate-authority" in error.message
    config["clusters"][0]["cluster"]["insecure-skip-tls-verify"] = True  # type: ignore[index]
    assert Server.from_kubeconfig(config).ca is None
    config["users"][0]["user"] = {"exec": {"command": "aws"}}  # type: ignore[index]
    with pytest.raises(ConfigError, match="'exec'"):
        Server.from_kubeconfig(config)
    config["users"][0]["user"] = {"token": "t"}  # type: ignore[index]
    config["clusters"][0]["cluster"]["server"] = "https://a:99999"  # type: ignore[index]
    with pytest.raises(ConfigError, match="'https://a:99999' is not a URL"):
        Server.from_kubeconfig(config)
