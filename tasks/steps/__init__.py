"""Steps of a training, between opening an MLflow run and closing it.

The generator `recipe.run.run_recipe` yields the unfinished steps; each function here runs one of them in a Prefect task
and logs its results to MLflow. They are independent of images and tables: a modality
(`unfreeze.models.recipe.modality`) provides plain JSON (`Prepared`), an object to train on (`TrainingData`), and
`Findings`, which are all stored and shown alike.

===================  =================================================================================================
``prepare.py``       rejects unknown names before reading anything; prepares the data
``train_stage.py``   the learning-rate finder, precompute, unfreeze, the training loop with metrics and checkpoints
``evaluate.py``      describes data and network; compares, evaluates and registers models
``plan.py``          time and memory of a training, measured by a few steps of each stage; its network by layer
``look.py``          a page about a source of images before training
``workspace.py``     the data folder for a flow: derived files as cached tasks
===================  =================================================================================================

Invariants:

- **A step may be killed anywhere.** Last it stores the tag or file that tells a resumed run that it is done
  (``data.digest``, ``unfreeze.lr.N``, ``unfreeze.stage.N``, ``baseline/loss``).
- **A resumed training equals an uninterrupted one bit for bit** on the CPU: weights, optimizer, order of rows and
  random numbers are in the checkpoint, and nothing between two steps draws from the training's random numbers.
- **A signal takes effect between two batches** (`unfreeze.tasks.machine.interruption`), after a checkpoint.
- **Derived files are keyed by content** and settings, never by path or date; a task whose files exist shows as Cached,
  and reruns if one was deleted.

A new step is a class in `models.recipe.run` and a function here; a new kind of result is a method of `Findings`.
"""
