"""Losses of recommenders, one file each; `distillery.objectives.OBJECTIVES` names them."""
