"""Import OpenVINO, the engine that serves, without its chatter and without telemetry."""

from __future__ import annotations

import os
import sys

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


def import_openvino():
    """OpenVINO with its usage statistics off."""
    prepare_environment()
    import openvino

    return openvino
