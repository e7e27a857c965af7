"""`unfreeze up`: Prefect, MLflow and a worker on this machine, watched and stopped together.

=======================  =============================================================================================
``stack.py``             the parts, their start order, and how they are stopped
``supervise.py``         a part: a process group that is restarted when it ends
``prefect_server.py``    Prefect's own app behind a host check and an account; the embedded server of a command; the end
                         of dead processes' runs in MLflow and Prefect
``deployments.py``       the deployments of `prefect.yaml`, workers, runs in flight, cancelling them
``automations.py``       requeues crashed flow runs; starts a retraining on new data
``overview.py``          contents of `unfreeze status` and `unfreeze open`
``doctor.py``            contents of `unfreeze doctor`
``disk_use.py``          contents of `unfreeze clean`, and what it frees
=======================  =============================================================================================

- **One service per data folder**; a port in use is refused. Prefect and MLflow servers named in
  the environment are used instead of our own.
- **Stopping keeps work**: running flow runs of this folder are cancelled first, and trainings save a checkpoint.
- **No part outlives the service**: parts are process groups, the embedded server ends when the pipe to its parent
  closes, and leftovers of a killed service are found by process id and creation time.
- **The server is closed**: only our origin is allowed, the account is random per folder, and addresses other than
  loopback require an MLflow with accounts.
"""
