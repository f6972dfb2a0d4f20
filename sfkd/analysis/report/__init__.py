"""A run, or a comparison, as one page of HTML: docs/report.md says how to read it."""
