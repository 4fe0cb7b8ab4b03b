import gzip
import re
from pathlib import Path

import httpx
import pytest

from serving.http.guard import Guard
from serving.http.listener import Listener
from serving.http.page import FOLDER, Site
from tests.serving.http.app import App

FIRST_VIEW_BYTES = 100_000


async def first_view(app: App) -> dict[str, bytes]:
    """Return what a browser fetches before anything is opened, by address."""
    index = (await app.client.get("/")).text
    waiting = re.findall(r'(?:src|href)="(web/[^"]+)"', index)
    fetched: dict[str, bytes] = {"": index.encode()}
    while waiting:
        address = waiting.pop()
        if address in fetched:
            continue
        answer = await app.client.get(f"/{address}")
        assert answer.status_code == 200, address
        fetched[address] = answer.content
        if address.endswith(".js"):
            folder = address.rpartition("/")[0]
            waiting += [f"{folder}/{name}" for name in re.findall(r'^import .* from "\./(.+)";$', answer.text, re.M)]
    return fetched


async def test_the_first_view_is_small_and_whole(app: App):
    fetched = await first_view(app)
    names = {address.rpartition("/")[2] for address in fetched}
    assert {"", "app.js", "style.css", "icon.svg", "pad.js", "api.js"} <= names
    assert not names & {"inside.js", "bench.js", "occlusion.js", "code.js", "docs.js"}
    assert sum(map(len, fetched.values())) < FIRST_VIEW_BYTES


@pytest.mark.parametrize("path", ["/", "/docs"])
async def test_a_page_is_answered_with_a_strict_policy(app: App, path: str):
    answer = await app.client.get(path)
    policy = dict(part.split(" ", 1) for part in answer.headers["content-security-policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert policy["frame-ancestors"] == policy["base-uri"] == "'none'"
    assert answer.headers["cross-origin-opener-policy"] == "same-origin"
    assert "camera=(self)" in answer.headers["permissions-policy"]
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["cache-control"] == "no-cache"


def test_no_file_needs_anything_from_elsewhere_or_inline():
    for path in FOLDER.iterdir():
        text = path.read_text(encoding="utf-8")
        addresses = set(re.findall(r"https?://[^\s\"'`)]+", text)) - {"http://www.w3.org/2000/svg"}
        assert addresses == set(), path.name
        if path.suffix == ".html":
            assert not re.search(r"<style|<script(?![^>]* src=)| style=| on[a-z]+=", text), path.name


def test_no_module_puts_text_in_as_markup():
    guilty = [
        path.name
        for path in FOLDER.glob("*.js")
        if re.search(r"innerHTML|outerHTML|insertAdjacentHTML|eval\(", path.read_text())
    ]
    assert guilty == []


async def test_files_are_kept_for_good_under_their_digest_and_asked_for_under_another(app: App):
    address = re.search(r'src="(web/[^"]+)"', (await app.client.get("/")).text)[1]
    kept = await app.client.get(f"/{address}")
    assert kept.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert kept.headers["content-type"] == "text/javascript; charset=utf-8"
    older = await app.client.get("/web/0123456789abcdef/app.js")
    assert (older.content, older.headers["cache-control"]) == (kept.content, "no-cache")


async def test_a_file_that_the_browser_has_is_not_sent_again(app: App):
    etag = (await app.client.get("/")).headers["etag"]
    again = await app.client.get("/", headers={"if-none-match": etag})
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", etag)
    assert "content-security-policy" in again.headers


async def test_a_file_is_compressed_for_whoever_takes_it(app: App):
    plain = await app.client.get("/", headers={"accept-encoding": "identity"})
    packed = await app.client.get("/", headers={"accept-encoding": "gzip"})
    assert packed.headers["content-encoding"] == "gzip"
    assert int(packed.headers["content-length"]) < int(plain.headers["content-length"])
    assert packed.content == plain.content
    assert packed.headers["vary"] == "accept-encoding"


@pytest.mark.parametrize("accepted", ["identity, gzip;q=0", "gzip; q=0.0", "deflate", "x-not-gzip", ""])
async def test_who_does_not_take_gzip_gets_the_plain_file(app: App, accepted: str):
    answer = await app.client.get("/", headers={"accept-encoding": accepted})
    assert "content-encoding" not in answer.headers
    assert answer.content.startswith(b"<!doctype html>")


async def test_a_listener_sends_each_header_of_the_page_once(app: App, free_port: int):
    listener = Listener(app.asgi, "127.0.0.1", free_port, Guard(app.settings, app.metrics))
    await listener.start()
    async with httpx.AsyncClient(transport=httpx.AsyncHTTPTransport(retries=5)) as client:
        for path in ("/", "/docs", "/web/x/app.js", "/models"):
            answer = await client.get(f"http://127.0.0.1:{free_port}{path}")
            names = [name.lower() for name, _ in answer.headers.raw]
            assert sorted(names) == sorted(set(names)), path
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["referrer-policy"] == "no-referrer"
            assert answer.headers["cross-origin-resource-policy"] == "same-origin"
    await listener.stop()


@pytest.mark.parametrize("path", ["/web/x/nothing.js", "/web/x/..%2Fsettings.py", "/web/app.js", "/web/x/y/app.js"])
async def test_there_is_nothing_beside_the_pages_files(app: App, path: str):
    answer = await app.client.get(path)
    assert answer.status_code == 404
    assert "error" in answer.json()


def test_another_content_has_another_address(tmp_path: Path):
    (tmp_path / "a.js").write_text("1")
    before = Site(tmp_path).digest
    (tmp_path / "a.js").write_text("2")
    assert Site(tmp_path).digest != before


async def test_the_models_are_listed_with_what_the_page_offers(app: App):
    content = (await app.client.get("/models")).json()
    assert (content["default_model"], content["explain"], content["grpc_port"]) == ("tiny", True, 8001)
    assert [(model["name"], model["version"]) for model in content["models"]] == [("tiny", "2"), ("other", "1")]
    assert content["models"][0]["test_accuracy"] == 0.1
    assert content["models"][0]["layers"] is False


def test_compression_gives_the_same_bytes_each_time(tmp_path: Path):
    (tmp_path / "a.css").write_text("a { color: red }" * 100)
    one, other = Site(tmp_path)._files["a.css"].compressed, Site(tmp_path)._files["a.css"].compressed
    assert one == other
    assert gzip.decompress(one or b"") == (tmp_path / "a.css").read_bytes()
