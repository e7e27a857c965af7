"""The report of a run as one offline HTML file, and the model card made from it.

A step's findings are stored with the run as JSON when they are logged; everything else is in MLflow anyway. So a report
needs only a run, at its end or years later, by ``unfreeze report RUN``.

=================  ===================================================================================================
``findings.py``    a step's findings: logged to MLflow, shown on the Prefect page, stored as a part of the report
``contents.py``    the contents of a report: `Report`, made of findings, metrics and settings
``collect.py``     those of a run, from MLflow alone, with the commands to type next
``charts.py``      charts as figures
``page.py``        the page: `report.html.j2` and `style.css` filled in; `look.html.j2` and `explain.html.j2` likewise
``publish.py``     the report rendered and published, with a Markdown summary
=================  ===================================================================================================

Invariants:

- **The page is self-contained.** Styles, charts and images are embedded, without scripts; it opens fully offline.
- **It renders findings generically.** Only `unfreeze.models` knows targets and modalities; new ones appear through
  their findings, and a new section through a new part of `keep_findings`.
- **Judgement is in `models.evaluation.verdict`**, which is independent of MLflow and tested by its sentences.
"""
