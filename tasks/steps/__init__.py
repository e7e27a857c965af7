"""Steps of a training: what a flow does between opening an MLflow run and closing it.

The generator `recipe.run.run_recipe` yields the steps that are not done yet; the functions here do each of them inside
a Prefect task and log its results to MLflow. They know neither images nor tables: a modality
(`unfreeze.models.recipe.modality`) hands them plain JSON (`Prepared`), an object to train on (`TrainingData`), and
`Findings`, which are stored and shown alike whatever they are about.

===================  =================================================================================================
``prepare.py``       unknown names are rejected before anything is read; the data are prepared
``train_stage.py``   the learning-rate finder, precompute, unfreeze, the training loop with metrics and checkpoints
``evaluate.py``      the data and network described; models compared, evaluated and registered
``plan.py``          what a training will do and take, measured by a few steps of each stage; its network by layer
``look.py``          a page about a source of images before anything is trained
``workspace.py``     the data folder for a flow: derived files as cached tasks
===================  =================================================================================================

What must hold:

- **A step may be killed anywhere.** The last thing it stores is the tag or file by which a resumed run knows that it
  is done (``data.digest``, ``unfreeze.lr.N``, ``unfreeze.stage.N``, ``baseline/loss``).
- **A resumed training equals an uninterrupted one bit for bit** on the CPU: weights, optimizer, order of rows and
  random numbers are in the checkpoint, and nothing between two steps draws from the training's random numbers.
- **A signal takes effect between two batches** (`unfreeze.tasks.machine.interruption`), after a checkpoint.
- **Derived files are keyed by content** and settings, never by path or date; a task whose files exist shows as Cached,
  and one whose file was deleted runs again.

A new step is a class in `models.recipe.run` and a function here; a new kind of result is a method of `Findings`.
"""
