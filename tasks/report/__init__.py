"""The report of a run: one HTML file that opens without a network, and the model card made from it.

A step's findings are kept with the run as JSON (`parts.py`) when they are logged; everything else is what MLflow holds
anyway. So a report is made from a run alone, at its end or years later, by ``unfreeze report RUN``.

===================  =================================================================================================
``parts.py``         what each step found, kept with the run and read back
``collect.py``       a run as its report shows it: `Report`, from MLflow alone
``charts.py``        charts as SVG in the page's colours
``commands.py``      what a person types next
``page.py``          the page: `report.html.j2` and `style.css` filled in
``card.py``          the same in a page of Markdown: for the registered model, the run's description and Prefect
``look.py``          a page about a source of images before anything is trained: `look.html.j2`
``explain.py``       a page about what a model looks at: `explain.html.j2`
``publish.py``       the report made and put where people look
===================  =================================================================================================

What must hold:

- **The page asks for nothing.** Styles, charts and images are inside it, and there is no script; a browser without a
  network shows it whole.
- **It shows whatever findings say.** What is predicted, and from what, is known to `unfreeze.models` alone: a new
  target or modality appears by its findings, without a change here.
- **Judgement is in `models.evaluation.verdict`**, which knows nothing of MLflow and is tested by its sentences.
"""
