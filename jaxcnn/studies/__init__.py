"""Studies: arms times seeds become runs, and the runs a table, pictures and verdicts."""
