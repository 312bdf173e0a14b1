import http.client
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from deploy.client import Client
from deploy.model.session import Session
from deploy.serving.server import running
from stm_models.errors import InputError


@pytest.fixture(scope="module")
def url(session):
    with running({"stm-toy": session, "other": session}) as url:
        yield url


@pytest.fixture
def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.mark.parametrize("model", [None, "stm-toy", "other"])
@pytest.mark.parametrize("kind", ["f4", "f8", "f2"])
def test_it_gets_the_arithmetic_of_the_model(url, toy, model, kind):
    images = toy.images(3).astype(kind)
    client = Client(url + "/", model)
    assert client.ready()
    got = client.infer(images, ("gradient", "prediction", "distance"))
    assert list(got) == ["gradient", "prediction", "distance"]
    for name, values in toy.expected(images.astype(np.float32)).items():
        assert got[name].dtype == np.float32
        np.testing.assert_allclose(got[name], values, rtol=1e-4, atol=1e-4)
    assert list(client.infer(images)) == ["prediction"]


def test_a_model_that_the_server_does_not_have_is_never_ready(url):
    client = Client(url, "absent")
    assert client.ready() is False
    with pytest.raises(InputError, match=r"not ready within 0.2 s .it answered 404: unknown model 'absent': choose"):
        client.wait_ready(0.2)


def test_metadata(url):
    about = Client(url).metadata()
    assert about["name"] == "stm-toy"
    assert about["inputs"][0]["shape"] == [-1, 2, 4, 5]
    assert about["parameters"]["metadata"]["task"] == "toy"


def test_errors_are_the_servers_own(url, toy):
    client = Client(url)
    with pytest.raises(InputError, match=r"answered 400: .*expected \(batch, 2, 4, 5\)"):
        client.infer(np.zeros((4, 5), np.float32))
    images = toy.images(2)
    images[1, 0, 0, 0] = np.nan
    with pytest.raises(InputError, match="row 1 has 1 values that are NaN"):
        client.infer(images)
    with pytest.raises(InputError, match="did you mean 'gradient'"):
        client.infer(toy.images(1), ["gradiant"])
    with pytest.raises(InputError, match="answered 404: unknown model 'absent': choose from stm-toy, other"):
        Client(url, "absent").metadata()
    for images in (np.array([["a"]]), [[1.0, 2.0], [3.0]]):
        with pytest.raises(InputError, match=r"expected .*float32 numbers"):
            client.infer(images)
    images = toy.images(1)
    assert client.infer(images)["prediction"].shape == (1, 2)


def test_explanations(url, toy):
    images = toy.images(2)
    outputs, answers = Client(url).explain(images, "gradient")
    for name, values in toy.expected(images).items():
        np.testing.assert_allclose(outputs[name], values, rtol=1e-4, atol=1e-4)
    assert answers == []  # the server knows no task of that name
    with pytest.raises(InputError, match="unknown output 'shap'"):
        Client(url).explain(images, "shap")


def test_a_file(tmp_path, toy):
    about = {"kind": "map", "channels": 2, "height": 4, "width": 5, "unit": "1", "kx_max": 1.5, "ky_max": 1.5}
    change = {"task": "hubbard", "input": about}
    session = Session(toy.write(tmp_path / "h.onnx", change=change), provider="cpu", threads=1)
    images = toy.images(1)
    np.save(tmp_path / "image.npy", images[0])
    with running({"m": session}) as url:
        client = Client(url)
        found = client.ask(tmp_path / "image.npy", explain="gradient")
        expected = toy.expected(images)
        np.testing.assert_allclose([v["value"] for v in found["values"]], expected["prediction"][0], rtol=1e-4)
        np.testing.assert_allclose(found["maps"]["gradient"]["array"], expected["gradient"][0], rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(found["image"]["array"], images[0])
        for size in ((3, 4), (np.float64(3), np.float32(4))):
            with pytest.raises(InputError, match=r"answered 400: .*8-bit pictures"):
                client.ask(tmp_path / "image.npy", size_nm=size)
        for size in ("50x50", 50, (50,)):
            with pytest.raises(InputError, match=r"size_nm is .* expected \(height, width\) in nm"):
                client.ask(tmp_path / "image.npy", size_nm=size)
        with pytest.raises(InputError, match="timeout is -1, expected seconds"):
            client.ask(tmp_path / "image.npy", timeout=-1)
        with pytest.raises(InputError, match=r"answered 400: .*expected degrees"):
            client.ask(tmp_path / "image.npy", rotate=1000)
        with pytest.raises(InputError, match="cannot read"):
            client.ask(tmp_path / "absent.npy")


@pytest.mark.parametrize(("retries", "said", "asked"), [(3, "0", 3), (1, "0", 2), (0, None, 1)])
def test_a_busy_server_is_asked_again(retries, said, asked):
    """Busy twice, then ready; as often as it may be asked, and no oftener."""
    heard = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def talk():
            connection, _ = listener.accept()
            with connection:
                while data := connection.recv(10_000):
                    heard.append(data)
                    busy = len(heard) < 3
                    body = b'{"error": "busy"}' if busy else b'{"name": "m"}'
                    status = b"503 Service Unavailable" if busy else b"200 OK"
                    again = b"" if said is None else b"Retry-After: " + said.encode() + b"\r\n"
                    length = str(len(body)).encode()
                    head = b"HTTP/1.1 " + status + b"\r\n" + again + b"Content-Length: " + length + b"\r\n\r\n"
                    connection.sendall(head + body)

        thread = threading.Thread(target=talk)
        thread.start()
        client = Client(f"http://127.0.0.1:{listener.getsockname()[1]}", "m", retries=retries)
        if asked == 3:
            assert client.metadata() == {"name": "m"}
        else:
            with pytest.raises(InputError, match="answered 503: busy"):
                client.metadata()
        client.close()
        thread.join()
    assert len(heard) == asked


def test_a_refusal_of_a_body_that_is_still_sent(session):
    """The server answers and closes before it has read the body."""
    large = np.zeros((50_000, *session.metadata.input.shape), np.float32)
    with running({"m": session}, max_body_bytes=10_000, max_rows=10**6) as url:
        client = Client(url, "m")
        for _ in range(5):
            with pytest.raises(InputError, match="answered 413: the body is larger than 10000 bytes"):
                client.infer(large)
            assert client.metadata()["name"] == "m"  # so that the next one is on a kept connection


def test_a_busy_server_that_reads_no_body_is_asked_again():
    """The first connection gets 503 at the head of its request; the second one is heard out."""
    heard = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def talk():
            connection, _ = listener.accept()
            with connection:
                heard.append(connection.recv(100))
                head = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 0\r\nContent-Length: 17\r\n"
                connection.sendall(head + b'\r\n{"error": "busy"}')  # no word of closing
            connection, _ = listener.accept()
            with connection, connection.makefile("rb") as stream:
                head = b"".join(iter(stream.readline, b"\r\n")).lower()
                heard.append(stream.read(int(head.partition(b"content-length: ")[2].partition(b"\r")[0])))
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 17\r\n\r\n" + b'{"error": "read"}')

        thread = threading.Thread(target=talk)
        thread.start()
        client = Client(f"http://127.0.0.1:{listener.getsockname()[1]}", "m")
        with pytest.raises(InputError, match="answered 400: read"):
            client.infer(np.zeros((1, 1, 2000, 2000), np.float32))
        client.close()
        thread.join()
    assert len(heard[1]) > 16_000_000


def test_certificates_that_cannot_be_read(tmp_path):
    (tmp_path / "ca.pem").write_text("no certificate")
    for path in (tmp_path / "absent.pem", tmp_path / "ca.pem"):
        with pytest.raises(InputError, match="cannot read the certificates"):
            Client("https://127.0.0.1:1", "m", cafile=path)


def test_one_client_serves_many_threads(url, toy):
    client = Client(url)

    def one(seed):
        images = toy.images(1 + seed % 3, seed)
        return np.allclose(client.infer(images)["prediction"], toy.expected(images)["prediction"], atol=1e-3)

    with ThreadPoolExecutor(6) as pool:
        assert all(pool.map(one, range(60)))


def test_a_token(session, toy):
    with running({"m": session}, token="right") as url:
        for token in ("right", "right\n"):  # as it is read from a file
            assert Client(url, token=token).infer(toy.images(1))["prediction"].shape == (1, 2)
        for token in (None, "wrong"):
            with pytest.raises(InputError, match="answered 401: a valid token is needed"):
                Client(url, "m", token=token).infer(toy.images(1))


@pytest.mark.parametrize("token", ["", "\n", "two words", "two\nlines", "schl\u00fcssel"])
def test_a_token_that_no_header_carries_is_refused(token):
    with pytest.raises(InputError, match="the token must be of printable ASCII characters"):
        Client("http://127.0.0.1:1", token=token)


@pytest.mark.parametrize(
    "wrong", [{"retries": -1}, {"retries": 1.5}, *({"timeout": t} for t in (-1, 0, "10", None, np.nan, np.inf))]
)
def test_numbers_that_cannot_be_are_refused(wrong):
    with pytest.raises(InputError, match=f"{next(iter(wrong))} is .*, expected"):
        Client("http://127.0.0.1:1", **wrong)


def test_numbers_of_numpy_are_numbers(url):
    assert Client(url, timeout=np.float32(5), retries=np.int64(1)).ready()


@pytest.mark.parametrize("error", [ValueError("no header"), KeyboardInterrupt()])
def test_a_question_that_broke_off_leaves_a_client_that_answers(url, toy, monkeypatch, error):
    """As by Ctrl-C in a notebook."""
    client = Client(url, "stm-toy")
    client.infer(toy.images(1))

    def broken(*_, **__):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(http.client.HTTPConnection, "endheaders", broken)
        with pytest.raises((InputError, KeyboardInterrupt)):
            client.infer(toy.images(1))
    assert client.infer(toy.images(1))["prediction"].shape == (1, 2)


def test_a_server_that_came_back_is_found_again(session, toy):
    with running({"m": session}) as url:
        port = int(url.rsplit(":", 1)[1])
        client = Client(url, "m")
        client.infer(toy.images(1))
    with running({"m": session}, port=port):
        assert client.infer(toy.images(1))["prediction"].shape == (1, 2)
    with pytest.raises(InputError, match="no answer from"):
        client.infer(toy.images(1))


def test_an_address_that_is_none():
    client = Client("http://.a:80", "m")
    assert client.ready() is False
    with pytest.raises(InputError, match=r"no answer from http://\.a:80"):
        client.metadata()


def test_nobody_there(free_port, toy):
    client = Client(f"http://127.0.0.1:{free_port}", "m")
    assert client.ready() is False
    with pytest.raises(InputError, match=r"no answer from http://.*is the server running\? start it with"):
        client.infer(toy.images(1))
    with pytest.raises(InputError, match=r"not ready within 0.2 s"):
        client.wait_ready(0.2)


def test_waiting_for_a_server_that_comes_late(session, free_port):
    client = Client(f"http://127.0.0.1:{free_port}")
    over = threading.Event()

    def late():
        time.sleep(0.3)
        with running({"m": session}, port=free_port):
            over.wait(20)

    thread = threading.Thread(target=late)
    thread.start()
    try:
        client.wait_ready(15)
        assert client.model == "m"
    finally:
        over.set()
        thread.join()


def test_waiting_for_one_that_says_nothing():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = Client(f"http://127.0.0.1:{listener.getsockname()[1]}", "m", timeout=30)
        began = time.monotonic()
        with pytest.raises(InputError, match=r"not ready within 0.3 s"):
            client.wait_ready(0.3)
        assert time.monotonic() - began < 15


@pytest.mark.parametrize("silent", [True, False])
def test_something_else_listens(silent):
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def talk():
            connection, _ = listener.accept()
            with connection:
                if silent:
                    time.sleep(0.6)
                else:
                    connection.recv(1000)
                    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")

        thread = threading.Thread(target=talk)
        thread.start()
        client = Client(f"http://127.0.0.1:{listener.getsockname()[1]}", "m", timeout=0.3)
        with pytest.raises(InputError, match=r"within 0.3 s|is no JSON object"):
            client.metadata()
        thread.join()


@pytest.mark.parametrize("url", ["127.0.0.1:8080", "ftp://x", "http://", "http://x:port", "http://[::1"])
def test_a_bad_address_is_refused(url):
    with pytest.raises(InputError, match="expected something like http://127"):
        Client(url)
