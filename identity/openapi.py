from typing import Any

from fastapi import FastAPI


def name_login(app: FastAPI, url: str) -> None:
    """Let the Authorize button of /docs log in at `url`, which may be another API's."""
    describe = app.openapi

    def openapi() -> dict[str, Any]:
        document = describe()
        for flow in document["components"]["securitySchemes"]["muster"]["flows"].values():
            flow["tokenUrl"] = url
        return document

    app.openapi = openapi
