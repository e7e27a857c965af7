"""Leases of GPUs with names of GPUs that do not exist: what each process sees."""

import multiprocessing
import os
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from unfreeze.tasks.machine import devices
from unfreeze.tasks.machine.devices import environment_without_lease, lease_devices, leases

NAMES = "10,11,GPU-5f"


def lease_and_wait(device: str, count: int, connection: Connection) -> None:
    os.environ["CUDA_VISIBLE_DEVICES"] = devices._visible = NAMES
    lease_devices(device, count)
    connection.send((os.environ["CUDA_VISIBLE_DEVICES"], environment_without_lease()["CUDA_VISIBLE_DEVICES"]))
    connection.recv()


class Leasing:
    """Start processes that lease GPUs and keep them until they are killed."""

    def __init__(self) -> None:
        self.processes: list[multiprocessing.Process] = []

    def __call__(self, device: str = "auto", count: int = 1) -> list[str]:
        context = multiprocessing.get_context("fork")
        here, there = context.Pipe()
        process = context.Process(target=lease_and_wait, args=(device, count, there))
        process.start()
        self.processes.append(process)
        mine, without = here.recv()
        assert without == NAMES
        return mine.split(",")

    def end(self, number: int) -> None:
        self.processes[number].kill()
        self.processes[number].join()


@pytest.fixture
def lease(own_home: Path) -> Iterator[Leasing]:
    leasing = Leasing()
    yield leasing
    for number in range(len(leasing.processes)):
        leasing.end(number)


def test_processes_take_a_gpu_each_and_a_killed_one_frees_its_own(lease):
    assert lease() == ["10"]
    assert lease() == ["11"]
    assert [each["gpu"] for each in leases()] == ["10", "11"]
    lease.end(0)
    assert [each["gpu"] for each in leases()] == ["11"]
    assert lease("cuda", 2) == ["10", "GPU-5f"]


def test_when_all_are_in_use_a_process_shares_one(lease):
    assert [lease() for _ in range(3)] == [["10"], ["11"], ["GPU-5f"]]
    (shared,) = lease()
    assert shared in NAMES.split(",")
    assert len(leases()) == 3


@pytest.mark.parametrize(("device", "count"), [("cpu", 1), ("cuda:1", 1), ("auto", 3)])
def test_without_a_choice_nothing_is_reserved(device, count, lease):
    assert lease(device, count) == NAMES.split(",")
    assert leases() == []
