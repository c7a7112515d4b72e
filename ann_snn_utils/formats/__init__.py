"""The formats of the field: ONNX, QONNX, NIR and the harness of NeuroBench, each with a package of its own."""
