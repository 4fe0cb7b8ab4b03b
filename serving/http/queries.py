"""The query of a request: parameters that are known, and no others.

Must not know: what they mean.
"""

from collections.abc import Collection

from starlette.requests import Request

from serving.errors import InvalidInput

# A model's name, a version and what to include are less. It is parsed on the event loop: 32 KB took 11 ms.
LONGEST_QUERY = 2_048


def read_query(request: Request, known: Collection[str]) -> dict[str, str]:
    """Return the parameters.

    Raises:
        InvalidInput: one is not known; or the query is longer than these can make it.
    """
    if len(request.scope["query_string"]) > LONGEST_QUERY:
        raise InvalidInput(f"the query is longer than {LONGEST_QUERY} characters")
    query = dict(request.query_params)
    if unknown := set(query) - set(known):
        raise InvalidInput(f"unknown parameter {min(unknown)[:40]!r}; there are: {', '.join(sorted(known))}")
    return query
