"""Report: what is found out about runs and studies as self-contained HTML pages. Uses train and explain."""
