"""One TensorFlow graph from bytes to probabilities: what runs, and what is converted."""

import re
from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any, Final

import structlog

from worker.engines.checks import no_scaling, summary, training_mode
from worker.engines.model_file import Network
from worker.engines.runtime import convert_variables_to_constants_v2, tf
from worker.model_spec import ModelError, ModelSpec

log = structlog.get_logger()

ASSIGNMENT: Final = re.compile("Assign[A-Za-z]*VariableOp")


def scoring_graph(spec: ModelSpec, network: Network) -> Any:
    """Return a concrete function from images (bytes) to probabilities.

    Images travel as bytes, a quarter of the size of floats; they are scaled inside the graph. The
    size of the batch stays open, so that no batch is traced again.

    Args:
        spec: what the model should be.
        network: the model.

    Raises:
        ModelError: the network does not take such images, or writes to its variables.
    """
    mean, scale = spec.pixels.mean, spec.pixels.scale
    if spec.pixels.is_scaling and not network.input_dtype.is_floating:
        raise no_scaling(spec.name, network.input_dtype.name)

    @tf.function(  # type: ignore[untyped-decorator]
        # Plain tensor code: nothing to translate, and the translator writes files to /tmp.
        autograph=False,
        input_signature=[tf.TensorSpec((None, spec.input.height, spec.input.width, 3), tf.uint8)],
    )
    def scores(images: Any) -> Any:
        pixels = images
        if spec.pixels.is_scaling:
            pixels = (tf.cast(pixels, tf.float32) - tf.constant(mean)) / tf.constant(scale)
        if spec.pixels.order == "bgr":
            pixels = tf.reverse(pixels, axis=[-1])
        # In a dict or a list one output is no less one.
        returned = tf.nest.flatten(network.call(tf.cast(pixels, network.input_dtype)))
        if len(returned) != 1:
            raise ModelError(f"{spec.name}: returns {len(returned)} outputs; one is needed")
        outputs = tf.cast(returned[0], tf.float32)
        return tf.nn.softmax(outputs) if spec.softmax else outputs

    try:
        graph = scores.get_concrete_function()
    except ModelError:
        raise
    except Exception as error:
        # Tracing runs code of the model: anything can come out of it.
        raise ModelError(f"{spec.name}: does not take images: {summary(error)}") from error
    if _writes(graph):
        # Each answer would change those after it, however little.
        raise ModelError(f"{spec.name}: writes to its variables while it runs{training_mode(spec)}")
    return graph


def _writes(graph: Any) -> bool:
    """Return whether the graph, or a function that it calls, assigns to a variable.

    To count is no change: what training adds to are no whole numbers, and chance is assigned anew.
    """
    return any(ASSIGNMENT.fullmatch(node.op) and not _counts(node) for node in _nodes(graph))


def _counts(node: Any) -> bool:
    is_whole = bool(tf.as_dtype(node.attr["dtype"].type).is_integer)
    return node.op == "AssignAddVariableOp" and is_whole


def has_16_bit_floats(graph: Any) -> bool:
    """Return whether something in the graph is float16 or bfloat16."""
    short = {tf.float16.as_datatype_enum, tf.bfloat16.as_datatype_enum}
    return any(kind.type in short for node in _nodes(graph) for kind in node.attr.values())


def _nodes(graph: Any) -> Iterator[Any]:
    definition = graph.graph.as_graph_def()
    return chain(definition.node, *(function.node_def for function in definition.library.function))


def frozen(graph: Any) -> Any:
    """Return the graph with its variables as constants.

    Raises:
        ValueError: it has state that is not a variable.
        Exception: it has operations that cannot be frozen.
    """
    if not graph.captured_inputs:
        return graph  # it was frozen when it was saved
    result = convert_variables_to_constants_v2(graph)
    if len(result.inputs) != 1:
        # A look-up table, for example, stays outside and would have to be passed in.
        raise ValueError("it has state that is not a variable")
    return result


def runnable(graph: Any) -> Callable[[Any], Any]:
    """Return what runs the graph, frozen if that works: it is then optimised as a whole.

    Measured: up to 1.4 times as many images per second.
    """
    try:
        constant = frozen(graph)
    except Exception as error:  # noqa: BLE001 - any model may have operations that cannot be frozen
        log.warning("model not frozen; it runs slower", reason=summary(error))
        return graph  # type: ignore[no-any-return]
    # A function that was made by freezing returns a list.
    return graph if constant is graph else lambda images: constant(images)[0]
