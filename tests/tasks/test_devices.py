"""Leases of GPUs with names of GPUs that do not exist: what each process sees."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.deployments.service import PROJECT
from unfreeze.tasks.machine.devices import leases

LEASE = """
import os, sys
from unfreeze.tasks.machine.devices import environment_without_lease, lease_devices
lease_devices(sys.argv[1], int(sys.argv[2]))
print(os.environ["CUDA_VISIBLE_DEVICES"], environment_without_lease()["CUDA_VISIBLE_DEVICES"], flush=True)
sys.stdin.read()
"""


class Leasing:
    """Start a process that leases GPUs and keeps them until it is ended."""

    def __init__(self) -> None:
        self.processes: list[subprocess.Popen[str]] = []

    def __call__(self, device: str = "auto", count: int = 1) -> list[str]:
        environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "10,11,GPU-5f"}
        self.processes.append(
            subprocess.Popen(
                [sys.executable, "-c", LEASE, device, str(count)],
                cwd=PROJECT,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        )
        assert self.processes[-1].stdout is not None
        mine, without = self.processes[-1].stdout.readline().split()
        assert without == "10,11,GPU-5f"
        return mine.split(",")

    def end(self, number: int) -> None:
        self.processes[number].kill()
        self.processes[number].wait()


@pytest.fixture
def lease(own_home: Path):
    leasing = Leasing()
    yield leasing
    for number in range(len(leasing.processes)):
        leasing.end(number)


def test_processes_take_a_gpu_each_and_a_killed_one_frees_its_own(lease):
    assert lease() == ["10"]
    assert lease() == ["11"]
    assert leases() == [{"gpu": "10", "used by": "-c"}, {"gpu": "11", "used by": "-c"}]
    lease.end(0)
    assert [each["gpu"] for each in leases()] == ["11"]
    assert lease("cuda", 2) == ["10", "GPU-5f"]


def test_when_all_are_in_use_a_process_shares_one(lease):
    assert [lease() for _ in range(3)] == [["10"], ["11"], ["GPU-5f"]]
    (shared,) = lease()
    assert shared in ("10", "11", "GPU-5f")
    assert len(leases()) == 3


@pytest.mark.parametrize(("device", "count"), [("cpu", 1), ("cuda:1", 1), ("auto", 3)])
def test_without_a_choice_nothing_is_reserved(device, count, lease):
    assert lease(device, count) == ["10", "11", "GPU-5f"]
    assert leases() == []
