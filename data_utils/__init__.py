"""Data: list and files -> cached pairs -> splits -> batches, with a ledger of what was wrong."""
