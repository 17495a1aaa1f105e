"""One thin file per pipeline stage: read inputs, call the library, write outputs with their provenance."""
