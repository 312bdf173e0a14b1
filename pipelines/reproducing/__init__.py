"""A paper's tables and figures made again: trainings found by their recipe, and where networks look."""
