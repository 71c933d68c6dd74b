"""Training, export, quantisation, measurement and packaging of kinewatch action models.

Everything under ``kinewatch_models.train`` needs PyTorch (extra ``[train]``); figures need scikit-learn, pictures
matplotlib (both are imported where they are used), all else numpy, onnx and onnxruntime: packages can be inspected,
checked and calibrated without PyTorch.
"""

__version__ = "0.1.0"
