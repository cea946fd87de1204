"""Honest evaluation: metrics with intervals, ablation of the modalities, prediction files."""
