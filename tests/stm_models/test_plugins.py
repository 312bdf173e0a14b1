"""Tasks and networks of other distributions: found by their entry points, and told by name when they are broken."""

import sys

import pytest

from stm_models import plugins
from stm_models.errors import InputError
from stm_models.networks import registry as networks
from stm_models.tasks import registry as tasks

MODULE = """
from stm_models.networks.linear import Linear
from stm_models.tasks.hubbard.task import HubbardTask

class Mine(HubbardTask):
    name = "mine"

class Same(Linear):
    pass
"""


@pytest.fixture
def offer(tmp_path, monkeypatch):
    """Install distributions that have nothing but entry points, and one module for all of them."""
    (tmp_path / "of_mine.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(tasks, "_TASKS", dict(tasks._TASKS))
    monkeypatch.setattr(networks, "_NETWORKS", dict(networks._NETWORKS))

    def install(group, name, value, distribution="stm-mine"):
        folder = tmp_path / f"{distribution.replace('-', '_')}-1.0.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
        (folder / "entry_points.txt").write_text(f"[{group}]\n{name} = {value}\n")
        plugins.names.cache_clear()

    yield install
    plugins.names.cache_clear()
    sys.modules.pop("of_mine", None)


def test_a_task_is_imported_when_it_is_asked_for(offer):
    offer(plugins.TASKS, "mine", "of_mine:Mine")
    assert {"hubbard", "impurity", "mine"} <= set(tasks.names())
    assert "of_mine" not in sys.modules
    assert tasks.get("mine") is tasks.get("mine")
    assert tasks.get("mine").name == "mine"
    with pytest.raises(InputError, match=r"choose from .*hubbard, impurity, mine"):
        tasks.get("yours")


def test_a_network_is_made_like_ours(offer):
    offer(plugins.NETWORKS, "same", "of_mine:Same")
    assert {"same", "linear"} <= set(networks.names())
    assert networks.default_options("same") == networks.default_options("linear")
    assert type(networks.create("same", (1, 4, 4), 2)).__name__ == "Same"
    with pytest.raises(InputError, match="unknown key 'depth'; the keys are"):
        networks.check("same", {"depth": 1})


@pytest.mark.parametrize(
    ("name", "value", "match"),
    [
        ("mine", "no_such_module:Mine", r"offered by stm-mine 1.0 .*cannot be imported \(No module named"),
        ("mine", "of_mine:Yours", "cannot be imported .*has no attribute 'Yours'"),
        ("mine", "of_mine:Same", "expected a class derived from stm_models.tasks.base.Task"),
        ("mine", "of_mine", "expected a class derived from"),
        ("yours", "of_mine:Mine", "offered as 'yours' calls itself 'mine'"),
    ],
)
def test_what_cannot_be_used_is_told_when_it_is_asked_for(offer, name, value, match):
    offer(plugins.TASKS, name, value)
    assert name in tasks.names()
    assert tasks.get("hubbard").name == "hubbard"
    with pytest.raises(InputError, match=match):
        tasks.get(name)


def test_one_name_of_two_distributions_is_refused(offer):
    offer(plugins.TASKS, "mine", "of_mine:Mine")
    offer(plugins.TASKS, "mine", "of_mine:Mine", "stm-yours")
    with pytest.raises(InputError, match=r"offered by (stm-mine 1.0 and stm-yours|stm-yours 1.0 and stm-mine) 1.0"):
        tasks.get("mine")


def test_our_names_stay_ours(offer):
    offer(plugins.TASKS, "hubbard", "of_mine:Mine")
    assert type(tasks.get("hubbard")).__name__ == "HubbardTask"
