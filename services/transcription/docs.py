"""The Swagger page at /docs, with its scripts from this machine: it works without a network.

The addresses in it are relative, so it works behind any host, scheme and prefix.
"""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse
from fastapi.staticfiles import StaticFiles

# Swagger UI as its makers release it; only these files of the package are used.
_ASSETS = ("fastapi_swagger", "resources")


def add_docs(app: FastAPI) -> None:
    """Add the page, and what it loads."""
    described = app.openapi

    def describe() -> dict[str, Any]:
        document = described()
        # FastAPI's own answer to a wrong parameter, which nobody gets here: it is a 400.
        for operations in document["paths"].values():
            for operation in operations.values():
                operation["responses"].pop("422", None)
        for name in ("HTTPValidationError", "ValidationError"):
            document.get("components", {}).get("schemas", {}).pop(name, None)
        return document

    app.openapi = describe  # type: ignore[method-assign]  # as FastAPI's manual has it

    @app.get("/docs", include_in_schema=False)
    async def show_docs() -> HTMLResponse:
        return get_swagger_ui_html(
            openapi_url="openapi.json",
            title=app.title,
            swagger_js_url="docs/swagger-ui-bundle.js",
            swagger_css_url="docs/swagger-ui.css",
            swagger_favicon_url="docs/favicon-32x32.png",
            swagger_ui_parameters={"tryItOutEnabled": True, "persistAuthorization": True},
        )

    app.mount("/docs", StaticFiles(packages=[_ASSETS]))
