"""Remaking the checkpoint ``second-reader``: the recogniser of rapidocr-onnxruntime 1.4.4 with weights in float16.

The package itself is no dependency, because it brings a build of OpenCV that a machine without a screen cannot import
and that overwrites the one which can. Needs the extra ``rewards`` (onnx) and a network that reaches PyPI.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np

from pixelpolicy.errors import CheckpointError
from pixelpolicy.verified import finish_replacing, write_manifest, write_text, written_whole

WHEEL = "rapidocr-onnxruntime==1.4.4"
SHA256 = "971d7d5f223a7a808662229df1ef69893809d8457d834e6373d3854bc1782cbf"
MEMBER = "rapidocr_onnxruntime/models/ch_PP-OCRv4_rec_infer.onnx"
LEAST = 64  # numbers in a tensor that is worth halving

CARD = """# second-reader: the second opinion on text in pictures

A recogniser of printed text, by which the course checks what the reward `text_rendering` is told by the first.

## What it is

PP-OCRv4's mobile recogniser (PaddleOCR, copyright Baidu and the PaddleOCR authors), as the package
rapidocr-onnxruntime 1.4.4 carries it in ONNX. **Changed here:** constants of {least} numbers or more are stored as
float16 and cast to float32 when loaded; nothing else. That makes {size:.1f} MB of {before:.1f} MB. It knows 6,623
letters, most of them Chinese.

## How it was made

`pixelpolicy pretrain second-reader` fetches that one wheel from PyPI, holds it against its SHA-256 ({sha256:.12}...),
and remakes this folder from it.

## Licence

Apache-2.0, as the original: the text is in the course's LICENSE. Source: https://pypi.org/project/rapidocr-onnxruntime/
and https://github.com/PaddlePaddle/PaddleOCR.
"""


def publish(folder: Path) -> None:
    """Write the checkpoint to ``folder``. Raises `CheckpointError` where the wheel cannot be had or is another."""
    try:
        import onnx
    except ImportError as error:
        raise CheckpointError(f'onnx is needed to remake this ({error}); pip install ".[rewards]"') from error
    original = _original()
    model = onnx.load_from_string(original)
    halved = _with_half_constants(model).SerializeToString()
    finish_replacing(folder := Path(folder).absolute())
    with written_whole(folder, needed=len(halved)) as (part,):
        part.mkdir(parents=True)
        (part / "model.onnx").write_bytes(halved)
        sizes = {"size": len(halved) / 1e6, "before": len(original) / 1e6}
        write_text(part / "README.md", CARD.format(least=LEAST, sha256=SHA256, **sizes))
        write_manifest(part)


def _original() -> bytes:
    """The recogniser in the wheel, fetched by pip for no particular Python and not installed."""
    with tempfile.TemporaryDirectory(prefix="second-reader-") as scratch:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        command += ["--only-binary=:all:", "--python-version=3.11", "--dest", scratch, WHEEL]
        done = subprocess.run(command, capture_output=True, text=True)
        wheels = list(Path(scratch).glob("*.whl"))
        if done.returncode or len(wheels) != 1:
            said = (done.stderr.strip().splitlines() or ["it does not say why"])[-1]
            raise CheckpointError(f"pip could not fetch {WHEEL}: {said}. This needs a network that reaches PyPI")
        found = hashlib.sha256(wheels[0].read_bytes()).hexdigest()
        if found != SHA256:
            raise CheckpointError(f"{wheels[0].name} is not the file expected: SHA-256 {found[:12]}, not {SHA256[:12]}")
        with zipfile.ZipFile(wheels[0]) as wheel:
            return wheel.read(MEMBER)


def _with_half_constants(model):
    """The same ONNX model with its larger constants in float16, each followed by a cast to float32."""
    from onnx import TensorProto, helper, numpy_helper

    nodes = []
    for node in model.graph.node:
        value = numpy_helper.to_array(node.attribute[0].t) if node.op_type == "Constant" else None
        if value is None or value.dtype != np.float32 or value.size < LEAST:
            nodes.append(node)
            continue
        half, name = f"{node.output[0]}.half", node.output[0]
        tensor = numpy_helper.from_array(value.astype(np.float16))
        nodes.append(helper.make_node("Constant", [], [half], value=tensor))
        nodes.append(helper.make_node("Cast", [half], [name], to=TensorProto.FLOAT))
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model
