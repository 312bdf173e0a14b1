"""What is fitted to numbers without a network: statistics, principal components, baselines and errors; no torch."""

from __future__ import annotations
