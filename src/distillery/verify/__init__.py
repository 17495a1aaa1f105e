"""Reproduction as a command: a finished study against a record of the same study, cell by cell."""
