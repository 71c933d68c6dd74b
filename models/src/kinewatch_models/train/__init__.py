"""The part that needs PyTorch: nets, augmentation, the training loop and the ONNX export."""
