"""The page in the browser: what is served of it, and nothing else is."""

from pathlib import Path

FOLDER = Path(__file__).parent
# Path of the address -> file of this folder, media type.
FILES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/chat.css": ("chat.css", "text/css; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
    **{
        f"/{name}.js": (f"{name}.js", "text/javascript; charset=utf-8")
        for name in ("chat", "api", "talk", "turns", "votes", "differences", "dom")
    },
}
