"""Training: flags, data for the trainer, the Trainer subclass, and the run folder's contents."""
