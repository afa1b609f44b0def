"""The built-in demonstration: a small convolutional SNN on scikit-learn's 8x8 digits, and its data."""
