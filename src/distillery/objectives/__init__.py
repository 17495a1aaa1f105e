"""Training losses, one file each. `objective: NAME` in params.yaml is the file NAME.py beside this one.

Importing this package does not import torch: the study is checked from the signatures alone (`signatures.py`), and
`build.py` makes the modules when a run starts.
"""
