import hmac
import logging
from pathlib import Path
from typing import Any

import pytest

from serving import access as module
from serving.access import Access
from serving.errors import ConfigurationError, TooManyRequests, Unauthorized
from serving.settings import Settings


def access(**settings: Any) -> Access:
    return Access(Settings(**settings))


def may_ask(made: Access, authorization: str) -> bool:
    try:
        made.check_caller(authorization, "192.0.2.1")
    except Unauthorized:
        return False
    return True


def may_change(made: Access, authorization: str) -> bool:
    try:
        made.check_administrator(authorization)
    except Unauthorized:
        return False
    return True


def test_without_tokens_everybody_may_ask_and_nobody_may_change():
    made = access()
    assert may_ask(made, "")
    assert not may_change(made, "")
    assert not may_change(made, "Bearer ")
    assert not made.limited


def test_tokens_of_callers_and_administrators_are_apart():
    made = access(token="ask", admin_token="change")
    assert [may_ask(made, f"Bearer {token}") for token in ("ask", "change", "other", "")] == [True, True, False, False]
    assert [may_change(made, f"Bearer {token}") for token in ("ask", "change", "")] == [False, True, False]
    assert made.limited


@pytest.mark.parametrize(
    "given", ["ask", "Basic ask", "Bearer", "Bearer asks", "Bearer as", "Bearer ask ask", "Béarer ask"]
)
def test_anything_but_the_whole_token_is_refused(given: str):
    assert not may_ask(access(token="ask"), given)


@pytest.mark.parametrize("given", ["bearer ask", "BEARER ask", "Bearer  ask "])
def test_the_case_of_the_scheme_and_white_space_do_not_matter(given: str):
    assert may_ask(access(token="ask"), given)


def test_tokens_are_compared_in_constant_time_and_at_equal_length(monkeypatch: pytest.MonkeyPatch):
    compared, constant = [], hmac.compare_digest

    def compare(one: bytes, other: bytes) -> bool:
        compared.append((len(one), len(other)))
        return constant(one, other)

    monkeypatch.setattr(module.hmac, "compare_digest", compare)
    assert not may_ask(access(token="ask", admin_token="a much longer token"), "Bearer x")
    assert compared == [(32, 32), (32, 32)]


def test_a_file_holds_several_tokens_and_is_read_again(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO)
    path = tmp_path / "tokens"
    path.write_text("old\n\n new \n")
    made = access(token_file=str(path))
    assert [may_ask(made, f"Bearer {token}") for token in ("old", "new", "")] == [True, True, False]
    made.refresh()
    path.write_text("newest\n")
    made.refresh()
    assert [may_ask(made, f"Bearer {token}") for token in ("old", "newest")] == [False, True]
    assert "newest" not in caplog.text.replace("tokens are", "")


def test_the_administrators_file_is_read_again_too(tmp_path: Path):
    path = tmp_path / "tokens"
    path.write_text("old\n")
    made = access(admin_token_file=str(path))
    path.write_text("newest\n")
    made.refresh()
    assert [may_change(made, f"Bearer {token}") for token in ("old", "newest")] == [False, True]


@pytest.mark.parametrize(
    "spoil", [lambda path: path.write_text("\n"), Path.unlink, lambda path: path.write_bytes(b"\xff")]
)
def test_a_spoiled_file_opens_no_door(tmp_path: Path, spoil: Any, caplog: pytest.LogCaptureFixture):
    path = tmp_path / "tokens"
    path.write_text("ask\n")
    made = access(token_file=str(path))
    spoil(path)
    made.refresh()
    made.refresh()
    assert [may_ask(made, ""), may_ask(made, "Bearer ask")] == [False, True]
    assert len([record for record in caplog.records if record.levelno == logging.ERROR]) == 1


@pytest.mark.parametrize("content", [None, "", "\n \n", "good\nschl\u00fcssel\n", "a\x00b\n"])
def test_a_file_without_a_token_stops_the_start(tmp_path: Path, content: str | None):
    path = tmp_path / "tokens"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigurationError, match="tokens: "):
        access(admin_token_file=str(path))


def test_a_token_that_cannot_be_sent_stops_the_start_and_is_not_shown():
    with pytest.raises(ConfigurationError, match="cannot be sent") as caught:
        access(token="schl\u00fcssel")
    assert "ssel" not in str(caught.value)


def test_a_byte_order_mark_is_no_part_of_a_token(tmp_path: Path):
    (tmp_path / "tokens").write_bytes(b"\xef\xbb\xbfask\r\n")
    assert may_ask(access(token_file=str(tmp_path / "tokens")), "Bearer ask")


def test_an_address_that_asks_too_often_is_refused_before_its_token_is_looked_at():
    assert access(rate_limit=0.5).limited
    made = access(token="ask", rate_limit=0.5)
    made.check_caller("Bearer ask", "192.0.2.1")
    with pytest.raises(TooManyRequests):
        made.check_caller("Bearer ask", "192.0.2.1")
    made.check_caller("Bearer ask", "192.0.2.2")
    made.check_caller("Bearer ask", "")


def test_a_token_that_cannot_be_sent_is_told_by_its_setting():
    with pytest.raises(ConfigurationError, match=r"^MNIST_ADMIN_TOKEN: this token cannot be sent"):
        access(admin_token="gehéim")


def test_a_comment_is_not_taken_for_a_token(tmp_path: Path):
    path = tmp_path / "tokens"
    path.write_text("ask\n# of last year\n")
    with pytest.raises(ConfigurationError, match="a line begins with #"):
        access(token_file=str(path))
