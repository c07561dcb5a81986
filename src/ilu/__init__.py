"""Unlearning of language-model knowledge that survives later fine-tuning."""

__version__ = "0.1.0"
