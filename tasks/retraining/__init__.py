"""Retraining: is there new data? train, compare with the champion, promote if better; and a sensor that asks for it.

====================  ==============================================================================================
``training.py``       which training a retraining is of; whether its data are new
``compare.py``        the paired test and the drift report as steps; any two runs compared; a run and its replay
``promotion.py``      approval, the alias, the decision as artifact, tags and description, notifications
``watching.py``       one retraining of a model at a time; models whose sources changed since their latest retraining
====================  ==============================================================================================

What must hold:

- **No model is scored on data that either model was trained on.** Images keep their side of the split
  (`data.split_like`); validation images that the champion was trained on, and rows of a table up to the champion's last
  training date, take no part.
- **The alias moves in one step** on the server: ``models:/NAME@champion`` is the one version or the other. The champion
  before keeps the alias ``previous``.
- **A retraining that meets another of its model is skipped**, and its data are left for the next. A retraining that
  crashed is queued again and resumes its own training.
- **The sensor only asks**: it records an event that an automation answers, after the event is on the server, and
  remembers the files by name, size and time so that it does not read what did not change.
"""
