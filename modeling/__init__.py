"""Models: configuration, towers, fusion heads, the classifier, and how it is built from flags."""

from modeling.classifier import SentimentClassifier
from modeling.configuration import SentimentConfig
from modeling.features import Features
from modeling.fusion import FUSION_HEADS
from modeling.output import SentimentOutput
from modeling.parameters import count_matrix_weights, parameter_table

__all__ = [
    "FUSION_HEADS",
    "Features",
    "SentimentClassifier",
    "SentimentConfig",
    "SentimentOutput",
    "count_matrix_weights",
    "parameter_table",
]
