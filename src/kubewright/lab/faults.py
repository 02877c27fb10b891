"""What happens to computers, done to machines on purpose: power cut, standstill, network gone; and their mend."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Sequence
from enum import StrEnum

from kubewright.errors import ExitCode, KubewrightError, WaitTimeoutError
from kubewright.events import Activity, Events
from kubewright.lab import cgroups
from kubewright.lab.lab import Lab, open_lab, run_machine
from kubewright.lab.machine import Machine
from kubewright.lab.network import LabNetwork
from kubewright.lab.places import lab_lock

FREEZE_DEADLINE = 10.0
"""Seconds in which the kernel must have stopped all processes of a machine; 10 ms are usual."""


class State(StrEnum):
    """What a machine is in."""

    RUNNING = "running"
    STOPPED = "stopped"
    FROZEN = "frozen"
    PARTITIONED = "partitioned"
    """It runs, and the network drops all that it sends and all that is sent to it."""


async def states(lab: Lab) -> dict[str, State]:
    """The state of each machine, by name, as the kernel tells it. A frozen one may be partitioned, too."""
    cut_off = await _network(lab).cut_off()

    def of(machine: Machine) -> State:
        if machine.pid() is None:
            return State.STOPPED
        if cgroups.is_frozen(lab.name, machine.name):
            return State.FROZEN
        return State.PARTITIONED if machine.plan.port in cut_off else State.RUNNING

    return {machine.name: of(machine) for machine in lab.machines}


async def kill(lab: str, machines: Sequence[str], events: Events) -> None:
    """End machines as a power cut does: SIGKILL to all that runs in them, and not a packet more to anybody.

    What a machine had written, also without fsync(2), is still there when it starts again: the memory that has it
    is this computer's. Raises `KubewrightError`.
    """

    async def one(lab: Lab, machine: Machine, activity: Activity) -> None:
        if not machine.processes():
            activity.skip("the machine does not run")
            return
        if machine.plan.port in await _network(lab).attached():
            # The kernel says goodbye for a process that it kills: peers would see their connections closed.
            await _network(lab).cut(machine.plan, off=True)
        await machine.stop()
        activity.summary("machine killed")

    await _each(lab, machines, events, "machine-kill", "kill the machine", one)


async def freeze(lab: str, machines: Sequence[str], events: Events) -> None:
    """Stop all processes of machines where they are.

    The kernel goes on, as with SIGSTOP: it accepts connections and keeps them, and nobody ever answers.
    """

    async def one(lab: Lab, machine: Machine, activity: Activity) -> None:
        await _set_frozen(lab, _running(lab, machine), activity, frozen=True)

    await _each(lab, machines, events, "machine-freeze", "freeze the machine", one)


async def thaw(lab: str, machines: Sequence[str], events: Events) -> None:
    """Let frozen machines go on."""

    async def one(lab: Lab, machine: Machine, activity: Activity) -> None:
        await _set_frozen(lab, _running(lab, machine), activity, frozen=False)

    await _each(lab, machines, events, "machine-thaw", "thaw the machine", one)


async def partition(lab: str, machines: Sequence[str], events: Events) -> None:
    """Cut machines off the network, from each other too; what runs in them is left alone."""

    async def one(lab: Lab, machine: Machine, activity: Activity) -> None:
        await _set_cut(lab, _running(lab, machine), activity, off=True)

    await _each(lab, machines, events, "machine-partition", "cut the machine off the network", one)


async def heal(lab: str, machines: Sequence[str], events: Events) -> None:
    """Give partitioned machines their network again."""

    async def one(lab: Lab, machine: Machine, activity: Activity) -> None:
        await _set_cut(lab, _running(lab, machine), activity, off=False)

    await _each(lab, machines, events, "machine-heal", "give the machine its network again", one)


async def start(lab: str, machines: Sequence[str], events: Events) -> None:
    """Boot machines that do not run, with their disks as they are, and return when they can be worked on.

    One that runs is left alone, but thawed and healed: it would not answer otherwise. Raises `KubewrightError`,
    BUSY where another process changes the lab.
    """
    found, chosen = _choose(lab, machines)
    async with lab_lock(lab):
        network = _network(found)
        await network.ensure()
        attached = await network.attached()
        try:
            async with asyncio.TaskGroup() as group:
                for machine in chosen:
                    there = machine.plan.port in attached
                    group.create_task(run_machine(found, machine, network, there, events))
        except BaseExceptionGroup as failed:
            raise failed from None


async def _set_frozen(lab: Lab, machine: Machine, activity: Activity, *, frozen: bool) -> None:
    if cgroups.is_frozen(lab.name, machine.name) is frozen:
        activity.skip(f"the machine is {'frozen' if frozen else 'not frozen'}")
        return
    try:
        cgroups.freeze(lab.name, machine.name, frozen=frozen)
    except OSError as error:
        raise KubewrightError(f"{machine.name} cannot be frozen: {error}", host=machine.name) from error
    deadline = time.monotonic() + FREEZE_DEADLINE
    while frozen and (moving := cgroups.not_frozen_yet(lab.name, machine.name)):
        if time.monotonic() > deadline:
            cgroups.freeze(lab.name, machine.name, frozen=False)
            raise WaitTimeoutError(
                f"machine {machine.name} was not frozen within {FREEZE_DEADLINE:.0f} s, and goes on",
                host=machine.name, evidence=moving,
            )  # fmt: skip
        await asyncio.sleep(0.005)
    activity.summary(f"machine {'frozen' if frozen else 'thawed'}")


async def _set_cut(lab: Lab, machine: Machine, activity: Activity, *, off: bool) -> None:
    network = _network(lab)
    if (machine.plan.port in await network.cut_off()) is off:
        activity.skip(f"the machine is {'cut off' if off else 'on the network'}")
        return
    await network.cut(machine.plan, off=off)
    activity.summary("machine cut off the network" if off else "machine on the network again")


async def _each(
    lab: str, machines: Sequence[str], events: Events, phase: str, title: str,
    act: Callable[[Lab, Machine, Activity], Awaitable[None]],
) -> None:  # fmt: skip
    """Do one thing to several machines, at once. All names are looked at before anything is done."""
    found, chosen = _choose(lab, machines)

    async def one(machine: Machine) -> None:
        async with events.phase(phase, title, host=machine.name) as activity:
            await act(found, machine, activity)

    try:
        async with asyncio.TaskGroup() as group:
            for machine in chosen:
                group.create_task(one(machine))
    except BaseExceptionGroup as failed:
        raise failed from None


def _choose(name: str, machines: Sequence[str]) -> tuple[Lab, list[Machine]]:
    if os.geteuid() != 0:
        raise KubewrightError(
            "machines are root's, and this process is not", hint="run it with sudo",
            exit_code=ExitCode.HOST_NO_PRIVILEGE,
        )  # fmt: skip
    lab = open_lab(name)
    return lab, [lab.machine(machine) for machine in dict.fromkeys(machines)]


def _running(lab: Lab, machine: Machine) -> Machine:
    if machine.pid() is None:
        raise KubewrightError(
            f"machine {machine.name} of lab {lab.name!r} does not run", host=machine.name,
            hint=f"kubewright lab start {lab.name} {machine.name} starts it",
            exit_code=ExitCode.HOST_UNREACHABLE,
        )  # fmt: skip
    return machine


def _network(lab: Lab) -> LabNetwork:
    return LabNetwork(lab.plan, lab.places.namespace)
