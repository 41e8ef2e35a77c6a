"""Bundles: an exported model with one script that needs only ctranslate2 and tokenizers."""
