"""Training, export, quantisation, measurement and packaging of kinewatch action models.

Everything under ``kinewatch_models.train`` needs PyTorch (extra ``[train]``); every other module runs on
numpy, onnx and onnxruntime alone, so packages can be inspected, checked and re-calibrated without it.
"""

__version__ = "0.1.0"
