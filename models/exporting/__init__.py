"""A model to a folder of ONNX graphs, and what such graphs consist of."""
