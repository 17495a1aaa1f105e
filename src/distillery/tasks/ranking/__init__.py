"""Recommending items to users: training pairs in, a ranking of all unseen items out."""
