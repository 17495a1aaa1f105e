"""The study: what params.yaml says, checked. Nothing here imports torch."""
