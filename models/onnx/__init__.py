"""Networks as ONNX graphs, run by ONNX Runtime in the place of torch's: diffusers' pipelines stay as they are."""
