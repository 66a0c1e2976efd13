"""What runs models. Only here is TensorFlow imported, and only when a model is loaded."""
