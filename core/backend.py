"""Import Keras without its chatter: for models, training and bench, never for pages."""

from __future__ import annotations

import logging
import os
import sys
from contextlib import contextmanager, suppress

from core.engine import prepare_environment


@contextmanager
def quiet_stderr():
    """Drop what C++ libraries write to stderr while they load; Python errors still raise."""
    sys.stderr.flush()
    saved, sink = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(sink, 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(sink)


def import_keras():
    """Keras on its configured backend; TensorFlow's start-up messages dropped."""
    prepare_environment()
    with quiet_stderr():
        import keras

        keras.utils.disable_interactive_logging()
        if keras.backend.backend() != "tensorflow":
            _load_tensorflow()
    # One warning a fold: a new model of the same shape is no sign of a mistake.
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    return keras


def _load_tensorflow() -> None:
    """Load TensorFlow now, while its messages are dropped: Keras' image layers ask for it later.

    The GPUs are the backend's, whose memory TensorFlow must not take.
    """
    with suppress(ImportError):
        import tensorflow

        tensorflow.config.set_visible_devices([], "GPU")
