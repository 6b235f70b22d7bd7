"""What TensorFlow and Keras need in Python. Everything else is in libwaldo_tensorflow.so."""
