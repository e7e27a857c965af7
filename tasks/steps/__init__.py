"""Steps of a training: what a flow does between opening an MLflow run and closing it.

A training is driven by one generator, `recipe.run.run_recipe`, which yields steps that are not done yet;
the functions here do each of them inside a Prefect task and keep in MLflow what came out. They know nothing of images
or tables: a modality (`unfreeze.models.recipe.modality`) hands them plain JSON (`Prepared`), an object to train on
(`TrainingData`), and `Findings`, which are kept and shown alike whatever they are about.

==========================  ==========================================================================================
``prepare.py``              names that do not exist are rejected before anything is read; the data are prepared
``describe.py``             the data set with its digest, rejected rows, the network, a reference for drift
``find_lr.py``              the learning-rate finder: curve, suggestions
``train_stage.py``          precompute, unfreeze, and the training loop with metrics and checkpoints
``evaluate.py``             evaluation of the head alone, of the final weights, on the test rows; registration
``findings.py``             findings into MLflow and onto the Prefect page
``summary.py``              the network layer by layer, without training it
``plan.py``                 what a training will do and take, measured by a few steps of each stage
``checkpoint_writer.py``    when, and under which name, a checkpoint is kept
``workspace.py``            the data folder for a flow: derived files as cached tasks
==========================  ==========================================================================================

What must hold:

- **A step may be killed anywhere.** What it keeps last is the tag or file by which a resumed run knows that it is done
  (``data.digest``, ``unfreeze.lr.N``, ``unfreeze.stage.N``, ``baseline/loss``), so that it is done again or not at all.
- **A resumed training equals an uninterrupted one bit for bit** on the CPU: weights, optimizer, order of rows and
  random numbers are in the checkpoint, and nothing between two steps draws from the training's random numbers.
- **A signal is heard between two batches** (`unfreeze.tasks.machine.interruption`): the loop saves a checkpoint,
  then the signal takes effect.
- **Derived files are keyed by content** and settings, never by path or date; a task whose files exist shows as Cached,
  and one whose file was deleted runs again.

A new step is a class in `models.recipe.run` and a function here; a new kind of result is a method of `Findings`.
"""
