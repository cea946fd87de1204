"""Models: configuration, towers, fusion heads, the classifier, and how it is built from flags."""

from modeling.classifier import SentimentClassifier, SentimentOutput, parameter_table
from modeling.configuration import SentimentConfig
from modeling.features import Features
from modeling.fusion import FUSION_HEADS

__all__ = ["FUSION_HEADS", "Features", "SentimentClassifier", "SentimentConfig", "SentimentOutput", "parameter_table"]
