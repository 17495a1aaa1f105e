"""Teachers: where they come from, and how a run gets their outputs (view table or live)."""
