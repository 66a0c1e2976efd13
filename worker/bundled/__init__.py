"""The model that comes with the worker: EfficientNet-Lite0, trained on ImageNet.

`prepare.py` turns the published weights into a model directory, once.
"""
