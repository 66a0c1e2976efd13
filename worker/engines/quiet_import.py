"""Keeps out of the logs what TensorFlow says while it is imported, and LiteRT when it begins.

Some lines come before its log level is read, so no setting stops them. They
are caught and dropped; all other lines are passed on when the import is over.
"""

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Final

STDERR: Final = 2

LOG_LEVEL: Final = "TF_CPP_MIN_LOG_LEVEL"

IS_LOG_LEVEL_SET: Final = LOG_LEVEL in os.environ
"""By whoever started this process, before it is by us."""

NOISE: Final = re.compile(
    rb"WARNING: All log messages before absl::InitializeLog"
    rb"|INFO: Created TensorFlow Lite XNNPACK delegate"
    rb"|[IWE]\d{4} \d\d:\d\d:\d+\.\d+ +\d+ (port|cudart_stub|cuda_platform)\.cc:"
)
"""That rounding may differ between machines, that there is no GPU, which kernels LiteRT has."""


@contextmanager
def quiet_import() -> Iterator[None]:
    """Hold back what this process writes to standard error; afterwards pass on all but noise.

    A fatal error in native code takes what was held back along, so this is not for longer than
    an import.
    """
    with tempfile.TemporaryFile() as held:
        original = os.dup(STDERR)
        os.dup2(held.fileno(), STDERR)
        try:
            yield
        finally:
            os.dup2(original, STDERR)
            os.close(original)
            held.seek(0)
            for line in held:
                if not NOISE.match(line):
                    os.write(STDERR, line)


def quiet_tensorflow() -> AbstractContextManager[None]:
    """Return what to import TensorFlow in, or its library; sets its log level, which is read then.

    Errors reach us as exceptions; what TensorFlow logs beside them is mostly about GPUs that are
    not there. Whoever looks for one sets the level, and sees all.
    """
    if IS_LOG_LEVEL_SET:
        return nullcontext()
    os.environ[LOG_LEVEL] = "3"
    return quiet_import()
