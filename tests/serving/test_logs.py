import json
import logging
from collections.abc import Iterator

import pytest

from serving import logs
from serving.logs import ConsoleFormatter, JsonFormatter


def record(message: str, **fields: object) -> logging.LogRecord:
    made = logging.makeLogRecord({"name": "serving", "levelno": 20, "levelname": "INFO", "msg": message})
    vars(made).update(fields)
    return made


@pytest.fixture
def restored() -> Iterator[None]:
    """Put the loggers back as they were."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    for name in (*logs.FOREIGN, "python_multipart", "grpc._cython.cygrpc"):
        logging.getLogger(name).setLevel(logging.NOTSET)


@pytest.fixture
def request_id() -> Iterator[str]:
    token = logs.request_id.set("abc")
    yield "abc"
    logs.request_id.reset(token)


def test_json_is_one_object_on_one_line_with_its_fields(request_id: str):
    line = JsonFormatter().format(record("two\nlines", path="/x", status=200))
    event = json.loads(line)
    assert "\n" not in line
    assert (event["message"], event["path"], event["status"], event["request_id"]) == ("two\nlines", "/x", 200, "abc")
    assert event["level"] == "info"
    assert event["time"].endswith("+00:00")


def test_nothing_in_json_ends_its_line_or_is_obeyed_by_a_terminal():
    message = "bad \x9b2J \x7f \u2028 \x85 \\ é done"
    line = JsonFormatter().format(record(message))
    assert line.isprintable()
    assert json.loads(line)["message"] == message


def test_a_traceback_is_a_field_of_json():
    try:
        raise ValueError("why")
    except ValueError as error:
        made = record("failed", exc_info=(ValueError, error, error.__traceback__))
    assert "ValueError: why" in json.loads(JsonFormatter().format(made))["exception"]
    assert ConsoleFormatter().format(made).splitlines()[-1] == "ValueError: why"


def test_the_console_shows_one_line_that_nobody_can_forge(request_id: str):
    line = ConsoleFormatter().format(
        record("bad\r\n12:00:00 ERROR forged \x1b[2J \x9b2J \x7f \u2028 \x85 done", path="/x")
    )
    assert len(line.splitlines()) == 1
    assert line.isprintable()
    assert "bad\\r\\n12:00:00 ERROR forged \\x1b[2J" in line
    assert line.endswith("path=/x request_id=abc")


@pytest.mark.parametrize("form", ["json", "console"])
def test_other_peoples_loggers_write_to_the_same_stream(form: str, restored: None, capsys: pytest.CaptureFixture[str]):
    logging.getLogger("uvicorn.error").addHandler(logging.StreamHandler())
    logs.configure(form, "info")
    logging.getLogger("serving.x").info("ours")
    logging.getLogger("uvicorn.error").info("a step")
    logging.getLogger("circus").warning("theirs")
    lines = capsys.readouterr().err.splitlines()
    assert [text for line in lines for text in ("ours", "a step", "theirs") if text in line] == ["ours", "theirs"]


def test_what_is_told_to_the_sender_of_a_form_does_not_fill_the_log(restored: None, capsys: pytest.CaptureFixture[str]):
    logs.configure("console", "info")
    logging.getLogger("python_multipart.multipart").warning("Expected boundary character 45, got 123 at index 2")
    logging.getLogger("uvicorn.error").warning("Invalid HTTP request received.")
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("level", ["info", "debug"])
def test_metadata_that_are_no_text_do_not_fill_the_log(level: str, restored: None, capsys: pytest.CaptureFixture[str]):
    logs.configure("json", level)
    logging.getLogger("grpc._cython.cygrpc").error("Invalid encoding on %s", b"\xff")
    assert capsys.readouterr().err == ""


def test_debug_shows_their_steps_too(restored: None, capsys: pytest.CaptureFixture[str]):
    logs.configure("json", "debug")
    logging.getLogger("uvicorn.error").info("a step")
    assert "a step" in capsys.readouterr().err


def test_a_request_keeps_its_own_id_or_gets_one_that_no_other_has():
    assert logs.choose_request_id("mine:1") == "mine:1"
    given = [logs.choose_request_id(own) for own in ("", "a b", 'a"b', "x" * 129)]
    assert all(len(each) == 32 and each.isalnum() for each in given)
    assert len(set(given)) == 4
