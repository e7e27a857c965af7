"""Retraining: is there new data? train, compare with the champion, promote if better; and a sensor that asks for it.

`unfreeze.flows.retrain` reads as the story: the champion's settings with what differs (`training.py`), the training as
an ordinary flow, champion against challenger on rows that neither was trained on and the data against those of the
champion (`compare.py`), the decision by the rules of the spec (`evaluation.comparison.decide`), perhaps a person's
approval, the alias moved and the decision written down (`promotion.py`).

====================  =============================================================================================
``training.py``       which training a retraining is of; whether its data are new
``compare.py``        the paired test and the drift report, as steps
``compare_runs.py``   `unfreeze compare`: any two trainings on the rows that both evaluated
``replay.py``         a run trained anew from what is kept of it, and what differs
``promotion.py``      approval, the alias, the decision as artifact, tags and description, notifications
``turns.py``          one retraining of a model at a time, across workers and machines
``watching.py``       which models' sources changed since their latest retraining
====================  =============================================================================================

What must hold:

- **No data are compared on that a model was trained on.** Images keep their side of the split (`data.split_like`);
  validation images that the champion was trained on, and rows of a table up to the champion's last training date, take
  no part.
- **The alias moves in one step** on the server: whoever loads ``models:/NAME@champion`` gets the one or the other. The
  champion before keeps the alias ``previous``.
- **A retraining that meets another of its model is skipped**, and its data are left for the next. A retraining that
  crashed is queued again and resumes its own training.
- **The sensor only asks**: it records an event that an automation answers, after the event is on the server, and
  remembers the files by name, size and time so that it does not read what did not change.
"""
