"""Runs a frozen graph in TensorFlow's C library, without the Python around it.

Importing TensorFlow in Python takes 190 MiB and 2.5 s, most of it for what builds and trains
models, and Python keeps copies of a graph beside the one that runs. The library in the same
package has a stable interface in C (`tensorflow/c/c_api.h`), which is all that is needed to run a
graph. It does the same with it, so the scores are the same to the last bit.
"""

import ctypes
from ctypes import POINTER, byref, c_char_p, c_int, c_int64, c_size_t, c_void_p
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import numpy as np

from worker.engine import Float32Array, UInt8Array
from worker.engines.quiet_import import quiet_tensorflow

IMAGES: Final = "images"
"""Name of the graph's one input: bytes, whatever the size of the batch."""

SCORES: Final = "despacho/scores"
"""Name of its one output: floats."""

_OK: Final = 0
_UINT8: Final = 4
"""`TF_OK` and `TF_UINT8` of the interface."""

_MOST_THREADS: Final = 127
"""What the settings of a session say in one byte."""


class _Output(ctypes.Structure):
    """`TF_Output`: one of what an operation returns."""

    _fields_ = (("operation", c_void_p), ("index", c_int))


_FUNCTIONS: Final[dict[str, tuple[Any, ...]]] = {
    "TF_NewStatus": (c_void_p,),
    "TF_GetCode": (c_int, c_void_p),
    "TF_Message": (c_char_p, c_void_p),
    "TF_DeleteStatus": (None, c_void_p),
    "TF_NewBufferFromString": (c_void_p, c_char_p, c_size_t),
    "TF_DeleteBuffer": (None, c_void_p),
    "TF_NewGraph": (c_void_p,),
    "TF_NewImportGraphDefOptions": (c_void_p,),
    "TF_GraphImportGraphDef": (None, c_void_p, c_void_p, c_void_p, c_void_p),
    "TF_GraphOperationByName": (c_void_p, c_void_p, c_char_p),
    "TF_NewSessionOptions": (c_void_p,),
    "TF_SetConfig": (None, c_void_p, c_char_p, c_size_t, c_void_p),
    "TF_NewSession": (c_void_p, c_void_p, c_void_p, c_void_p),
    "TF_SessionRun": (
        None,
        *(c_void_p, c_void_p),
        *(POINTER(_Output), POINTER(c_void_p), c_int),
        *(POINTER(_Output), POINTER(c_void_p), c_int),
        *(c_void_p, c_int),
        *(c_void_p, c_void_p),
    ),
    "TF_AllocateTensor": (c_void_p, c_int, POINTER(c_int64), c_int, c_size_t),
    "TF_TensorData": (c_void_p, c_void_p),
    "TF_NumDims": (c_int, c_void_p),
    "TF_Dim": (c_int64, c_void_p, c_int),
    "TF_DeleteTensor": (None, c_void_p),
}
"""What each returns, and what it takes. Without that, pointers would be cut to integers."""


class GraphSession:
    """A graph that was frozen, ready to run; it lives as long as the process.

    Args:
        graph: a serialised `GraphDef`, with `IMAGES` and `SCORES`.
        threads: of one operation; 0: one for each core. The first session decides for all.

    Raises:
        RuntimeError: TensorFlow refuses the graph.
        OSError, AttributeError: the library of the package is not as it was in other versions.
    """

    def __init__(self, graph: bytes, *, threads: int) -> None:
        self._library = library = _load()
        own = library.TF_NewGraph()
        buffer = library.TF_NewBufferFromString(graph, len(graph))
        options = library.TF_NewImportGraphDefOptions()
        _checked(library.TF_GraphImportGraphDef, own, buffer, options)
        library.TF_DeleteBuffer(buffer)
        self._images = _output(own, IMAGES)
        self._scores = _output(own, SCORES)
        settings = _settings(threads)
        options = library.TF_NewSessionOptions()
        _checked(library.TF_SetConfig, options, settings, len(settings))
        self._session = _checked(library.TF_NewSession, own, options)

    def run(self, images: UInt8Array) -> Float32Array:
        """Return the scores of a batch.

        Raises:
            RuntimeError: TensorFlow cannot compute them.
        """
        library = self._library
        images = np.ascontiguousarray(images)
        shape = (c_int64 * images.ndim)(*images.shape)
        given = c_void_p(library.TF_AllocateTensor(_UINT8, shape, images.ndim, images.nbytes))
        returned = c_void_p()
        try:
            ctypes.memmove(library.TF_TensorData(given), images.ctypes.data, images.nbytes)
            _checked(
                library.TF_SessionRun,
                *(self._session, None),
                *(byref(self._images), byref(given), 1),
                *(byref(self._scores), byref(returned), 1),
                *(None, 0),
                None,
            )
        finally:
            library.TF_DeleteTensor(given)
        try:
            dimensions = range(library.TF_NumDims(returned))
            scores = np.empty([library.TF_Dim(returned, axis) for axis in dimensions], np.float32)
            ctypes.memmove(scores.ctypes.data, library.TF_TensorData(returned), scores.nbytes)
        finally:
            library.TF_DeleteTensor(returned)
        return scores


@cache
def _load() -> ctypes.CDLL:
    package = find_spec("tensorflow")  # which does not import it
    if package is None or package.origin is None:
        raise OSError("TensorFlow is not installed")
    folder = Path(package.origin).parent
    if (folder.parent / "tensorflow-plugins").is_dir():
        raise OSError("plug-ins for devices are only loaded in Python")
    path = next(folder.glob("libtensorflow_cc.*"), None)
    if path is None:
        raise OSError("the package has no C library")
    with quiet_tensorflow():
        library = ctypes.CDLL(str(path))
    for name, (returns, *takes) in _FUNCTIONS.items():
        function = getattr(library, name)
        function.restype, function.argtypes = returns, takes
    return library


def _checked(function: Any, *arguments: Any) -> Any:
    """Call a function whose last argument is a status; return what it does.

    Raises:
        RuntimeError: it failed.
    """
    library = _load()
    status = library.TF_NewStatus()
    try:
        returned = function(*arguments, status)
        if library.TF_GetCode(status) != _OK:
            raise RuntimeError(library.TF_Message(status).decode(errors="replace"))
        return returned
    finally:
        library.TF_DeleteStatus(status)


def _output(graph: int, name: str) -> _Output:
    operation = _load().TF_GraphOperationByName(graph, name.encode())
    if not operation:
        raise RuntimeError(f"the graph has no {name!r}")
    return _Output(operation, 0)


def _settings(threads: int) -> bytes:
    """Return a serialised `ConfigProto`, whose class in Python would import all of TensorFlow.

    Each field is its number and its value; `tests/model/test_frozen_engine.py` reads them back.
    """
    return bytes([
        *(0x10, min(threads, _MOST_THREADS)),  # intra_op_parallelism_threads
        *(0x28, min(threads, 1)),  # inter_op_parallelism_threads, as in `runtime.set_threads`
        *(0x38, True),  # allow_soft_placement: a graph may name devices that are not here
        # experimental, of 4 bytes: optimize_for_static_graph, disable_output_partition_graphs;
        # each keeps one copy less of the graph beside the one that runs.
        *(0x82, 0x01, 4, *(0x60, True), *(0x70, True)),
    ])  # fmt: skip
