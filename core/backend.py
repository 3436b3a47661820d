"""Import Keras or OpenVINO without their chatter and without telemetry."""

from __future__ import annotations

import logging
import os
import sys
from contextlib import contextmanager, suppress

# What OpenVINO may compute at on a CPU.
PRECISIONS = ("f32", "bf16", "f16")


def prepare_environment() -> None:
    """Settings that only count before the first import."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    # `import openvino` reports itself to a usage-statistics server; without this package it
    # falls back to a stub that sends nothing.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]


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


def import_openvino():
    """OpenVINO with its usage statistics off."""
    prepare_environment()
    import openvino

    return openvino
