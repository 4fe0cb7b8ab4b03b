"""Requests that offer another protocol, which is not taken up. Source: RFC 9110, 7.8.

Must not know: connections. Java's client offers HTTP/2 with every first request. The parser takes an offer as accepted,
and what follows the head, such as a body, as that protocol; so the head is taken apart again without the offer.
"""

from collections.abc import Iterable

import httptools

from serving.http.raw import Header, header_lines


def offers_upgrade(parser: httptools.HttpRequestParser) -> bool:
    """Return whether the head that a parser has read offers another protocol; CONNECT asks for one, and is refused."""
    return bool(parser.should_upgrade()) and parser.get_method() != b"CONNECT"


def head_without_offer(parser: httptools.HttpRequestParser, url: bytes, headers: Iterable[Header]) -> bytes:
    """Return the head that a parser has read, without the offer.

    Args:
        parser: knows the method and the version.
        url: as it was sent.
        headers: names in small letters.
    """
    kept = header_lines(header for header in headers if header[0] != b"upgrade")
    return b"%b %b HTTP/%b\r\n%b\r\n" % (parser.get_method(), url, parser.get_http_version().encode(), kept)


def make_parser(protocol: object) -> httptools.HttpRequestParser:
    """Return a parser such as uvicorn's, which tells a connection what it finds."""
    parser = httptools.HttpRequestParser(protocol)
    parser.set_dangerous_leniencies(lenient_data_after_close=True)
    return parser
