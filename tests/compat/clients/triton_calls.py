"""How `tritonclient.grpc` is called."""

from collections.abc import Callable
from typing import Any

import numpy as np
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from tests.compat.clients.cells import Target

LIMIT_S = 30


def client_of(target: Target) -> Any:
    """Return a client as its documentation makes one."""
    return triton.InferenceServerClient(target.address)


def image_input(*images: bytes) -> Any:
    """Return the input with some images."""
    tensor = triton.InferInput("image", [len(images)], "BYTES")
    tensor.set_data_from_numpy(np.array(images, dtype=np.object_))
    return tensor


def failure_of(call: Callable[[], Any]) -> tuple[str, str]:
    """Return the status and the message of a call that has to fail."""
    try:
        call()
    except InferenceServerException as error:
        return error.status(), error.message()
    raise AssertionError("the call did not fail")
