"""Labs: up, down and list. Each looks at what is there first, so a run that was killed is finished by the next."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from kubewright.errors import ExitCode, KubewrightError
from kubewright.events import Events
from kubewright.lab import cgroups, computer, limits
from kubewright.lab.description import cluster_document, cluster_name, cluster_yaml, read_document
from kubewright.lab.disk import LabKeys, hosts_file, machine_files, write_disk
from kubewright.lab.keys import ensure_client_key, known_hosts, make_key, write_private
from kubewright.lab.machine import Machine, MachineEndedError, enter, remove_tree
from kubewright.lab.network import LabNetwork, drop_namespace, link_alias, networks_in_use
from kubewright.lab.places import RUN, STATE, Places, computer_lock, lab_lock, remove_if_empty
from kubewright.lab.plan import LabPlan, check_lab_name, choose_subnet, is_machine_name, plan_machines
from kubewright.lab.proc import read, run
from kubewright.lab.root import machine_root


@dataclass(frozen=True, slots=True)
class Lab:
    """A lab that is there."""

    plan: LabPlan
    places: Places
    machines: tuple[Machine, ...]

    @property
    def name(self) -> str:
        """The lab's name."""
        return self.plan.name

    @property
    def context(self) -> str:
        """The name of its cluster and of its context in a kubeconfig."""
        return cluster_name(self.name)

    def machine(self, name: str) -> Machine:
        """The machine called `name`. Raises `KubewrightError`."""
        for machine in self.machines:
            if machine.name == name:
                return machine
        raise KubewrightError(
            f"lab {self.name!r} has no machine {name!r}",
            hint=f"its machines: {', '.join(machine.name for machine in self.machines)}",
            exit_code=ExitCode.USAGE,
        )


def open_lab(name: str) -> Lab:
    """The lab called `name`. Raises `KubewrightError` where there is none."""
    places = Places(check_lab_name(name))
    try:
        plan = LabPlan.from_json(places.plan.read_text(), str(places.plan))
    except PermissionError:
        raise _not_root("labs are root's") from None
    except FileNotFoundError:
        others = ", ".join(lab_names()) or "there are none"
        raise KubewrightError(
            f"there is no lab {name!r}", hint=f"labs: {others}; `kubewright lab up` makes one",
            exit_code=ExitCode.USAGE,
        ) from None  # fmt: skip
    return _lab(plan, places)


def _not_root(message: str) -> KubewrightError:
    return KubewrightError(message, hint="run it with sudo", exit_code=ExitCode.HOST_NO_PRIVILEGE)


@contextlib.contextmanager
def _disk_errors() -> Iterator[None]:
    """A disk that is full, read-only or broken is the user's to mend, and has a file's name."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise KubewrightError(
            f"{error.filename or STATE}: {error.strerror or error}",
            hint=f"a lab needs space in {STATE} and {RUN}: see df" if full else "",
            exit_code=ExitCode.HOST_DISK_FULL if full else None,
        ) from error


def _lab(plan: LabPlan, places: Places) -> Lab:
    machines = [Machine(plan.name, machine, places.machines / machine.name) for machine in plan.machines]
    return Lab(plan, places, tuple(machines))


def lab_names() -> list[str]:
    """Everything that is left of any lab has a name here: directories, namespaces, cgroups and processes."""
    names = {path.name for path in _entries(STATE)} | cgroups.running_labs()
    names |= {path.name.removesuffix(".net") for path in _entries(RUN) if path.name.endswith(".net")}
    return sorted(name for name in names if not name.startswith("."))


def list_labs() -> list[Lab]:
    """The labs that have a plan that can be read, in the order of their names."""
    found = []
    for name in lab_names():
        with contextlib.suppress(KubewrightError):
            found.append(open_lab(name))
    return found


async def up(
    name: str,
    *,
    control_planes: int | None,
    workers: int,
    events: Events,
    then: Callable[[Lab], Awaitable[None]] | None = None,
) -> Lab:
    """Make a lab with these machines, or make the one that is there so; return when all of them can be entered.

    Machines that run are left alone, those that do not are started with their disks as they were, and those
    beyond the counts are removed. Without a number of control planes it is as it was, 1 for a new lab. `then` is
    run before the lab may be changed by another process again, and before control planes go: it lets them leave
    etcd, which would wait for them.
    """
    places = Places(check_lab_name(name))
    (await computer.look()).require_lab()
    async with lab_lock(name):
        lab = await _machines_up(places, control_planes, workers, events, all_planes=then is not None)
        if then is not None:
            await then(lab)
            with _disk_errors():
                await _remove_surplus(lab, None, LabNetwork(lab.plan, places.namespace), events)
    return lab


async def _machines_up(
    places: Places, control_planes: int | None, workers: int, events: Events, *, all_planes: bool
) -> Lab:
    """`up` without its lock and what follows. With `all_planes`, control planes beyond the count stay as yet."""
    with _disk_errors():
        plan, before = await _plan(places, control_planes, workers)
        lab = _lab(plan, places)
        network = LabNetwork(plan, places.namespace)
        public = ensure_client_key(places.key, f"kubewright-lab-{places.name}")
        await _remove_surplus(lab, before, network, events, all_planes=all_planes)
        if any(not machine.exists() for machine in lab.machines):
            root = await machine_root(events)
            for machine in lab.machines:
                if not machine.exists():
                    _make_disk(plan, machine, root, public)
        async with events.phase("lab-network", f"network {plan.subnet}") as phase:
            if not await network.ensure():
                phase.skip(f"network {plan.subnet} is there")
        attached = await network.attached()
        try:
            async with asyncio.TaskGroup() as group:
                for machine in lab.machines:
                    group.create_task(
                        run_machine(lab, machine, network, machine.plan.port in attached, events)
                    )
        except BaseExceptionGroup as failed:
            raise failed from None
        _write_descriptions(lab)
    return lab


async def _plan(places: Places, control_planes: int | None, workers: int) -> tuple[LabPlan, LabPlan | None]:
    """The plan for these counts, written down, and the one before it. The subnet is chosen once."""
    before: LabPlan | None = None
    with contextlib.suppress(FileNotFoundError):
        before = LabPlan.from_json(places.plan.read_text(), str(places.plan))
    async with computer_lock():
        others = [lab for lab in list_labs() if lab.name != places.name]
        if before is None:
            subnet = choose_subnet([*await networks_in_use(), *(lab.plan.subnet for lab in others)])
        else:
            subnet = before.subnet
        if control_planes is None:
            control_planes = sum(one.control_plane for one in before.machines) if before is not None else 1
        plan = LabPlan(places.name, subnet, plan_machines(subnet, control_planes, workers))
        if plan != before:
            for directory in (STATE.parent, STATE, places.directory, places.machines):
                directory.mkdir(mode=0o700, exist_ok=True)
            # Machines that go stay written down until they are gone: see `_remove_surplus`.
            write_private(places.plan, plan.to_json().encode())
        limits.raise_for(sum(len(lab.plan.machines) for lab in others) + len(plan.machines))
    return plan, before


async def _remove_surplus(
    lab: Lab, before: LabPlan | None, network: LabNetwork, events: Events, *, all_planes: bool = False
) -> None:
    """Remove the machines that are not in the plan, by what is left of them and not by what was planned.

    With `all_planes`, control planes stay.
    """
    for machine in _surplus(lab, before):
        if all_planes and machine.plan.control_plane:
            continue
        async with events.phase("machine-remove", "remove the machine", host=machine.name):
            await machine.stop()
            await network.detach(machine.plan)
            await machine.remove()


def _surplus(lab: Lab, before: LabPlan | None = None) -> list[Machine]:
    """The machines that are not in the plan, of which anything may be left."""
    found = {path.name for path in _entries(lab.places.machines)}
    found |= {machine.name for machine in before.machines} if before else set()
    names = sorted(filter(is_machine_name, found - {machine.name for machine in lab.machines}))
    return [Machine(lab.name, lab.plan.machine_for(name), lab.places.machines / name) for name in names]


def _make_disk(plan: LabPlan, machine: Machine, root: Path, client_public: str) -> None:
    private, public = make_key(f"root@{machine.name}")
    keys = LabKeys(client_public, private, public)
    write_disk(machine.directory, machine_files(plan, machine.plan, uuid4().hex, keys), root)


async def run_machine(
    lab: Lab, machine: Machine, network: LabNetwork, attached: bool, events: Events
) -> None:
    """Boot a machine of a lab whose network is there, where it does not run; `attached` says if it has a link."""
    async with events.phase("machine-boot", "boot the machine", host=machine.name) as phase:
        runs = attached and machine.pid() is not None
        state = ""
        relieved = False
        if runs:
            relieved = await machine.relieve(network)
            with contextlib.suppress(MachineEndedError):  # it was about to
                state = await machine.ready(phase.progress)
        if not state:
            runs = False
            await machine.stop()  # what a killed run left of it
            machine.start(network)
            state = await machine.ready(phase.progress)
        if state == "degraded":
            events.warn(f"some units failed: kubewright lab exec {lab.name} {machine.name} -- systemctl --failed",
                        host=machine.name)  # fmt: skip
        await _know_neighbours(lab.plan, machine)
        if relieved and runs:
            phase.summary("machine on its way again")
        elif runs:
            phase.skip("the machine runs")
        else:
            phase.summary("machine booted")


async def _know_neighbours(plan: LabPlan, machine: Machine) -> None:
    """Add the lines that a machine's /etc/hosts lacks, since the lab may have grown."""
    pid = machine.pid()
    have = read(f"/proc/{pid}/root/etc/hosts").splitlines()
    lacking = [line for line in hosts_file(plan).content.decode().splitlines() if line not in have]
    if lacking and pid is not None:
        text = "".join(f"{line}\n" for line in lacking).encode()
        await run([*enter(pid), "sh", "-c", "cat >> /etc/hosts"], stdin=text)


def _write_descriptions(lab: Lab) -> None:
    """Write known_hosts and cluster.yaml, where they are not yet as they must be."""
    places = lab.places
    there = [*lab.machines, *(machine for machine in _surplus(lab) if machine.exists())]
    keys = [(machine.plan, machine.host_public_key()) for machine in there]
    document = cluster_document(lab.plan, places, read_document(read(places.cluster_yaml)))
    for path, text in (
        (places.known_hosts, known_hosts(keys)),
        (places.cluster_yaml, cluster_yaml(document)),
    ):
        if read(path) != text:
            write_private(path, text.encode())


async def down(name: str, *, events: Events) -> bool:
    """Remove a lab and all that is left of it, whatever state it is in; whether there was anything."""
    places = Places(check_lab_name(name))
    if os.geteuid() != 0:
        raise _not_root("machines are removed as root, and this process is not")
    async with lab_lock(name):
        if name not in lab_names():
            remove_if_empty(STATE, STATE.parent)
            return False
        async with events.phase("lab-down", f"remove lab {name}") as phase:
            started = time.monotonic()
            await _stop_all(name)
            phase.progress("machines have ended")
            await _remove_network(places)
            await remove_tree(places.directory)
            _forget_context(cluster_name(name), events)
            async with computer_lock():
                remove_if_empty(STATE, STATE.parent)
                if not lab_names():
                    limits.restore()
            phase.summary(f"lab {name} removed in {time.monotonic() - started:.1f} s")
    return True


async def _stop_all(name: str) -> None:
    deadline = time.monotonic() + 15
    while cgroups.kill(name) or cgroups.remove(name):
        if time.monotonic() > deadline:
            evidence = [
                f"process {pid}: {read(f'/proc/{pid}/comm').strip()}" for pid in cgroups.members(name)
            ]
            raise KubewrightError(f"machines of lab {name} cannot be ended", evidence=evidence)
        await asyncio.sleep(0.02)


async def _remove_network(places: Places) -> None:
    """Found by the link's alias, which says whose it is: the plan may be damaged or gone."""
    _, out, _ = await run(["ip", "-j", "link", "show"])
    for row in json.loads(out):
        if row.get("ifalias") == link_alias(places.name):
            await run(["ip", "link", "delete", row["ifname"]], check=False)
    await drop_namespace(places.namespace)


def _forget_context(name: str, events: Events) -> None:
    """Take the lab's context out of the kubeconfigs that kubectl reads; one that then holds nothing goes, too."""
    from kubewright.clients import kubeconfig

    for file in kubeconfig.default_files():
        try:
            if kubeconfig.remove_context(file, name):
                rest = kubeconfig.load([file])
                if not any(rest.get(section) for section in ("clusters", "contexts", "users")):
                    file.unlink()
                    if file.parent.name == ".kube":
                        remove_if_empty(file.parent)
        except KubewrightError as error:
            events.warn(f"{error.message}; the context {name} may still be in it")


def _entries(directory: Path) -> list[Path]:
    try:
        return list(directory.iterdir())
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return []
