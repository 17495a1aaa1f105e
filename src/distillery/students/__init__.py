"""Trained networks outside the pipeline: loading them, and exporting them as folders that stand alone."""
