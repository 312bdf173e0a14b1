"""The interface's description in OpenAPI 3.1: every route but the page's own, what goes in and what comes out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["describe"]

_TEXT = {"type": "string"}
_FLAG = {"type": "boolean"}
_NAMES = {"type": "array", "items": _TEXT}
_ERROR = {"$ref": "#/components/schemas/Error"}
_BODY_STATUSES = (400, 408, 413, 415, 429, 503)
_MEANINGS = {
    400: "The request does not fit; the message names the field.",
    401: "The token is missing or wrong.",
    403: "The Host or Origin header names another site.",
    404: "There is no such model or version.",
    405: "Another method is meant.",
    408: "The body did not arrive in time.",
    413: "The body is too large, or the answer in JSON would be.",
    415: "The body is compressed, or of another content type.",
    429: "This address asks too often.",
    500: "The server failed on this request.",
    503: "The server has enough to do: ask again after Retry-After seconds.",
}


def describe(models: Sequence[str], version: str, needs_token: bool) -> dict[str, Any]:
    """Return the description of a server.

    Parameters
    ----------
    models : sequence of str
        Names of its models.
    version : str
        Of the program.
    needs_token : bool
        Whether requests carry a bearer token.
    """
    name = _parameter("model", {"type": "string", "enum": list(models)})
    number = _parameter("version", {**_TEXT, "pattern": "^[A-Za-z0-9._-]{1,64}$"})
    paths: dict[str, Any] = {
        "/ping": {"get": _text("Tell that the server lives, as MLflow's does.", "text/plain", free=True)},
        "/version": {"get": _get("Name and version of the program.", "Version")},
        "/metrics": {"get": _text("Counters for Prometheus.", "text/plain")},
        "/openapi.json": {"get": _get("This description.", "Description")},
        "/invocations": {
            "post": _post("Score the first model, as MLflow's servers do.", "Invocation", "Predictions", binary=False)
        },
        "/v2": {"get": _get("Server metadata.", "Server")},
        "/v2/models": {"get": _get("Names and addresses of all models.", "Models")},
        "/v2/health/live": {"get": _get("Tell that the server lives.", "Live", free=True)},
        "/v2/health/ready": {"get": _get("Tell that the server answers.", "Ready", free=True)},
    }
    for prefix, parameters in (
        ("/v2/models/{model}", [name]),
        ("/v2/models/{model}/versions/{version}", [name, number]),
    ):
        for path, method, operation in (
            ("", "get", _get("Inputs, outputs and all that a model says about itself.", "Model", missing=True)),
            ("/ready", "get", _get("Tell that a model answers.", "ModelReady", missing=True)),
            ("/infer", "post", _post("Compute outputs.", "Request", "Answer", missing=True)),
            ("/explain", "post", _post("Compute, explain, and say it in words.", "Request", "Answer", missing=True)),
        ):
            paths[prefix + path] = {"parameters": parameters, method: operation}
    paths["/v2/models/{model}/ask"] = {"parameters": [name], "post": _ask()}
    description: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {
            "title": "stm-lab",
            "version": version,
            "description": "Open Inference Protocol V2 with binary tensors, explanations, MLflow's scoring protocol.",
        },
        "paths": paths,
        "components": {"schemas": _schemas()},
    }
    if needs_token:
        description["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        description["security"] = [{"token": []}]
    return description


def _parameter(name: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "schema": schema}


def _get(summary: str, schema: str, *, free: bool = False, missing: bool = False) -> dict[str, Any]:
    content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}
    operation = {"summary": summary, "responses": {"200": {"description": "The answer.", "content": content}}}
    return _with_errors(operation, (*((404,) if missing else ()), 415, *(() if free else (429,))), free)


def _text(summary: str, kind: str, *, free: bool = False) -> dict[str, Any]:
    answer = {"description": "The answer.", "content": {kind: {"schema": _TEXT}}}
    return _with_errors({"summary": summary, "responses": {"200": answer}}, (415, *(() if free else (429,))), free)


def _post(summary: str, request: str, answer: str, *, missing: bool = False, binary: bool = True) -> dict[str, Any]:
    given: dict[str, Any] = {"application/json": {"schema": {"$ref": f"#/components/schemas/{request}"}}}
    content: dict[str, Any] = {"application/json": {"schema": {"$ref": f"#/components/schemas/{answer}"}}}
    operation: dict[str, Any] = {"summary": summary}
    if binary:
        given["application/octet-stream"] = content["application/octet-stream"] = {
            "schema": {"type": "string", "format": "binary"}
        }
        operation["parameters"] = [
            {
                "name": "Inference-Header-Content-Length",
                "in": "header",
                "required": False,
                "description": "Length in bytes of the JSON before binary tensors; without them, leave it out.",
                "schema": {"type": "integer", "minimum": 2},
            }
        ]
    operation["requestBody"] = {"required": True, "content": given}
    operation["responses"] = {"200": {"description": "The answer.", "content": content}}
    return _with_errors(operation, (*((404,) if missing else ()), *_BODY_STATUSES), False)


def _ask() -> dict[str, Any]:
    kinds = {
        "suffix": "Kind of file, e.g. .npy.",
        "size_nm": "HEIGHTxWIDTH in nm.",
        "key": "Name of the array.",
        "bias": "In V.",
        "channel": "Signal of the file.",
        "rotate": "Degrees counter-clockwise to turn the map by.",
        "atom_width": "Standard deviation of one atom in nm.",
        "explain": "Explanation to compute too.",
        "place": "Position that it explains.",
    }
    content = {"application/json": {"schema": {"$ref": "#/components/schemas/FileAnswer"}}}
    operation: dict[str, Any] = {
        "summary": "Answer about a file that stm predict reads.",
        "parameters": [
            {"name": key, "in": "query", "required": key == "suffix", "description": text, "schema": _TEXT}
            for key, text in kinds.items()
        ],
        "requestBody": {
            "required": True,
            "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
        },
        "responses": {"200": {"description": "The answer.", "content": content}},
    }
    return _with_errors(operation, (404, *_BODY_STATUSES), False)


def _with_errors(operation: dict[str, Any], statuses: Sequence[int], free: bool) -> dict[str, Any]:
    if free:
        operation["security"] = []
    for status in (400, *(() if free else (401,)), 403, 405, *statuses, 500):
        answer: dict[str, Any] = {"description": _MEANINGS[status], "content": {"application/json": {"schema": _ERROR}}}
        if status in (429, 503):
            answer["headers"] = {"Retry-After": {"schema": {"type": "integer"}, "description": "Seconds."}}
        operation["responses"].setdefault(str(status), answer)
    return operation


def _object(required: Sequence[str], **properties: Any) -> dict[str, Any]:
    return {"type": "object", "required": list(required), "properties": properties}


def _schemas() -> dict[str, Any]:
    nested: dict[str, Any] = {"type": "array", "items": {"type": ["number", "array"]}}
    sizes = {"type": "array", "items": {"type": "integer"}}
    tensor = {"name": _TEXT, "datatype": _TEXT, "shape": sizes}
    flags = {"type": "object", "properties": {"binary_data": _FLAG}}
    given = _object(
        ["name", "datatype", "shape"],
        name={"type": "string", "enum": ["image", "focus"]},
        datatype={"type": "string", "enum": ["FP16", "FP32", "FP64", "INT32", "INT64"]},
        shape={"type": "array", "items": {"type": "integer", "minimum": 0}},
        data=nested,
        parameters=_object([], binary_data_size={"type": "integer", "minimum": 0}),
    )
    wanted = _object(["name"], name=_TEXT, parameters=flags)
    specs = {"type": "array", "items": _object(["name", "datatype", "shape"], **tensor)}
    result = _object(["name", "datatype", "shape"], **tensor, data=nested, parameters={"type": "object"})
    rows = {"type": "array", "items": {"type": "array"}}
    return {
        "Error": _object(["error"], error=_TEXT, fields=_NAMES),
        "FileAnswer": _object(
            ["model_name", "answer", "words"], model_name=_TEXT, answer={"type": "object"}, words=_TEXT
        ),
        "Version": _object(["name", "version"], name=_TEXT, version=_TEXT),
        "Description": _object(["openapi", "paths"], openapi=_TEXT, paths={"type": "object"}),
        "Live": _object(["live"], live=_FLAG),
        "Ready": _object(["ready"], ready=_FLAG),
        "ModelReady": _object(["name", "ready"], name=_TEXT, ready=_FLAG, version=_TEXT, refused={"type": "object"}),
        "Server": _object(
            ["name", "version", "extensions"], name=_TEXT, version=_TEXT, extensions=_NAMES, models=_NAMES
        ),
        "Models": _object(["models", "endpoints"], models=_NAMES, endpoints=_NAMES),
        "Model": _object(
            ["name", "versions", "platform", "inputs", "outputs"],
            name=_TEXT, versions=_NAMES, platform=_TEXT, inputs=specs, outputs=specs, parameters={"type": "object"},
        ),
        "Request": _object(
            ["inputs"],
            id=_TEXT,
            inputs={"type": "array", "minItems": 1, "maxItems": 2, "items": given},
            outputs={"type": "array", "items": wanted},
            parameters=_object([], binary_data_output=_FLAG),
        ),
        "Answer": _object(
            ["model_name", "model_version", "outputs"],
            model_name=_TEXT, model_version=_TEXT, id=_TEXT, parameters={"type": "object"},
            outputs={"type": "array", "items": result},
        ),
        "Invocation": {
            "oneOf": [
                _object(["inputs"], inputs={"anyOf": [rows, _object(["image"], image=rows)]}),
                _object(["instances"], instances={"type": "array", "items": {"type": ["array", "object"]}}),
            ]
        },
        "Predictions": _object(["predictions"], predictions={"type": "array"}),
    }  # fmt: skip
