"""Reading a safetensors file: eight bytes length, a JSON header, then raw numbers (huggingface.co/docs/safetensors)."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Tensors = dict[str, NDArray[np.float32]]


def read_tensors(path: Path) -> Tensors:
    """Return the 32-bit floating point tensors by name, as read-only views of the mapped file."""
    import numpy as np

    with path.open("rb") as file:
        (header_bytes,) = struct.unpack("<Q", file.read(8))
        header: dict[str, Any] = json.loads(file.read(header_bytes))
    start = 8 + header_bytes
    mapped = np.memmap(path, dtype=np.uint8, mode="r")
    tensors: Tensors = {}
    for name, facts in header.items():
        if facts.get("dtype") == "F32":
            first, last = (start + offset for offset in facts["data_offsets"])
            tensors[name] = mapped[first:last].view("<f4").reshape(facts["shape"])
    return tensors
