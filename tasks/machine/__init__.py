"""The machine and the flow run on it: data folder, environment, processes, signals, notices, Prefect's page.

``environment.py`` is imported before Prefect and MLflow, because both read their settings when they are imported: it
points them at the data folder (`UNFREEZE_HOME`, or ``.unfreeze`` in the working folder), hides passwords from what is
printed, and finds the service that runs on the folder. ``processes.py`` names processes so that others can tell whether
they still live; ``locks.py`` has locks that end with the process, by which ``flow_runs.py`` finds flow runs of killed
ones. ``servers.py`` asks whether servers answer, ``storage.py`` puts trouble with the disk in one line,
``provenance.py`` finds out what a run is made with: code, packages, hardware. ``notices.py`` has lines for whoever
watches, ``page.py`` the Prefect page. ``interruption.py`` holds signals back until the batch under way is done:

- SIGINT, SIGTERM and SIGHUP end a training after the batch, with a checkpoint; a second SIGINT or SIGTERM at once.
- A flow run that is being cancelled ends as Cancelled: while our handler holds SIGTERM, Prefect's own cannot report the
  cancellation, and the run would be taken for crashed and started again.
- A terminal that closes acts as Ctrl-C; under `nohup` it is ignored.

- The data folder and everything in it belong to one user (mode 0700).
- `service.json` is believed only if it names processes of this machine, this user and this folder.
- Secrets go to children through the environment, never through command lines.
"""
