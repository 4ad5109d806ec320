"""The model as an ONNX graph: six BERT layers, mean over the real tokens, length one.

Built from the weights alone, so that neither PyTorch nor a downloaded graph is needed. A forward pass in plain
numpy in the tests proves it number by number.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from erp.vendor_clients.minilm.weights import Tensors

OPSET: Final = 20
INPUTS: Final = ("input_ids", "attention_mask")
OUTPUT: Final = "embedding"

_IR_VERSION = 10
_HEADS = 12
_LAYERS = 6
_WIDTH = 384
_EPSILON = 1e-12
_MASKED = -1e9


def build_graph(tensors: Tensors) -> Any:
    """Return an ``onnx.ModelProto``: int64 [batch, tokens] twice -> float32 [batch, 384]."""
    from onnx import TensorProto, helper

    drawing = _Drawing(tensors)
    tokens = drawing.embed(INPUTS[0])
    bias = drawing.attention_bias(INPUTS[1])
    for layer in range(_LAYERS):
        tokens = drawing.layer(tokens, bias, f"encoder.layer.{layer}")
    drawing.pool(tokens, INPUTS[1])
    shape = ["batch", "tokens"]
    inputs = [helper.make_tensor_value_info(name, TensorProto.INT64, shape) for name in INPUTS]
    outputs = [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["batch", _WIDTH])]
    graph = helper.make_graph(drawing.nodes, "minilm", inputs, outputs, drawing.constants)
    opset = helper.make_opsetid("", OPSET)
    return helper.make_model(graph, opset_imports=[opset], ir_version=_IR_VERSION, producer_name="erp")


class _Drawing:
    """Collects nodes; each method draws one part and returns the name of its output."""

    def __init__(self, tensors: Tensors) -> None:
        self._tensors = tensors
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def node(self, operator: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        from onnx import helper

        output = output or f"{operator.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [output], **attributes))
        return output

    def constant(self, value: Any, dtype: str = "float32") -> str:
        import numpy as np
        from onnx import numpy_helper

        name = f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(value, dtype=dtype), name))
        return name

    def embed(self, token_ids: str) -> str:
        table = self._tensors["embeddings.word_embeddings.weight"]
        places = self._tensors["embeddings.position_embeddings.weight"]
        kind = self._tensors["embeddings.token_type_embeddings.weight"][0]
        words = self.node("Gather", self.constant(table), token_ids)
        length = self.node("Shape", token_ids, start=1, end=2)
        zero, axis = self.constant([0], "int64"), self.constant([0], "int64")
        positions = self.node("Slice", self.constant(places + kind), zero, length, axis)
        return self.normalize(self.node("Add", words, positions), "embeddings.LayerNorm")

    def attention_bias(self, mask: str) -> str:
        """0 for a real token, hugely negative for padding, shaped to be added to [batch, heads, tokens, tokens]."""
        real = self.node("Cast", mask, to=1)
        absent = self.node("Sub", self.constant(1.0), real)
        scaled = self.node("Mul", absent, self.constant(_MASKED))
        return self.node("Unsqueeze", scaled, self.constant([1, 2], "int64"))

    def layer(self, tokens: str, bias: str, name: str) -> str:
        attended = self.linear(self.attention(tokens, bias, name), f"{name}.attention.output.dense")
        tokens = self.normalize(self.node("Add", tokens, attended), f"{name}.attention.output.LayerNorm")
        widened = self.node("Gelu", self.linear(tokens, f"{name}.intermediate.dense"))
        narrowed = self.linear(widened, f"{name}.output.dense")
        return self.normalize(self.node("Add", tokens, narrowed), f"{name}.output.LayerNorm")

    def attention(self, tokens: str, bias: str, name: str) -> str:
        query = self.heads(tokens, f"{name}.attention.self.query", [0, 2, 1, 3])
        key = self.heads(tokens, f"{name}.attention.self.key", [0, 2, 3, 1])
        value = self.heads(tokens, f"{name}.attention.self.value", [0, 2, 1, 3])
        scale = self.constant(1 / math.sqrt(_WIDTH / _HEADS))
        scores = self.node("Mul", self.node("MatMul", query, key), scale)
        weights = self.node("Softmax", self.node("Add", scores, bias), axis=-1)
        mixed = self.node("Transpose", self.node("MatMul", weights, value), perm=[0, 2, 1, 3])
        return self.node("Reshape", mixed, self.constant([0, 0, _WIDTH], "int64"))

    def heads(self, tokens: str, name: str, order: list[int]) -> str:
        split = self.constant([0, 0, _HEADS, _WIDTH // _HEADS], "int64")
        return self.node("Transpose", self.node("Reshape", self.linear(tokens, name), split), perm=order)

    def linear(self, tokens: str, name: str) -> str:
        weight = self.constant(self._tensors[f"{name}.weight"].T)
        return self.node("Add", self.node("MatMul", tokens, weight), self.constant(self._tensors[f"{name}.bias"]))

    def normalize(self, tokens: str, name: str) -> str:
        scale, shift = (self.constant(self._tensors[f"{name}.{part}"]) for part in ("weight", "bias"))
        return self.node("LayerNormalization", tokens, scale, shift, axis=-1, epsilon=_EPSILON)

    def pool(self, tokens: str, mask: str) -> str:
        """Mean of the real tokens; its direction alone is the result, so that the sum serves as well."""
        real = self.node("Unsqueeze", self.node("Cast", mask, to=1), self.constant([2], "int64"))
        total = self.node("ReduceSum", self.node("Mul", tokens, real), self.constant([1], "int64"), keepdims=0)
        return self.node("LpNormalization", total, output=OUTPUT, axis=-1, p=2)
