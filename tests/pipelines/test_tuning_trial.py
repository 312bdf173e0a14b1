"""What is kept of unfinished trials."""

from __future__ import annotations

import optuna
import pytest

from pipelines.tuning.trial import Checkpoints
from stm_models.files import atomic_path


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_the_end_of_a_search_deletes_nothing_that_another_one_goes_on_with(tmp_path):
    study = optuna.create_study()
    done, lost, running = (study.ask() for _ in range(3))
    study.tell(done, 1.0)
    study.tell(lost, state=optuna.trial.TrialState.FAIL)
    again = {"retry_history": [lost.number]}
    study.add_trial(optuna.create_trial(state=optuna.trial.TrialState.WAITING, system_attrs=again))
    checkpoints = Checkpoints("ab" * 16)
    of_done, of_lost, of_running, of_again = (checkpoints.of(trial) for trial in study.trials)
    assert of_again == of_lost
    of_done.parent.mkdir()
    for path in (of_done, of_done.with_suffix(".refit.pt"), of_lost, of_running.with_suffix(".refit.pt")):
        path.touch()
    with atomic_path(of_running) as part:
        part.touch()
        checkpoints.forget_finished(study)
    assert set(of_done.parent.iterdir()) == {of_lost, of_running, of_running.with_suffix(".refit.pt")}
    study.tell(running.number, 2.0)
    checkpoints.forget_finished(study)
    assert set(of_done.parent.iterdir()) == {of_lost}
