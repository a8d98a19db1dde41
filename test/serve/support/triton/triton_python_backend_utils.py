# What Triton gives its Python backends, as far as ours uses it (https://github.com/triton-inference-server/python_backend): for tests without Triton.
import numpy as np

TRITONSERVER_RESPONSE_COMPLETE_FINAL = 1
_types = {"TYPE_BOOL": np.bool_, "TYPE_STRING": np.object_, "TYPE_FP16": np.float16, "TYPE_FP32": np.float32, "TYPE_FP64": np.float64}


def triton_string_to_numpy(name):
    return _types.get(name) or np.dtype(name.removeprefix("TYPE_").lower()).type


class Tensor:
    def __init__(self, name, array):
        self._name, self._array = name, array

    def name(self):
        return self._name

    def as_numpy(self):
        return self._array


class TritonError:
    def __init__(self, message):
        self._message = message

    def message(self):
        return self._message


class InferenceResponse:
    def __init__(self, output_tensors=(), error=None):
        self._tensors, self._error = list(output_tensors), error

    def output_tensors(self):
        return self._tensors

    def error(self):
        return self._error
