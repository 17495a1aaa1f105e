"""Losses of networks that retrieve labels, one file each."""
