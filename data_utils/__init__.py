"""Data: list and files -> cached pairs -> splits -> batches, with a quarantine of what was wrong."""
