"""What schemathesis cannot know: what an image is, and how long a test may take."""

from typing import Any

import schemathesis
from hypothesis import strategies

from gateway.openapi_parts import IMAGE_TYPES
from gateway.parameters import seconds_of
from tests.stack import image_of
from tests.worker_process import MODEL

images = strategies.tuples(*[strategies.integers(0, 249)] * 3).map(image_of)

for kind in (*IMAGE_TYPES, "application/octet-stream"):
    schemathesis.openapi.media_type(kind, images)
schemathesis.openapi.format("binary", images)


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: Any) -> None:
    """Ask for the model that is there, mostly, and take a time that says something."""
    del context, kwargs
    if len(str(case.path_parameters.get("model", "."))) % 4:
        case.path_parameters["model"] = MODEL
    # That an answer was late on this machine says nothing.
    if seconds_of(str(case.headers.get("X-Request-Timeout", ""))):
        case.headers["X-Request-Timeout"] = "30"
    # Nobody waits here for minutes.
    if seconds_of(str(case.query.get("wait", ""))):
        case.query["wait"] = min(0.5, float(case.query["wait"]))
