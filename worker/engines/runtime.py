"""Imports TensorFlow, set up for a service, and sets its threads.

Import this before anything else imports TensorFlow or Keras: both read the
environment once, while they are imported.
"""

import os

import structlog

from worker.engines.quiet_import import quiet_tensorflow

# Another backend may be set in ~/.keras/keras.json, and would not run here.
os.environ["KERAS_BACKEND"] = "tensorflow"

with quiet_tensorflow():
    import keras
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

__all__ = ["convert_variables_to_constants_v2", "keras", "set_threads", "tf"]

log = structlog.get_logger()


def set_threads(threads: int) -> None:
    """Set how many threads TensorFlow may use, unless it has already begun to run.

    Args:
        threads: of one operation; 0: one for each core. Operations that do not depend on each
            other run one after the other unless this is 0, so that the number is a limit.
    """
    try:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(min(threads, 1))
    except RuntimeError:
        # It starts once in a process: the second engine of a test comes too late.
        if tf.config.threading.get_intra_op_parallelism_threads() != threads:
            log.warning("engine threads already set", asked=threads)
