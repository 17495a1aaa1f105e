"""One folder per task; `distillery.task` says what a task is."""
