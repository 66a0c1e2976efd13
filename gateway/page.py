"""The page at `/`: plain files, and headers that let it do no more than it needs."""

from importlib.resources import files
from typing import Final

from flask import Blueprint, Response
from werkzeug.exceptions import NotFound

FILES: Final = {
    "index.html": "text/html; charset=utf-8",
    "style.css": "text/css; charset=utf-8",
    "icon.svg": "image/svg+xml",
    "photos.js": "text/javascript; charset=utf-8",
    "result.js": "text/javascript; charset=utf-8",
    "stats.js": "text/javascript; charset=utf-8",
    "api.js": "text/javascript; charset=utf-8",
    "camera.js": "text/javascript; charset=utf-8",
}
"""What the page is made of, and its types."""

POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self';"
    # Previews of photos are blobs of the page.
    " img-src 'self' blob:;"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def blueprint() -> Blueprint:
    """Return the routes."""
    routes = Blueprint("page", __name__)
    folder = files("gateway") / "static"
    contents = {name: (folder / name).read_bytes() for name in FILES}

    def show(name: str) -> Response:
        response = Response(contents[name], content_type=FILES[name])
        response.headers["Content-Security-Policy"] = POLICY
        response.headers["Referrer-Policy"] = "no-referrer"
        # Small, and an update is seen at once.
        response.headers["Cache-Control"] = "no-cache"
        return response

    @routes.get("/")
    def index() -> Response:
        return show("index.html")

    @routes.get("/static/<name>")
    def file(name: str) -> Response:
        if name not in FILES:
            raise NotFound
        return show(name)

    return routes
