"""What CUDA decomposes in another way than the CPU, written out for the CPU: {name of the variant: function}.

Every entry calls, on CPU tensors, the operators that PyTorch calls on CUDA ones.
"""

REFERENCES = {}


def reference(*names):
    def register(function):
        REFERENCES.update(dict.fromkeys(names, function))
        return function

    return register
