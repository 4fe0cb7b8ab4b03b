"""Two changes to circus, which starts and stops the workers for BentoML 1.4.40; made where it is imported first.

Must not know: what a worker does.
"""

from functools import partialmethod

from circus.client import make_json  # type: ignore[import-untyped]
from circus.sighandler import SysHandler  # type: ignore[import-untyped]
from circus.watcher import Watcher  # type: ignore[import-untyped]

# How often a stop is tried again while the supervisor is busy.
RETRY_S = 0.1


def _insist_on_quit(handler: SysHandler) -> None:
    """Stop as soon as the supervisor may.

    Circus refuses a command while another runs, such as the start of the workers, and then has forgotten the signal.
    """
    controller = handler.controller

    def quit_or_retry() -> None:
        running = controller.arbiter._exclusive_running_command
        if running is None:
            controller.dispatch((None, make_json("quit")))
        elif running != "arbiter_stop":
            controller.loop.call_later(RETRY_S, quit_or_retry)

    controller.loop.add_callback_from_signal(quit_or_retry)


def adapt_circus() -> None:
    """Hand SIGHUP to the workers instead of replacing them, and forget no SIGTERM."""
    Watcher.__init__ = partialmethod(Watcher.__init__, send_hup=True)
    SysHandler.quit = _insist_on_quit
