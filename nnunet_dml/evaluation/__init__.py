"""From folders of predictions and references to tidy per-case records, a summary and a printed table."""
