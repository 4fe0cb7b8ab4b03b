"""How many errors a run may have.

Must not know: what an error is.
"""

from dataclasses import dataclass

from serving.errors import ServingError

# A share says little about a few rows.
SHARE_ROWS = 1000


class TooManyErrors(ServingError):
    """The run was stopped; what it did so far is kept."""


@dataclass(frozen=True)
class ErrorLimit:
    """At most `count` errors, or a `share` (0 to 1) of the rows; None is no limit."""

    count: int | None = None
    share: float | None = None

    @classmethod
    def parse(cls, text: str) -> "ErrorLimit":
        """Return the limit that `N` or `P%` stands for.

        Raises:
            ValueError: anything else.
        """
        if text.endswith("%"):
            share = float(text[:-1]) / 100
            if not 0 <= share <= 1:
                raise ValueError(text)
            return cls(share=share)
        if not text.isdecimal():
            raise ValueError(text)
        return cls(count=int(text))

    def check(self, errors: int, rows: int, *, finished: bool) -> None:
        """Stop the run if there are too many errors.

        Raises:
            TooManyErrors: says how many.
        """
        if self.count is not None and errors > self.count:
            raise TooManyErrors(f"{errors} errors in {rows} rows, at most {self.count} allowed")
        if self.share is not None and (finished or rows >= SHARE_ROWS) and errors > self.share * rows:
            raise TooManyErrors(f"{errors} errors in {rows} rows, at most {self.share:.4g} of them allowed")
