"""A graph whose matrix products take 8-bit weights and inputs, by ONNX Runtime's own quantiser."""

from __future__ import annotations

import logging
from pathlib import Path


def in_eight_bits(file: Path) -> None:
    """Replace a graph's file. Weights are rounded for each channel, what comes in for each product when it comes.

    Convolutions stay as they are: in 8 bits they are slower on a CPU, and change colours.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    data = file.with_name(f"{file.name}.data")
    made = file.with_name(f"eight-{file.name}")
    level = logging.getLogger().level
    logging.getLogger().setLevel(logging.ERROR)  # it writes advice to the root logger
    try:
        quantize_dynamic(
            file,
            made,
            op_types_to_quantize=["MatMul", "Gemm"],
            per_channel=True,
            weight_type=QuantType.QInt8,
            use_external_data_format=data.is_file(),
        )
    finally:
        logging.getLogger().setLevel(level)
    if data.is_file():  # the new one names its own, so both are read once more to be written under the usual name
        import onnx

        graph = onnx.load(str(made))
        data.unlink()
        onnx.save(graph, str(file), save_as_external_data=True, location=data.name)
        made.unlink()
        made.with_name(f"{made.name}.data").unlink(missing_ok=True)
    else:
        made.replace(file)
