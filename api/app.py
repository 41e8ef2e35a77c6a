"""The HTTP application: the store behind routes, keys in front of them.

It answers from the results store alone, so it goes on answering while Ray and Redis are down. It imports neither.
"""

from __future__ import annotations

from fastapi import FastAPI
from fastapi.responses import HTMLResponse, JSONResponse

from api import openapi
from api.admission import Roots
from api.docs import render_docs
from api.errors import install_handlers
from api.front import FrontDoor
from api.limits import Limits, RateLimiter
from api.routes import health, results, runs
from api.version import version
from cluster.store import Store

DEFAULT_LIMITS = Limits()


def create_app(store: Store, *, roots: Roots, limits: Limits = DEFAULT_LIMITS) -> FastAPI:
    """The application over an opened store, which stays the caller's to close.

    Args:
        store: where everything is read and written.
        roots: what specs of callers that are no admins may name.
        limits: sizes and rates.
    """
    app = FastAPI(
        title="distox",
        version=version(),
        description=openapi.DESCRIPTION,
        openapi_tags=openapi.TAGS,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.store = store
    app.state.roots = roots
    app.state.requests = RateLimiter(limits.requests_per_minute)
    app.state.failures = RateLimiter(limits.failures_per_minute)
    install_handlers(app)
    app.add_middleware(FrontDoor, max_body_bytes=limits.body_bytes)
    for module in (runs, results, health):
        app.include_router(module.router, prefix="/v1")
    _add_descriptions(app)
    return app


def _add_descriptions(app: FastAPI) -> None:
    openapi.install_openapi(app)

    @app.get("/openapi.json", include_in_schema=False)
    def describe() -> JSONResponse:
        return JSONResponse(app.openapi())

    @app.get("/docs", include_in_schema=False)
    def docs() -> HTMLResponse:
        return HTMLResponse(render_docs(app.openapi()))
