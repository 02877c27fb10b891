"""The cache: made once, whole or not at all, whoever else is at it and whoever dies over it."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kubewright.components.cache import Cache, cache_root, remove_tree, scratch
from kubewright.errors import ComponentError, ExitCode

MAKER = """
import asyncio, os, sys, time
from pathlib import Path
from kubewright.components.cache import Cache

async def build(target):
    with open(sys.argv[2], "a") as log:
        log.write(f"{os.getpid()}\\n")
    (target / "half").write_text("half")
    print("building", flush=True)
    await asyncio.sleep(float(sys.argv[3]))
    (target / "program").write_text("whole")

entry = asyncio.run(Cache(Path(sys.argv[1])).entry("kind", {"a": 1}, build))
print(entry.files["program"].sha256)
"""


def start(root: Path, log: Path, seconds: float) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", MAKER, str(root), str(log), str(seconds)], stdout=subprocess.PIPE, text=True
    )


async def fill(target: Path) -> dict[str, str]:
    (target / "program").write_bytes(b"whole")
    (target / "tree").mkdir()
    (target / "tree" / "file").write_text("not verified")
    return {"version": "1"}


async def no_build(target: Path) -> None:
    raise AssertionError("the cache should have had it")


async def test_an_entry_is_made_once_and_found_afterwards(tmp_path: Path) -> None:
    made = await Cache(tmp_path).entry("kind", {"a": 1}, fill)
    assert made.files["program"].path.read_bytes() == b"whole"
    assert made.files["program"].size == 5
    assert made.info == {"version": "1"}
    assert set(made.files) == {"program"}
    assert (made.path / "tree" / "file").exists()
    assert await Cache(tmp_path).entry("kind", {"a": 1}, no_build) == made
    assert await Cache(tmp_path).find("kind", {"a": 1}) == made
    assert await Cache(tmp_path).find("kind", {"a": 2}) is None


async def test_other_inputs_are_another_entry(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    one = await cache.entry("kind", {"a": 1}, fill)
    assert (await cache.entry("kind", {"a": 2}, fill)).path != one.path
    assert (await cache.entry("other", {"a": 1}, fill)).path != one.path


async def test_a_changed_file_is_found_out_and_the_entry_made_again(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    path = (await cache.entry("kind", {}, fill)).files["program"].path
    times = path.stat().st_atime_ns, path.stat().st_mtime_ns
    path.write_bytes(b"wrong")  # of the same length, and with its old time put back
    os.utime(path, ns=times)
    assert await cache.find("kind", {}) is None
    assert (await cache.entry("kind", {}, fill)).files["program"].path.read_bytes() == b"whole"


async def test_a_copied_cache_is_hashed_again_and_not_made_again(tmp_path: Path) -> None:
    made = await Cache(tmp_path / "a").entry("kind", {}, fill)
    shutil.copytree(tmp_path / "a", tmp_path / "b", copy_function=shutil.copyfile)
    stamps = json.loads((made.path / "stamps.json").read_text())
    copied = await Cache(tmp_path / "b").entry("kind", {}, no_build)
    assert copied.files["program"].sha256 == made.files["program"].sha256
    assert json.loads((copied.path / "stamps.json").read_text()) != stamps


async def test_a_missing_file_or_broken_manifest_is_no_entry(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    made = await cache.entry("kind", {}, fill)
    made.files["program"].path.unlink()
    assert await cache.find("kind", {}) is None
    made = await cache.entry("kind", {}, fill)
    (made.path / "manifest.json").write_text("{")
    assert await cache.find("kind", {}) is None
    assert (await cache.entry("kind", {}, fill)).files


async def test_a_builder_that_fails_or_is_cancelled_leaves_nothing(tmp_path: Path) -> None:
    async def fail(target: Path) -> None:
        (target / "half").write_text("half")
        raise ComponentError("no")

    async def wait(target: Path) -> None:
        (target / "half").write_text("half")
        await asyncio.sleep(60)

    cache = Cache(tmp_path)
    with pytest.raises(ComponentError, match="no"):
        await cache.entry("kind", {}, fail)
    assert list((tmp_path / "kind").iterdir()) == []
    task = asyncio.create_task(cache.entry("kind", {}, wait))
    while not list((tmp_path / "kind").glob(".*/half")):  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert list((tmp_path / "kind").iterdir()) == []


async def test_two_tasks_make_it_once(tmp_path: Path) -> None:
    calls = []

    async def build(target: Path) -> None:
        calls.append(target)
        await asyncio.sleep(0.2)
        (target / "program").write_text("whole")

    cache = Cache(tmp_path)
    one, two = await asyncio.gather(cache.entry("kind", {}, build), cache.entry("kind", {}, build))
    assert one == two
    assert len(calls) == 1


def test_two_processes_make_it_once(tmp_path: Path) -> None:
    log = tmp_path / "log"
    makers = [start(tmp_path / "cache", log, 0.5) for _ in range(2)]
    digests = [maker.communicate(timeout=20)[0].split()[-1] for maker in makers]
    assert [maker.returncode for maker in makers] == [0, 0]
    assert digests[0] == digests[1]
    assert len(log.read_text().split()) == 1


def test_a_killed_maker_does_no_harm(tmp_path: Path) -> None:
    root, log = tmp_path / "cache", tmp_path / "log"
    killed = start(root, log, 60)
    assert killed.stdout is not None
    assert killed.stdout.readline() == "building\n"
    killed.send_signal(signal.SIGKILL)
    killed.communicate(timeout=10)
    assert len(list((root / "kind").glob(".*"))) == 1  # what it left
    after = start(root, log, 0)
    after.communicate(timeout=20)
    assert after.returncode == 0
    assert list((root / "kind").glob(".*")) == []
    assert len(log.read_text().split()) == 2


async def test_a_lock_that_is_not_let_go_is_named_with_its_holder(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    said: list[str] = []
    async with cache.lock("apt"):
        with pytest.raises(ComponentError, match=f"process {os.getpid()}") as caught:
            async with Cache(tmp_path).lock("apt", patience=0.2, waiting=said.append):
                pass
    assert caught.value.exit_code is ExitCode.BUSY
    assert len(said) == 1
    async with cache.lock("apt", patience=0):
        pass


async def test_old_entries_are_pruned_and_used_ones_kept(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    entries = [await cache.entry("kind", {"n": number}, fill) for number in range(6)]
    for age, entry in enumerate(reversed(entries)):
        at = time.time() - age * 86400
        os.utime(entry.path / "manifest.json", (at, at))
    left_behind = tmp_path / "kind" / f".{entries[0].path.name}.abcdef"
    left_behind.mkdir()
    cache.prune("kind")
    assert [entry.path.exists() for entry in entries] == [False, False, False, True, True, True]
    assert not left_behind.exists()


async def test_an_entry_that_is_being_made_is_not_pruned(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    place = cache.place("kind", {})
    beside = place.parent / f".{place.name}.abcdef"
    beside.mkdir(parents=True)
    async with cache.lock(f"kind-{place.name}"):
        cache.prune("kind")
        assert beside.exists()


async def test_scratch_is_removed(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no"):
        async with scratch(tmp_path) as work:
            (work / "folder").mkdir()
            raise ValueError("no")
    assert list(tmp_path.iterdir()) == []


def test_a_tree_with_a_mount_in_it_is_not_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("stays")
    monkeypatch.setattr("kubewright.components.cache._mounted", lambda path: path == tmp_path)
    with pytest.raises(ComponentError, match="mounted"):
        remove_tree(tmp_path)
    assert (tmp_path / "file").exists()


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBEWRIGHT_CACHE", raising=False)
    monkeypatch.setenv("HOME", "/home/ann")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert cache_root() == Path("/home/ann/.cache/kubewright")
    monkeypatch.setenv("XDG_CACHE_HOME", "/var/cache/ann")
    assert cache_root() == Path("/var/cache/ann/kubewright")
    monkeypatch.setenv("KUBEWRIGHT_CACHE", "/data/cache")
    assert cache_root() == Path("/data/cache")
