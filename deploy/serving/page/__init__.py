"""The page at ``/``: drop a file, read the answer; and the address that it asks, which programs may ask too."""

from __future__ import annotations

from deploy.serving.page.routes import OPEN, page_routes
from deploy.serving.page.upload import MAX_UPLOAD_BYTES

__all__ = ["MAX_UPLOAD_BYTES", "OPEN", "page_routes"]
