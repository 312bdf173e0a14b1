"""Whatever a run holds is shown as text: names, tags, parameters, files, panels and predictions written to harm."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from urllib.parse import quote, urlencode

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from stm_models.data import panel, predictions
from stm_models.data.predictions import Predictions
from stm_models.errors import InputError
from stm_models.files import sha256
from tracking import models, runs
from tracking.backend import Metric, Param, RunTag
from tracking.store import connect
from tracking.ui import report, svg
from tracking.ui.app import create_app

ATTACKS = [
    "<script>alert(1)</script>", "\"'><img src=x onerror=alert(1)>", "</title></style><svg onload=alert(1)>",
    "javascript:alert(1)", "{{ 7919*7907 }}{% raw %}", "&lt;b&gt;", "]]>--!>", "\u202e\u0000\ufffe<b>", "=HYPERLINK(1)",
    "é" * 5000,
]  # fmt: skip
HARM = {"script", "iframe", "object", "embed", "base", "style", "animate", "set", "foreignobject"}


class Elements(HTMLParser):
    """Elements of a page with their attributes."""

    def __init__(self, text):
        super().__init__()
        self.found = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))

    handle_startendtag = handle_starttag


def assert_inert(text, scripts=1, styles=0):
    found = Elements(text).found
    tags = [tag for tag, _ in found]
    assert tags.count("script") == scripts
    assert tags.count("style") == styles
    assert not (HARM - {"script", "style"}).intersection(tags)
    for tag, attributes in found:
        assert not [name for name in attributes if name.startswith("on") or name == "style"], (tag, attributes)
        for name in ("href", "src", "action", "xlink:href"):
            address = attributes.get(name)
            assert address is None or re.match(r"/|\?|#content$|data:image/png;base64,|$", address), (tag, address)
            assert address is None or not address.startswith("//")
    assert str(7919 * 7907) not in text
    assert len(text) < 1_000_000


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """A store whose every text is an attack, with panels, predictions and files to match."""
    folder = tmp_path_factory.mktemp("hostile")
    store = connect(f"sqlite:///{folder}/mlflow.db")
    text = ATTACKS[1]
    ids = []
    for number, attack in enumerate(ATTACKS):
        with runs.start(store, "hostile", attack[:200].replace("\0", "")) as run:
            ids.append(run.id)
            plain = attack.replace("\0", "")[:4000]
            tags = [
                RunTag(name, plain) for name in ("network", "data.digest", "git.commit", "outcome", "task", "repeat")
            ]
            store.client.log_batch(run.id, tags=tags, params=[Param("train.x", plain), Param("card", plain)])
            metrics = [Metric("mae", value, 0, step) for step, value in enumerate([1.0, 1e308, -1e308, 1e-308, 3.0])]
            store.client.log_batch(run.id, metrics=[*metrics, Metric("val_mae", float("inf"), 0, 3)])
            path = folder / "predictions.npz"
            columns = {f"true:{plain[:40]}": np.array([0.0, 1e300, np.nan]), f"predicted:{plain[:40]}": np.zeros(3)}
            predictions.save(path, Predictions({plain[:60]: columns}, {"units": {plain[:40]: plain}, "level": text}))
            run.artifact(path)
            panels(folder / "panel.npz", plain[:60], number)
            run.artifact(folder / "panel.npz")
            for name in ("evil.svg", "evil.html", "model_card.md"):
                (folder / name).write_text(f"<script>alert(1)</script>{text}")
                run.artifact(folder / name)
    with runs.start(store, "hostile", "search", tags={"study": text}) as parent:
        for number in range(3):
            with runs.start(store, "hostile", "t", parent=parent.id, tags={"trial": number, "study": text}) as run:
                store.client.log_batch(
                    run.id, params=[Param("x", f"{text}{number}")], metrics=[Metric("value", 1, 0, 0)]
                )
    return store, ids, parent.id, folder


def panels(path, name, seed):
    rng = np.random.default_rng(seed)
    np.savez(
        path, schema=np.array(panel.SCHEMA), names=np.array([name, name]), rows=np.array([0, 1]),
        images=rng.normal(size=(2, 1, 4, 4)).astype(np.float32) * 1e30, targets=np.array([[np.nan], [1e308]]),
        target_names=np.array([name]), digest=np.array(name),
        **{
            f"array:{name[:30].replace('/', '_')}": np.full((2, 4, 4), np.inf),
            "array:prediction": np.full((2, 1), np.nan),
            "array:positions.true": np.full((2, 3, 2), 1e300), "array:gradient": np.zeros((2, 1, 4, 4)),
        },
    )  # fmt: skip


@pytest.fixture(scope="module")
def page(hostile):
    return TestClient(create_app(hostile[0]), base_url="http://127.0.0.1")


def pages(ids, parent):
    some = ",".join(ids[:6])
    yield from (
        "/",
        "/?open=all&seeds=1&c=all",
        "/?c=tag.network&c=param.train.x&sort=tag.network",
        "/tuning",
        "/models",
    )
    yield from (f"/tuning/{parent}", f"/compare?runs={some}", f"/compare?runs={some}&all=1", f"/panels?runs={ids[0]}")
    yield from (f"/panels?runs={ids[1]}&sample=1&scale=log", *(f"/runs/{one}" for one in ids))


def test_every_page_shows_it_as_text(hostile, page):
    _, ids, parent, _ = hostile
    for path in pages(ids, parent):
        answer = page.get(path)
        assert answer.status_code == 200, path
        assert_inert(answer.text)


def test_the_report_too(hostile):
    html, about = report.build(hostile[0], "hostile")
    assert_inert(html, scripts=0, styles=1)
    assert "default-src 'none'" in html
    assert about["lines"] == 14


def test_a_report_without_hits_names_its_search(hostile):
    with pytest.raises(InputError, match=r"--search is 'network=convv': none of the runs of hostile in .*; leave it"):
        report.build(hostile[0], "hostile", query="network=convv")


def test_files_are_handed_out_and_never_shown(hostile, page):
    store, ids, _, folder = hostile
    for name in ("evil.svg", "evil.html", "model_card.md"):
        assert page.get(f"/runs/{ids[0]}/files/{name}").status_code == 404
        answer = page.get(f"/runs/{ids[0]}/files/{name}?download=1")
        assert answer.headers["content-type"] == "application/octet-stream"
        assert answer.headers["content-disposition"].startswith("attachment;")
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "sandbox" in answer.headers["content-security-policy"]
    (folder / "secret.txt").write_text("secret")
    for name in ("../secret.txt", "..%2fsecret.txt", "%2e%2e/secret.txt", "/etc/passwd", "a/../../secret.txt", "."):
        for address in (f"/runs/{ids[0]}/files/{name}?download=1", f"/runs/{quote('../' + ids[0])}/files/{name}"):
            answer = page.get(address)
            assert answer.status_code == 404
            assert "secret" not in answer.text.replace("secret.txt", "")
    assert store.client.get_run(ids[0]).info.status == "FINISHED"


def test_csv_holds_no_formula(hostile, page):
    text = page.get("/table.csv?experiment=hostile&c=tag.network&c=mae").text
    assert "'=HYPERLINK" in text
    assert not re.search(r'(^|,|")=HYPERLINK', text, re.MULTILINE)


def test_plots_as_files_are_inert(hostile, page):
    _, ids, parent, _ = hostile
    found = page.get(f"/compare?runs={','.join(ids[:6])}").text
    addresses = [*re.findall(r'href="(/compare/plot\.svg\?[^"]*)"', found), f"/tuning/{parent}/history.svg"]
    assert len(addresses) > 1
    for address in addresses:
        answer = page.get(address.replace("&amp;", "&"))
        assert answer.status_code == 200
        assert answer.headers["content-disposition"].startswith("attachment;")
        assert_inert(answer.text, scripts=0, styles=1)


PATHS = [
    "/", "/table.csv", "/compare", "/compare/plot.svg", "/panels", "/panels/tile.png", "/tuning/x", "/models/x",
    "/runs/x", "/runs/x/files/y", "/nowhere",
]  # fmt: skip
TEXTS = st.one_of(st.sampled_from(ATTACKS), st.text(max_size=80)).map(lambda text: text[:300])
KEYS = ["q", "experiment", "sort", "c", "open", "runs", "metric", "set", "scale", "plot", "sample", "channel", "row",
        "kind", "low", "high", "colours", "token"]  # fmt: skip


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    path=st.sampled_from(PATHS),
    asked=st.dictionaries(st.sampled_from(KEYS), TEXTS, max_size=4), tail=st.one_of(st.just(""), TEXTS),
)  # fmt: skip
def test_whatever_is_asked_is_answered_inertly(page, path, asked, tail):
    address = path + (f"/{quote(tail, safe='', errors='replace')}" if tail else "")
    answer = page.get(f"{address}?{urlencode(asked, errors='replace')}")
    assert answer.status_code in (200, 404)
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")
    if answer.headers["content-type"].startswith("text/html"):
        assert_inert(answer.text)


@settings(max_examples=200, deadline=None)
@given(
    points=st.lists(st.tuples(st.floats(), st.floats()), max_size=6), label=TEXTS,
    log_y=st.booleans(), square=st.booleans(),
)  # fmt: skip
def test_any_numbers_can_be_drawn(points, label, log_y, square):
    plot = svg.Plot(label, label, label, log_y=log_y, square=square)
    plot.line(points, 11, label)
    plot.dots(points, 3, label)
    plot.dots(points, 3, label, "cross")
    plot.band([(x, y, y) for x, y in points], 1)
    plot.diagonal()
    plot.level(0.5)
    text = str(plot.render())
    assert_inert(svg.standalone(text), scripts=0, styles=1)
    assert not re.search(r'd="[^"]*(nan|inf)', text)


@given(st.floats(-1e99, 1e99), st.floats(-1e99, 1e99))
def test_ticks_lie_between_the_ends(one, other):
    low, high = sorted((one, other))
    assume(high - low > 1e-9 * max(abs(low), abs(high), 1e-9))
    found = svg.ticks(low, high)
    assert 2 <= len(found) <= 12
    room = 1e-9 * (high - low)
    assert all(low - room <= value <= high + room for value in found)


def test_a_hostile_model(hostile, page, model_file):
    store = hostile[0]
    with runs.start(store, "hostile", ATTACKS[0]) as run:
        models.log_onnx(run, model_file, sha256(model_file), {"data": {"digest": ATTACKS[1]}})
    name = 'a"><script>alert(1)<'
    number = models.register(store, name, run.id)
    models.set_alias(store, name, "champion", number)
    models.tag_version(store, name, number, {"gate.reason": ATTACKS[1], "card": "../../../secret.txt"})
    models.describe_version(store, name, number, f"# {ATTACKS[0]}")
    fresh = TestClient(create_app(store), base_url="http://127.0.0.1")
    answer = fresh.get(f"/models/{quote(name)}")
    assert answer.status_code == 200
    assert "# &lt;script&gt;" in answer.text
    for path in ("/", "/models", f"/models/{quote(name)}", f"/runs/{run.id}"):
        assert_inert(fresh.get(path).text)
    assert_inert(report.build(store, "hostile")[0], scripts=0, styles=1)


def test_a_token_is_asked_for(hostile):
    def client():
        app = create_app(hostile[0], token="a word ~ & ü")
        return TestClient(app, base_url="http://127.0.0.1", follow_redirects=False)

    stranger = client()
    for path in ("/", "/style.css", "/table.csv", "/nowhere", "/?token=", "/?token=wrong"):
        answer = stranger.get(path)
        assert answer.status_code == 401, path
        assert "runs" not in answer.text.lower().replace("/runs", "")
    assert stranger.get("/", headers={"Authorization": "Bearer wrong"}).status_code == 401
    bearer = {"Authorization": "Bearer a word ~ & ü".encode()}
    assert stranger.get("/", headers=bearer).status_code == 200
    assert stranger.get("/", headers={"Authorization": "bearer a word ~ & ü".encode()}).status_code == 200
    assert stranger.get("/", headers={"Authorization": "a word ~ & ü".encode()}).status_code == 401  # no scheme
    known = client()
    answer = known.get(f"/?q=net&token={quote('a word ~ & ü')}")
    assert answer.status_code == 303
    assert answer.headers["location"].endswith("/?q=net")
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert "word" not in cookie
    assert known.get("/").status_code == 200
    assert known.get("/", headers={"Host": "evil.example"}).status_code == 403
