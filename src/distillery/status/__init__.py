"""Where a study stands, read from what its jobs leave behind. Nothing here writes, locks, or imports torch."""
