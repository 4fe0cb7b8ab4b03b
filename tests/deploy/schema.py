"""Checks a manifest against the typed models of the official Kubernetes and KServe clients, strictly."""

import re
import sys
from typing import Any

import kubernetes.client.models

PLAIN: dict[str, type] = {"str": str, "int": int, "bool": bool, "object": object}


def check(value: Any, kind: str, place: str = "") -> None:
    """Refuse a field that the type does not have, a value of another type and a missing field.

    Args:
        value: a parsed manifest or a part of it.
        kind: the type's name, such as "V1Deployment", "List[V1Container]" or "Dict[str, str]".
        place: where in the manifest, for the message.

    Raises:
        ValueError: the manifest does not fit.
    """
    if inner := re.fullmatch(r"[Ll]ist\[(.+)\]", kind):
        expect(isinstance(value, list), place, kind, value)
        for index, item in enumerate(value):
            check(item, inner[1], f"{place}[{index}]")
    elif inner := re.fullmatch(r"[Dd]ict[\[(]str, (.+)[\])]", kind):
        expect(isinstance(value, dict), place, kind, value)
        for key, item in value.items():
            check(item, inner[1], f"{place}.{key}")
    elif kind in PLAIN:
        fits = isinstance(value, PLAIN[kind]) and (kind in ("bool", "object") or not isinstance(value, bool))
        expect(fits, place, kind, value)
    elif kind == "ResourceQuantity":
        expect(isinstance(value, str | int), place, kind, value)
    else:
        check_fields(value, find(kind), place)


def find(kind: str) -> type:
    """Return the type of a name: one of KServe's, where its client is loaded, else one of Kubernetes'."""
    return getattr(sys.modules.get("kserve.models"), kind, None) or getattr(kubernetes.client.models, kind)  # type: ignore[no-any-return]


def expect(holds: bool, place: str, kind: str, value: Any) -> None:
    """Refuse a value that is not of the kind."""
    if not holds:
        raise ValueError(f"{place}: expected {kind}, got {value!r}")


def check_fields(value: Any, model: type, place: str) -> None:
    """Check an object field by field, then let the client's own type check what is required."""
    expect(isinstance(value, dict), place, model.__name__, value)
    python_names = {json_name: name for name, json_name in model.attribute_map.items()}  # type: ignore[attr-defined]
    for key, item in value.items():
        if key not in python_names:
            raise ValueError(f"{place}.{key}: {model.__name__} has no such field")
        check(item, model.openapi_types[python_names[key]], f"{place}.{key}")  # type: ignore[attr-defined]
    try:
        model(**{python_names[key]: item for key, item in value.items()})
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from error
