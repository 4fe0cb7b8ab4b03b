import argparse

import pytest

from serving.commands import settings as command
from serving.errors import ConfigurationError
from serving.settings import VARIABLES, Settings, read_settings, rows


def refusal(**environ: str) -> str:
    with pytest.raises(ConfigurationError) as caught:
        read_settings(environ)
    return str(caught.value)


def test_an_empty_environment_gives_the_defaults():
    assert read_settings({"PATH": "/bin", "MNIST_WORKERS": " "}) == Settings()


def test_values_come_from_the_environment():
    given = {"PORT": "4000", "MNIST_WORKERS": "3", "MNIST_ACCESS_LOG": "true", "MNIST_MAX_DELAY_MS": "2.5"}
    settings = read_settings(given)
    assert (settings.port, settings.workers, settings.access_log, settings.max_delay_s) == (4000, 3, True, 0.0025)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MNIST_WORKERS", "0"),
        ("MNIST_WORKERS", "two"),
        ("MNIST_DEVICE", "tpu"),
        ("PORT", "70000"),
        ("MNIST_HOST", "localhost"),
        ("MNIST_DRAIN_S", "-1"),
        ("MNIST_REQUEST_TIMEOUT_S", "0"),
        ("MNIST_LOG_FORMAT", "xml"),
        ("PORT", "0"),
        ("MNIST_STOP_S", "inf"),
        ("MNIST_BODY_TIMEOUT_S", "nan"),
        ("MNIST_HEAD_TIMEOUT_S", "3e6"),
        ("MNIST_CORS_ORIGINS", "https://a.example/page"),
        ("MNIST_CORS_ORIGINS", "https://bücher.example"),
    ],
)
def test_a_wrong_value_is_refused_by_name_value_and_meaning(name: str, value: str):
    text = refusal(**{name: value})
    assert text.startswith(f"{name}={value!r}: ")
    assert Settings.model_fields[VARIABLES[name]].description in text


def numbers() -> list[str]:
    return [name for name, field in VARIABLES.items() if type(getattr(Settings(), field)) in (int, float)]


@pytest.mark.parametrize("value", ["1e30", "-1"])
@pytest.mark.parametrize("name", numbers())
def test_every_number_has_its_bounds(name: str, value: str):
    if type(getattr(Settings(), VARIABLES[name])) is int:
        value = str(int(float(value)))
    assert refusal(**{name: value}).startswith(f"{name}={value!r}: input should be ")


def test_a_rate_is_none_or_at_least_one_a_day():
    for rate in ("1e-310", "1.157e-5"):
        text = refusal(MNIST_RATE_LIMIT=rate)
        assert text == f"MNIST_RATE_LIMIT={float(rate):g}: expected 0, or 1.16e-05 (one a day) and more"
    assert read_settings({"MNIST_RATE_LIMIT": "1.16e-05"}).rate_limit == 1.16e-05
    assert read_settings({"MNIST_RATE_LIMIT": "0"}).rate_limit == 0


def test_origins_are_compared_as_browsers_send_them():
    given = "https://A.Example:443, http://b.example:80,http://b.example:443 , app://Own"
    assert read_settings({"MNIST_CORS_ORIGINS": given}).allowed_origins == [
        "https://a.example",
        "http://b.example",
        "http://b.example:443",
        "app://Own",
    ]


def test_an_unknown_variable_is_refused_with_the_nearest_name():
    assert refusal(MNIST_WORKER="2") == "MNIST_WORKER: there is no such setting; the nearest is MNIST_WORKERS"


def test_the_value_of_an_unknown_variable_may_be_a_secret_and_is_not_shown():
    assert "hush" not in refusal(MNIST_ADMIN_TOKN="hush")


def test_the_port_has_no_prefix():
    assert refusal(MNIST_PORT="4000") == "MNIST_PORT: there is no such setting; PORT is"


@pytest.mark.parametrize("name", ["MNIST_ADMN_PORT", "MNIST_V2_PORT", "MNIST_GRPC_PORT"])
def test_a_misspelt_port_is_no_link_of_kubernetes(name: str):
    assert refusal(**{name: "9000"}).startswith(f"{name}: there is no such setting; ")


def test_what_kubernetes_sets_for_a_service_named_mnist_is_not_ours():
    links = {
        "MNIST_SERVICE_HOST": "10.0.0.1",
        "MNIST_SERVICE_PORT": "3000",
        "MNIST_PORT": "tcp://10.0.0.1:3000",
        "MNIST_PORT_3000_TCP_ADDR": "10.0.0.1",
        "MNIST_PORT_3000_TCP_PORT": "3000",
        "MNIST_READER_PORT": "udp://10.0.0.1:3000",
        "MNIST_READER_SERVICE_HOST": "10.0.0.1",
        "MNIST_READER_SERVICE_PORT_HTTP": "3000",
        "MNIST_READER_PORT_3000_TCP": "tcp://10.0.0.1:3000",
    }
    assert read_settings(links) == Settings()


def test_more_images_than_the_queue_holds_are_refused():
    text = refusal(MNIST_MAX_IMAGES="10", MNIST_QUEUE_SIZE="5")
    assert text == "MNIST_MAX_IMAGES=10: expected at most MNIST_QUEUE_SIZE=5"


def test_as_many_images_as_the_queue_holds_are_allowed():
    assert read_settings({"MNIST_MAX_IMAGES": "10", "MNIST_QUEUE_SIZE": "10"}).max_images == 10


def test_a_body_larger_than_all_that_may_wait_is_refused():
    text = refusal(MNIST_MAX_BODY_BYTES="4097", MNIST_MAX_PENDING_BYTES="4096")
    assert text == "MNIST_MAX_BODY_BYTES=4097: expected at most MNIST_MAX_PENDING_BYTES=4096"
    assert read_settings({"MNIST_MAX_BODY_BYTES": "4096", "MNIST_MAX_PENDING_BYTES": "4096"}).max_body_bytes == 4096


@pytest.mark.parametrize("name", ["MNIST_TLS_CERT", "MNIST_TLS_KEY"])
def test_half_of_what_tls_needs_is_refused(name: str):
    assert refusal(**{name: "a.pem"}) == "MNIST_TLS_CERT, MNIST_TLS_KEY: expected both or none"


@pytest.mark.parametrize("name", ["MNIST_TOKEN", "MNIST_ADMIN_TOKEN"])
def test_a_token_is_given_or_in_a_file_and_the_refusal_does_not_show_it(name: str):
    assert refusal(**{name: "hush", f"{name}_FILE": "tokens"}) == f"{name}, {name}_FILE: expected one of them"


def test_two_listeners_on_one_port_are_refused():
    assert "expected different ports" in refusal(PORT="8000")
    assert "expected different ports" in refusal(MNIST_ADMIN_PORT="8001")


def test_a_watchdog_gives_a_worker_time_for_a_few_heartbeats():
    assert refusal(MNIST_WATCHDOG_S="0.5") == "MNIST_WATCHDOG_S=0.5: expected 0, or 2 and more"
    for value in ("0", "2"):
        assert read_settings({"MNIST_WATCHDOG_S": value}).watchdog_s == float(value)


def test_two_listeners_that_are_off_are_not_on_one_port():
    assert read_settings({"V2_PORT": "0", "GRPC_PORT": "0"}).v2_port == 0


def test_the_token_is_never_shown():
    settings = read_settings({"MNIST_ADMIN_TOKEN": "hush"})
    assert settings.admin_token.get_secret_value() == "hush"
    assert "hush" not in repr(settings) + str(list(rows(settings)))
    shown = [row[:2] for row in rows(settings)]
    assert ("MNIST_ADMIN_TOKEN", "(set)") in shown
    assert ("MNIST_TOKEN", "(empty)") in shown


def test_every_setting_has_a_unit_and_a_meaning():
    table = list(rows(Settings()))
    assert len(table) == len(Settings.model_fields)
    assert all(all(row) for row in table)


@pytest.mark.parametrize("form", ["text", "markdown"])
def test_the_command_prints_every_setting(form: str, capsys: pytest.CaptureFixture[str], monkeypatch):
    monkeypatch.setattr("os.environ", {"MNIST_WORKERS": "7"})
    assert command.run(argparse.Namespace(format=form)) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in VARIABLES)
    lines = [line for line in printed.splitlines() if "MNIST_WORKERS" in line]
    assert len(lines) == 1
    assert ("7" in lines[0]) == (form == "text")
