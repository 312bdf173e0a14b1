"""Searches of the tests: trials of a study in experiment ``study``."""

from tracking import trials


def run(opened, objective, n_trials, local, parent, **more):
    """Run trials as a worker does."""
    trials.run_trials(opened, objective, n_trials, store=local, experiment="study", parent=parent, **more)


def states(opened):
    """Return the states of all trials in order."""
    return [trial.state.name.lower() for trial in opened.trials]
