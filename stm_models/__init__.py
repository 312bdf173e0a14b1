"""Science of the platform: physics, data, signals, tasks, networks, training, explanations.

Nothing here needs a tracking store or a server; a notebook can use it alone.
"""

__version__ = "0.1.0"
