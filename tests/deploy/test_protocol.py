import json
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from deploy.serving import json_array
from deploy.serving.invocations import decode_invocation, encode_predictions
from deploy.serving.protocol import (
    HEADER,
    InferRequest,
    decode_request,
    decode_response,
    encode_request,
    encode_response,
)
from deploy.serving.strict_json import dump_json
from stm_models.errors import InputError

SHAPE = (2, 3, 4)
OUTPUTS = ("prediction", "gradient", "distance")
IMAGE = np.arange(24, dtype=np.float32).reshape(1, *SHAPE)

finite = st.floats(width=16, allow_nan=False, allow_infinity=False)
batches = st.sampled_from(["f2", "f4", "f8"]).flatmap(
    lambda kind: hnp.arrays(kind, st.tuples(st.integers(1, 3), *map(st.just, SHAPE)), elements=finite)
)


def _decode(body, header=None, **options):
    return decode_request(body, header, **{"image": SHAPE, "outputs": OUTPUTS, "max_rows": 4, **options})


def _header(length):
    return None if length is None else str(length)


@settings(max_examples=60, deadline=None)
@given(batches, st.lists(st.sampled_from(OUTPUTS), unique=True), st.booleans(), st.none() | st.text(max_size=5))
def test_a_request_survives_the_round_trip(image, outputs, binary, name):
    body, length = encode_request(image, outputs, binary=binary, request_id=name)
    assert (length is None) is not binary
    got = _decode(body, _header(length))
    assert got.image.dtype == np.float32
    assert got.image.flags.c_contiguous
    assert got.image.flags.aligned
    np.testing.assert_array_equal(got.image, image.astype(np.float32))
    assert got.outputs == tuple(outputs)
    assert got.binary == dict.fromkeys(outputs, binary)
    assert got.id == name


@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(OUTPUTS),
        hnp.arrays(np.float32, hnp.array_shapes(min_dims=1, max_dims=3, max_side=4), elements=finite),
        min_size=1,
    ),
    st.sets(st.sampled_from(OUTPUTS)),
)
def test_an_answer_survives_the_round_trip(outputs, as_binary):
    asked = [{"name": name, "parameters": {"binary_data": name in as_binary}} for name in OUTPUTS]
    tensor = {"name": "image", "datatype": "FP32", "shape": [1, *SHAPE], "data": IMAGE.ravel().tolist()}
    request = _decode(json.dumps({"id": "7", "inputs": [tensor], "outputs": asked}).encode())
    body, length = encode_response("m", "1", outputs, request, {"answers": [1]})
    assert (length is not None) is bool(as_binary & outputs.keys())
    got, head = decode_response(body, _header(length))
    assert got.keys() == outputs.keys()
    for name, values in outputs.items():
        assert got[name].dtype == values.dtype
        np.testing.assert_array_equal(got[name], values)
    assert (head["model_name"], head["model_version"], head["id"]) == ("m", "1", "7")
    assert head["parameters"] == {"answers": [1]}


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=60), st.none() | st.integers(-5, 80).map(str) | st.text(max_size=5))
def test_noise_is_refused_and_never_crashes(body, header):
    with pytest.raises(InputError):
        _decode(body, header)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(
        ["inputs", "outputs", "id", "parameters", "name", "shape", "datatype", "data", "tensor.parameters"]
    ),
    json_values,
)
def test_a_wrong_value_anywhere_is_refused_or_harmless(where, value):
    tensor = {"name": "image", "datatype": "FP32", "shape": [1, *SHAPE], "data": IMAGE.ravel().tolist()}
    request = {"inputs": [tensor]}
    if where in ("inputs", "outputs", "id", "parameters"):
        request[where] = value
    else:
        tensor[where.removeprefix("tensor.")] = value
    message = ""
    try:
        got = _decode(json.dumps(request).encode())
    except InputError as error:
        message = str(error)
    else:
        np.testing.assert_array_equal(got.image.ravel(), IMAGE.ravel())
    assert "\n" not in message
    assert len(message) < 500


@pytest.mark.parametrize("nested", [True, False])
def test_json_data_may_be_flat_or_nested(nested):
    data = IMAGE.tolist() if nested else IMAGE.ravel().tolist()
    tensor = {"name": "image", "datatype": "FP32", "shape": [1, *SHAPE], "data": data}
    np.testing.assert_array_equal(_decode(json.dumps({"inputs": [tensor]}).encode()).image, IMAGE)


def test_without_outputs_the_request_says_so_and_may_ask_for_binary():
    tensor = {"name": "image", "datatype": "FP32", "shape": [1, *SHAPE], "data": IMAGE.ravel().tolist()}
    body = {"inputs": [tensor], "parameters": {"binary_data_output": True}}
    request = _decode(json.dumps(body).encode())
    assert request.outputs == ()
    body, length = encode_response("m", "1", {"prediction": np.ones((1, 2), np.float32)}, request)
    assert len(body) - length == 8


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shape": [1, 2, 4, 3]}, r"\(1, 2, 4, 3\), expected \(batch, 2, 3, 4\)"),
        ({"shape": [2, 3, 4]}, "batch of one"),
        ({"shape": [5, 2, 3, 4]}, "5 rows, at most 4"),
        ({"shape": [0, 2, 3, 4]}, "no rows"),
        ({"shape": [-1, 2, 3, 4]}, "expected a list of sizes"),
        ({"shape": [True, 2, 3, 4]}, "expected a list of sizes"),
        ({"shape": [2**60, 2, 3, 4]}, "expected a list of sizes"),
        ({"shape": None}, "expected a list of sizes"),
        ({"datatype": "INT8"}, "choose from FP32, FP64, FP16"),
        ({"datatype": ["FP32"]}, "choose from FP32, FP64, FP16"),
        ({"datatype": "FP64"}, "takes 192 bytes; binary_data_size is 96, 96 bytes follow"),
        ({"parameters": {"binary_data_size": 92}}, "takes 96 bytes; binary_data_size is 92"),
        ({"parameters": {"binary_data_size": "96"}}, "takes 96 bytes"),
        ({"parameters": {}}, "neither data"),
        ({"parameters": [1]}, "expected an object"),
        ({"data": [1.0]}, "both data and binary_data_size"),
        ({"name": "picture"}, "choose from image"),
    ],
)
def test_a_wrong_binary_tensor_is_refused(change, message):
    tensor = {
        "name": "image",
        "datatype": "FP32",
        "shape": [1, *SHAPE],
        "parameters": {"binary_data_size": 96},
        **change,
    }
    head = json.dumps({"inputs": [tensor]}).encode()
    with pytest.raises(InputError, match=message):
        _decode(head + IMAGE.tobytes(), str(len(head)))


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"[1]", "JSON list, expected an object"),
        (b'{"inputs": NaN}', "NaN is no JSON number"),
        (b"[" * 100_000, "no valid JSON"),
        (b'{"inputs": []}', "exactly one tensor"),
        (b'{"inputs": [1]}', "expected an object"),
        (b'{"inputs": [%s], "outputs": [{"name": "x"}]}', "unknown output 'x': choose from prediction"),
        (b'{"inputs": [%s], "outputs": [{"name": "distance"}, {"name": "distance"}]}', "asked for twice"),
        (b'{"inputs": [%s], "outputs": {"name": "distance"}}', "expected a list of objects"),
        (b'{"inputs": [%s], "outputs": [{"name": "distance", "parameters": {"binary_data": 1}}]}', "true or"),
        (b'{"inputs": [%s], "parameters": {"binary_data_output": "yes"}}', "true or false"),
        (b'{"inputs": [%s], "id": 7}', "expected a string"),
    ],
)
def test_a_wrong_request_is_refused(body, message):
    tensor = {"name": "image", "datatype": "FP32", "shape": [1, *SHAPE], "data": IMAGE.ravel().tolist()}
    with pytest.raises(InputError, match=message):
        _decode(body.replace(b"%s", json.dumps(tensor).encode()))


@pytest.mark.parametrize("given", ["classification", "shared_memory_region", "shared_memory_byte_size"])
@pytest.mark.parametrize("where", ["inputs", "outputs"])
def test_parameters_of_extensions_that_there_are_not_are_refused_and_others_ignored(where, given):
    tensor = {"name": "image", "datatype": "FP32", "shape": [1, *SHAPE], "data": IMAGE.ravel().tolist()}
    body = {"inputs": [tensor], "outputs": [{"name": "distance"}]}
    body[where][0]["parameters"] = {"colour": 1, "memory": "shared_memory"}
    assert _decode(json.dumps(body).encode()).outputs == ("distance",)
    body[where][0]["parameters"] = {given: 1}
    with pytest.raises(InputError, match=f"parameter '{given}' of .* extension that this server does not have"):
        _decode(json.dumps(body).encode())


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([1.0] * 23, "expected 24 numbers"),
        (["1"] * 24, "expected 24 numbers"),
        ([None] * 24, "expected 24 numbers"),
        ([True] * 24, "expected 24 numbers"),
        ([[1.0], [1.0, 2.0]], "ragged"),
        ([10**40] * 24, "expected 24 numbers|beyond float32"),
        ([[1.0], 2.0], "ragged"),
        ([[[1.0, "a"]]], "holds str, expected 24 numbers"),
        ([{"a": 1}] * 24, "holds dict, expected 24 numbers"),
        ([1e39] * 24, "beyond float32"),
        ({"a": 1}, "neither data"),
    ],
)
def test_wrong_json_data_is_refused(data, message):
    tensor = {"name": "image", "datatype": "FP32", "shape": [1, *SHAPE], "data": data}
    with pytest.raises(InputError, match=message):
        _decode(json.dumps({"inputs": [tensor]}).encode())


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("kind", ["f2", "f4", "f8"])
def test_values_that_are_not_finite_are_refused(value, kind):
    image = IMAGE.astype(kind)
    image[0, 1, 2, 3] = value
    body, length = encode_request(image, ["prediction"])
    with pytest.raises(InputError, match="row 0 has 1 values that are NaN, infinite"):
        _decode(body, str(length))


@pytest.mark.parametrize("header", ["-1", "1e3", "", "9" * 400, "100000", "٣", "²"])
def test_a_wrong_header_length_is_refused(header):
    body, _ = encode_request(IMAGE, ["prediction"])
    with pytest.raises(InputError, match=HEADER):
        _decode(body, header)


def test_bytes_too_many_are_refused():
    body, length = encode_request(IMAGE, ["prediction"])
    with pytest.raises(InputError, match="3 bytes follow the last"):
        _decode(body + b"abc", str(length))


def test_a_huge_shape_is_refused_before_memory_is_taken():
    tensor = {"name": "image", "datatype": "FP64", "shape": [2**40, *SHAPE]}
    head = json.dumps({"inputs": [{**tensor, "parameters": {"binary_data_size": 2**40 * 192}}]}).encode()
    with pytest.raises(InputError, match="takes 211106232532992 bytes"):
        _decode(head, str(len(head)), max_rows=None)


@pytest.mark.parametrize("form", ["inputs", "instances"])
def test_invocations_take_both_forms(form):
    got = decode_invocation(json.dumps({form: IMAGE.tolist()}).encode(), image=SHAPE)
    np.testing.assert_array_equal(got, IMAGE)
    assert got.dtype == np.float32


_LONG = ["a" * 50_000] + [0] * 4095
_TENSOR = {"name": "image", "datatype": "FP32", "shape": [1, 1, 64, 64], "data": _LONG}


@pytest.mark.parametrize(
    ("inputs", "decode"),
    [
        ([[_LONG]], decode_invocation),
        ([_TENSOR], lambda body, image: decode_request(body, None, image=image, outputs=OUTPUTS)),
    ],
    ids=["invocations", "v2"],
)
def test_one_long_text_among_numbers_takes_no_memory(inputs, decode):
    """numpy would make every number as long as it: 800 MB of 60 kB."""
    body = json.dumps({"inputs": inputs}).encode()
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match="holds str"):
            decode(body, image=(1, 64, 64))
        assert tracemalloc.get_traced_memory()[1] < 10 * 2**20
    finally:
        tracemalloc.stop()


@pytest.fixture
def written(monkeypatch):
    """How many numbers were written at a time, while no other thread could do anything."""
    counts = []

    def writing(value):
        counts.append(np.size(value) if isinstance(value, list) else 0)
        return dump_json(value)

    monkeypatch.setattr(json_array, "dump_json", writing)
    return counts


@pytest.mark.parametrize(
    "shape",
    [(), (0, 4), (1, 2), (3,), (16384,), (16385,), (5, 16384), (5, 16385), (3, 2, 128, 129), (9, 7000), (40000, 2)],
)
def test_numbers_are_written_in_parts_of_the_same_bytes(shape, written):
    values = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    values[values > 3] = np.inf
    assert b"".join(json_array.array_json(values)) == dump_json(values.tolist())
    assert max(written) <= 16384
    assert len(written) <= 2 + values.size // 7000


def test_a_long_answer_lets_other_threads_run_between_its_parts(written):
    """Four million numbers: written at once, they stopped the whole server for half a second."""
    values = np.random.default_rng(0).normal(size=(16, 1, 512, 512)).astype(np.float32)
    request = InferRequest(values[:, :, :2, :2], (), {}, id="a")
    body, length = encode_response("m", "1", {"gradient": values, "distance": values[:, 0, 0, 0]}, request)
    assert length is None
    assert max(written) <= 16384
    assert len(written) >= 256
    head = {"model_name": "m", "model_version": "1", "id": "a"}
    tensors = [("gradient", values), ("distance", values[:, 0, 0, 0])]
    head["outputs"] = [
        {"name": name, "datatype": "FP32", "shape": list(some.shape), "data": some.ravel().tolist()}
        for name, some in tensors
    ]
    assert body == dump_json(head)
    written.clear()
    assert encode_predictions(values) == dump_json({"predictions": values.tolist()})
    assert max(written) <= 16384


@pytest.mark.parametrize("name", [None, "a"])
def test_a_question_in_json_is_plain_json(name):
    body, length = encode_request(IMAGE, ["prediction"], binary=False, request_id=name, focus=[3])
    assert length is None
    tensors = [
        {"name": "image", "datatype": "FP32", "shape": list(IMAGE.shape), "data": IMAGE.ravel().tolist()},
        {"name": "focus", "datatype": "INT64", "shape": [1], "data": [3]},
    ]
    wanted = [{"name": "prediction", "parameters": {"binary_data": False}}]
    assert body == dump_json({**({"id": name} if name else {}), "inputs": tensors, "outputs": wanted})


def test_invocations_take_a_named_input_and_answer_with_rows():
    got = decode_invocation(json.dumps({"inputs": {"image": IMAGE.tolist()}}).encode(), image=SHAPE)
    np.testing.assert_array_equal(got, IMAGE)
    assert json.loads(encode_predictions(np.array([[1, 2]], np.float32))) == {"predictions": [[1.0, 2.0]]}


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"dataframe_split": {}}, "dataframe_split, expected one of inputs, instances"),
        ({}, "nothing, expected one of"),
        ({"inputs": [1], "instances": [1]}, "expected one of"),
        ({"inputs": "abc"}, "str, expected nested lists"),
        ({"inputs": [[1], [1, 2]]}, "ragged"),
        ({"inputs": [["a"]]}, "expected an array of float32"),
        ({"inputs": [[1.0, 2.0]]}, r"\(1, 2\), expected \(batch, 2, 3, 4\)"),
        ({"inputs": [[0.0]] * 9}, "9 rows, at most 4"),
    ],
)
def test_wrong_invocations_are_refused(body, message):
    with pytest.raises(InputError, match=message):
        decode_invocation(json.dumps(body).encode(), image=SHAPE, max_rows=4)
