"""Training losses of detectors. They are rows of `distillery.objectives.OBJECTIVES`."""
