"""The parameters of an inference request.

Must not know: how they travel.
Source: Triton's parameters and schedule policy extensions.
"""

from collections.abc import Mapping
from typing import Any

from serving.errors import LONGEST_SHOWN, InvalidInput, Unsupported, shown


def check_values(parameters: Any, where: str) -> Mapping[str, Any]:
    """Return the parameters; refuse what is no object of strings, numbers and booleans; nothing stands for none.

    Args:
        parameters: what the caller sent.
        where: the field, for the message.

    Raises:
        InvalidInput: says which parameter is of which kind.
    """
    if parameters is None:
        return {}
    if not isinstance(parameters, dict):
        raise InvalidInput(f"{where}: expected an object, got {kind(parameters)}")
    for name, value in parameters.items():
        if not isinstance(value, (bool, int, float, str)):
            raise InvalidInput(
                f"{where}.{name[:LONGEST_SHOWN]}: expected a string, a number or a boolean, got {kind(value)}"
            )
    return parameters


def kind(value: Any) -> str:
    """Return what a value is, in JSON's words."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    names = {int: "a number", float: "a number", str: "a string", list: "a list", dict: "an object"}
    return names.get(type(value), type(value).__name__)


def read_flag(parameters: Mapping[str, Any], name: str) -> bool:
    """Return a boolean parameter, false where it is missing."""
    value = parameters.get(name, False)
    if not isinstance(value, bool):
        raise InvalidInput(f"parameters.{name}: expected true or false, got {kind(value)}")
    return value


def read_timeout(parameters: Mapping[str, Any]) -> float | None:
    """Return the seconds that `timeout`, in microseconds, grants; None where it is missing or 0.

    `priority` has to be a whole number, but there is one queue: first come, first served. Names that mean nothing here
    are the caller's own and change nothing.

    Raises:
        InvalidInput: a value of the wrong kind.
        Unsupported: the request belongs to a sequence; the model keeps no state.
    """
    if not parameters:
        return None
    if parameters.get("sequence_id") not in (None, 0, ""):
        raise Unsupported("sequences are not offered: the model keeps no state from one request to the next")
    _read_count(parameters, "priority")
    return _read_count(parameters, "timeout") / 1e6 or None


def _read_count(parameters: Mapping[str, Any], name: str) -> int:
    value = parameters.get(name, 0)
    if type(value) is not int or value < 0:
        raise InvalidInput(f"parameters.{name}: expected a whole number >= 0, got {shown(value)}")
    return value
