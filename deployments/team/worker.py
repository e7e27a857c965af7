"""Run one Prefect worker so that it can be stopped without losing work: `python deployments/team/worker.py --help`.

A worker that gets SIGTERM kills its flow runs on the spot: the epoch under way is lost, and the run stays Running until
its missing heartbeat is noticed. So here a stop goes the other way round: the worker, which holds nothing, is killed;
its flow runs get SIGTERM, save a checkpoint and report themselves as Crashed, and the automation of
tasks/service/automations.yaml queues them again for any worker. The same happens when a worker dies by itself.
"""

import argparse
import os
import signal
import socket
import sys
import time

import psutil

SECONDS_TO_CHECKPOINT = 40
"""A flow run that has not ended by then is killed; what stops this program must wait longer."""


def main() -> int:
    """Start the worker, wait for it or for a signal, and end its flow runs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pool", default=os.environ.get("UNFREEZE_POOL", "local"), help="work pool (default: local)")
    parser.add_argument("--name", default=socket.gethostname(), help="on the Prefect page (default: the machine's)")
    parser.add_argument("--limit", default=1, type=int, help="flow runs at a time: GPUs it sees, or 1 (default)")
    options = parser.parse_args()
    os.environ.setdefault("UNFREEZE_WORKING_FOLDER", os.getcwd())  # where relative paths in flow runs begin

    command = [sys.executable, "-m", "prefect", "worker", "start", "--type", "process"]
    command += ["--pool", options.pool, "--name", options.name, "--limit", str(options.limit)]
    stopped: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda received, _: stopped.append(received))
    # A session of its own: Ctrl-C in a terminal is for this program alone.
    worker = psutil.Popen(command, start_new_session=True)
    runs: list[psutil.Process] = []
    while not stopped and worker.poll() is None:
        try:
            runs = worker.children(recursive=True)
        except psutil.NoSuchProcess:
            break
        time.sleep(0.5)
    if stopped:
        worker.suspend()  # so that it starts none meanwhile
        runs = worker.children(recursive=True)
        worker.kill()
    status = worker.wait()
    end(runs)
    return 0 if stopped else status or 1


def end(runs: list[psutil.Process]) -> None:
    """Let flow runs save their checkpoints, and wait for it."""
    runs = [run for run in runs if run.is_running()]
    if runs:
        print(f"stopping {len(runs)} processes of flow runs: they save checkpoints", file=sys.stderr, flush=True)
    for run in runs:
        try:
            run.send_signal(signal.SIGTERM)
        except psutil.NoSuchProcess:
            continue
    _, left = psutil.wait_procs(runs, SECONDS_TO_CHECKPOINT)
    for run in left:
        try:
            run.kill()
        except psutil.NoSuchProcess:
            continue


if __name__ == "__main__":
    sys.exit(main())
