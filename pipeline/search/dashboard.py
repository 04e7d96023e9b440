"""optuna-dashboard on a study, in this process: a page in the browser that follows a search while it runs."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from socketserver import ThreadingMixIn
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from phonefit.pipeline.errors import PhonefitError, RecipeError
from phonefit.pipeline.recipe import Recipe
from phonefit.pipeline.search.records import load_study
from phonefit.pipeline.search.storage import explain_storage_errors, place_of

HOST = "127.0.0.1"  # this machine only: the dashboard can also change a study, and asks for no password


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _SilentHandler(WSGIRequestHandler):
    def log_message(self, format: str, *arguments: object) -> None:
        """Keep each request off the terminal."""


@contextmanager
def dashboard(recipe: Recipe, runs: Path, port: int) -> Iterator[WSGIServer]:
    """A server that is bound and not yet serving; `server.server_port` is its port.

    Args:
        port: 0 takes a free one.

    Raises:
        RecipeError: optuna-dashboard is not installed, there is no such search, or the port is taken.
    """
    try:
        from optuna_dashboard import wsgi
    except ImportError:
        text = "optuna-dashboard is not installed; install it with: pip install 'phonefit[dashboard]'"
        raise RecipeError(text) from None
    place = place_of(recipe, runs / recipe.name)
    with explain_storage_errors(place):
        load_study(recipe, place)
        application = wsgi(place.storage())
    try:
        server = make_server(HOST, port, application, _Server, _SilentHandler)
    except OSError as error:
        raise PhonefitError(f"port {port} cannot be used ({error.strerror}); give another one with --port") from None
    with server:
        yield server
