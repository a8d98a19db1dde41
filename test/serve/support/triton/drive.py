# Loads a repository as Triton does and sends requests through its models: the arguments are the repository and the text that the served model says. Configurations are read with
# Triton's own schema.
import importlib.util
import json
import pathlib
import sys
import threading

import numpy as np
from google.protobuf import json_format, text_format
from tritonclient.grpc import model_config_pb2

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import triton_python_backend_utils as pb_utils

repository, expected = pathlib.Path(sys.argv[1]), sys.argv[2]


class Sender:
    def __init__(self):
        self.responses, self.done, self.cancelled = [], threading.Event(), False

    def send(self, response=None, flags=0):
        if response is not None:
            self.responses.append(response)
        if flags == pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL:
            self.done.set()

    def is_cancelled(self):
        return self.cancelled and len(self.responses) > 2


class Request:
    def __init__(self, tensors, identifier="", outputs=()):
        self._tensors, self._id, self._outputs, self.sender = tensors, identifier, list(outputs), Sender()

    def inputs(self):
        return [pb_utils.Tensor(name, np.array(value)) for name, value in self._tensors.items()]

    def request_id(self):
        return self._id

    def requested_output_names(self):
        return self._outputs

    def get_response_sender(self):
        return self.sender


def load(name):
    config = text_format.Parse((repository / name / "config.pbtxt").read_text(), model_config_pb2.ModelConfig())
    assert config.name == name and config.backend == "python" and config.max_batch_size == 64, config
    spec = importlib.util.spec_from_file_location(f"{name}_model", repository / name / "1" / "model.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    model = module.TritonPythonModel()
    model.initialize({"model_config": json.dumps(json_format.MessageToDict(config, preserving_proto_field_name=True))})
    return model


def texts(request):
    assert request.sender.done.wait(60)
    tensors = [tensor for response in request.sender.responses for tensor in response.output_tensors()]
    return [tensor.as_numpy()[0].decode() for tensor in tensors if tensor.name() == "text_output"]


def text_request(tokens, stream=False, prompt=b"Once upon a time", **more):
    inputs = {"text_input": [[prompt]], "max_tokens": np.array([[tokens]], np.int32), "stream": [[stream]]}
    return Request({**inputs, "exclude_input_in_output": [[True]], **more})


text = load("ensemble")
if not text.decoupled:
    (response,) = text.execute([text_request(12)])
    assert response.output_tensors()[0].as_numpy()[0].decode() == expected
    (refused,) = text.execute([text_request(12, top_p=np.array([[7]], np.float32))])
    assert "top_p" in refused.error().message().lower().replace("topp", "top_p"), refused.error().message()
else:
    # Side by side: whole, streamed, refused.
    whole, streamed, refused = text_request(12), text_request(12, True), text_request(-1)
    assert text.execute([whole, streamed, refused]) is None
    assert texts(whole) == [expected]
    pieces = texts(streamed)
    assert len(pieces) > 3 and "".join(pieces) == expected, pieces
    assert texts(refused) == [] and "typert: " in refused.sender.responses[0].error().message()
    left = text_request(200, True)
    left.sender.cancelled = True
    text.execute([left])
    assert 2 < len(texts(left)) < 200

    tokens = load("tensorrt_llm")
    ids = {"input_ids": np.array([[5, 6, 7]], np.int32), "input_lengths": np.array([[3]], np.int32)}
    asked = Request({**ids, "request_output_len": np.array([[4]], np.int32)}, "a", ["output_ids", "sequence_length"])
    tokens.execute([asked])
    assert asked.sender.done.wait(60)
    by_name = {tensor.name(): tensor.as_numpy() for tensor in asked.sender.responses[0].output_tensors()}
    assert by_name["output_ids"].shape == (1, 1, 7) and by_name["output_ids"].dtype == np.int32, by_name
    assert by_name["sequence_length"].tolist() == [[7]], by_name
    tokens.finalize()
text.finalize()
print("ok")
