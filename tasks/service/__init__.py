"""`unfreeze up`: Prefect, MLflow and a worker on this machine, watched and stopped together.

=======================  =============================================================================================
``stack.py``             what is started, in which order, and how it is stopped
``supervise.py``         a part: a process group that is started again when it ends
``prefect_server.py``    Prefect's own app behind a host check and an account; the embedded server of a command; ends
                         runs of dead processes in MLflow and in Prefect
``deployments.py``       the deployments of `prefect.yaml`, workers, runs in flight, cancelling them
``automations.py``       crashed flow runs are queued again; new data start a retraining
``overview.py``          what `unfreeze status` and `unfreeze open` show
``disk_use.py``          what `unfreeze clean` shows and frees
=======================  =============================================================================================

- **One service per data folder**; a port that another program uses is refused with its name. Prefect and MLflow
  servers that the environment names are used instead.
- **Stopping keeps work**: running flow runs of this folder are cancelled first, and a training saves a checkpoint.
- **Nothing of the service outlives it**: parts are process groups, the embedded server ends when a pipe to its parent
  closes, and what a killed service left behind is found by process id and time of creation.
- **The server is closed**: our origin only, an account that is random per folder, no address beyond the loopback
  without an MLflow that has accounts.
"""
