"""From measured runs to what a reader sees: tables, figures, comparison with published numbers."""
