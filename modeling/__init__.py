"""Models: configuration, towers, fusion heads, the classifier, and how it is built from flags."""
