"""Training losses of discriminators, one file each; `distillery.objectives.OBJECTIVES` names them."""
