"""`python -m distillery` is `distillery`."""

from distillery.cli import main

main()
