"""The JSON that the operations of `/openapi.json` take and give, as JSON Schema, by which clients are generated.

Must not know: operations, statuses.
"""

from typing import Any

Json = dict[str, Any]

STRING: Json = {"type": "string"}
INTEGER: Json = {"type": "integer"}
NUMBER: Json = {"type": "number"}
BOOLEAN: Json = {"type": "boolean"}


def _list_of(items: Json) -> Json:
    return {"type": "array", "items": items}


def _or_null(schema: Json) -> Json:
    return schema | {"type": [schema["type"], "null"]}


def _object(required: Json, optional: Json | None = None) -> Json:
    return {"type": "object", "required": list(required), "properties": required | (optional or {})}


def reference(name: str) -> Json:
    """Return what stands for the schema of this name in the document."""
    return {"$ref": f"#/components/schemas/{name}"}


_MODEL = _object({"name": STRING, "version": STRING})
_TENSOR = {"name": STRING, "datatype": STRING, "shape": _list_of(INTEGER)}
_DATA: Json = {"data": {"type": "array", "items": {}}, "parameters": {"type": "object"}}

SCHEMAS: dict[str, Json] = {
    "Error": _object({"error": STRING}),
    "Pictures": {
        "type": "object",
        "description": "Either images or pixels.",
        "properties": {
            "images": _list_of({"type": "string", "description": "A picture in base64."}),
            "pixels": {
                "type": "array",
                "items": {},
                "description": "28 rows of 28 integers, 0 = paper, 255 = ink; 784 integers; or a list of either.",
            },
        },
        "minProperties": 1,
        "maxProperties": 1,
        "additionalProperties": False,
    },
    # Of a picture that could not be read, the error and the source alone.
    "Prediction": _object(
        {"source": {"type": ["integer", "string"]}},
        {
            "digit": _or_null(INTEGER),
            "confidence": _or_null(NUMBER),
            "probabilities": _or_null(_list_of(NUMBER)),
            "accepted": BOOLEAN,
            "reasons": _list_of(STRING),
            "error": STRING,
            "input": _object(
                {"image": STRING, "box": _or_null(_list_of(INTEGER)), "size": _list_of(INTEGER), "polarity": STRING}
            ),
        },
    ),
    "Predictions": _object({"model": _MODEL, "predictions": _list_of(reference("Prediction"))}),
    # The data: base64 of float32, little-endian.
    "Tensor": _object({"shape": _list_of(INTEGER), "data": STRING}),
    "Network": _object(
        {
            "model": _MODEL,
            "layers": {"type": "array", "items": {}},
            "kernels": {"type": "object", "additionalProperties": reference("Tensor")},
        }
    ),
    "Explanation": _object(
        {"model": _MODEL, "pixels": _list_of(_list_of(INTEGER))},
        {
            "layers": {"type": "object", "additionalProperties": reference("Tensor")},
            "occlusion": _object(
                {"cover_side": INTEGER, "probabilities": _list_of(NUMBER), "map": reference("Tensor")}
            ),
        },
    ),
    "Models": _object(
        {
            "default_model": STRING,
            "models": _list_of(
                _object(
                    {
                        "name": STRING,
                        "version": STRING,
                        "description": STRING,
                        "test_accuracy": _or_null(NUMBER),
                        "parameters": INTEGER,
                        "multiply_adds": INTEGER,
                        "min_confidence": NUMBER,
                        "layers": BOOLEAN,
                    }
                )
            ),
            "explain": BOOLEAN,
            "grpc_port": INTEGER,
        }
    ),
    "ServerMetadata": _object({"name": STRING, "version": STRING, "extensions": _list_of(STRING)}),
    "ModelMetadata": _object(
        {
            "name": STRING,
            "versions": _list_of(STRING),
            "platform": STRING,
            "inputs": _list_of(_object(_TENSOR)),
            "outputs": _list_of(_object(_TENSOR)),
        },
        {"properties": {"type": "object"}},
    ),
    "InferenceRequest": _object(
        {"inputs": _list_of(_object(_TENSOR, _DATA))},
        {"id": STRING, "parameters": {"type": "object"}, "outputs": _list_of(_object({"name": STRING}))},
    ),
    "InferenceResponse": _object(
        {"model_name": STRING, "model_version": STRING, "outputs": _list_of(_object(_TENSOR, _DATA))}, {"id": STRING}
    ),
    "RepositoryIndex": _list_of(_object({"name": STRING, "version": STRING, "state": STRING, "reason": STRING})),
    "Live": _object({"live": BOOLEAN}),
    "Ready": _object({"ready": BOOLEAN}),
}
