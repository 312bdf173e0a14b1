"""Maps of files and torch models, their scores, their means against the target, and their record."""
