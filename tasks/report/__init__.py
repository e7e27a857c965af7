"""The report of a run: one HTML file that opens without a network, and the model card made from it.

A step's findings are stored with the run as JSON when they are logged; everything else is what MLflow holds anyway. So
a report is made from a run alone, at its end or years later, by ``unfreeze report RUN``.

=================  ===================================================================================================
``findings.py``    what a step found: into MLflow, onto the Prefect page, and as a part of the report, read back
``collect.py``     a run as its report shows it: `Report`, from MLflow alone, with the commands to type next
``charts.py``      charts as SVG in the page's colours
``page.py``        the page: `report.html.j2` and `style.css` filled in; `look.html.j2` and `explain.html.j2` likewise
``publish.py``     the report made and put where people look, with a page of Markdown that sums it up
=================  ===================================================================================================

What must hold:

- **The page asks for nothing.** Styles, charts and images are inside it, and there is no script; a browser without a
  network shows it whole.
- **It shows whatever findings say.** What is predicted, and from what, is known to `unfreeze.models` alone: a new
  target or modality appears by its findings, and a new section by a new part of `keep_findings`.
- **Judgement is in `models.evaluation.verdict`**, which knows nothing of MLflow and is tested by its sentences.
"""
