"""The machine: the data folder, the environment of our processes, and which process is whose.

``environment.py`` is imported before Prefect and MLflow, because both read their settings when they are imported: it
points them at the data folder (`UNFREEZE_HOME`, or ``.unfreeze`` in the working folder), hides passwords from what is
printed, and finds the service that runs on the folder. ``processes.py`` names processes so that others can tell whether
they still live: a process id alone would be used again; ``witness.py`` is a small process that sees to the run of one
that was killed. ``provenance.py`` finds out what a run is made with: code, packages, hardware.

- The data folder and everything in it belong to one user (mode 0700).
- `service.json` is believed only if it names processes of this machine, this user and this folder.
- Secrets go to children through the environment, never through command lines.
"""
