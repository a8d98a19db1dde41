# Every method and route against the public schema, which tritonclient carries compiled: what comes must be a message of it, with no field that it does not know.
# Arguments: the server's URL and its gRPC port.
import json
import sys
import urllib.error
import urllib.request

import grpc
from google.protobuf import json_format, unknown_fields
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc

url, port = sys.argv[1:3]
stub = service_pb2_grpc.GRPCInferenceServiceStub(grpc.insecure_channel(f"127.0.0.1:{port}"))


def known(message):
    assert len(unknown_fields.UnknownFieldSet(message)) == 0, message
    for field, value in message.ListFields():
        if field.message_type is None or field.message_type.GetOptions().map_entry:
            continue
        for each in [value] if not field.is_repeated else value:
            known(each)
    return message


def infer_request(**more):
    request = pb.ModelInferRequest(model_name="ensemble", id="7", **more)
    text = request.inputs.add(name="text_input", datatype="BYTES", shape=[1, 1])
    text.contents.bytes_contents.append(b"Once")
    count = request.inputs.add(name="max_tokens", datatype="INT32", shape=[1, 1])
    count.contents.int_contents.append(3)
    return request


named = dict(name="ensemble")
requests = {
    "ServerLive": pb.ServerLiveRequest(),
    "ServerReady": pb.ServerReadyRequest(),
    "ModelReady": pb.ModelReadyRequest(**named),
    "ServerMetadata": pb.ServerMetadataRequest(),
    "ModelMetadata": pb.ModelMetadataRequest(**named),
    "ModelConfig": pb.ModelConfigRequest(**named),
    "ModelStatistics": pb.ModelStatisticsRequest(**named),
    "RepositoryIndex": pb.RepositoryIndexRequest(),
    "RepositoryModelUnload": pb.RepositoryModelUnloadRequest(model_name="ensemble"),
    "RepositoryModelLoad": pb.RepositoryModelLoadRequest(model_name="ensemble"),
    "ModelInfer": infer_request(),
}
answers = {name: known(getattr(stub, name)(request)) for name, request in requests.items()}
assert answers["ServerLive"].live and answers["ServerReady"].ready and answers["ModelReady"].ready
assert answers["ModelInfer"].id == "7" and answers["ModelInfer"].outputs[0].name == "text_output"
assert answers["ModelConfig"].config.input[0].name == "text_input"
stream = list(stub.ModelStreamInfer(iter([infer_request(), infer_request()])))
assert len(stream) == 2 and not any(known(one).error_message for one in stream)
methods = {method.name for method in pb.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods}
refused = methods - set(requests) - {"ModelStreamInfer"}
assert refused == {
    *("SystemSharedMemoryStatus", "SystemSharedMemoryRegister", "SystemSharedMemoryUnregister"),
    *("CudaSharedMemoryStatus", "CudaSharedMemoryRegister", "CudaSharedMemoryUnregister"),
    *("TraceSetting", "LogSettings"),
}, refused
for name in refused:
    method = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods_by_name[name]
    try:
        getattr(stub, name)(getattr(pb, method.input_type.name)())
        raise AssertionError(f"{name} did something")
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.UNIMPLEMENTED, (name, error)
for name, request in {
    "ModelInfer": pb.ModelInferRequest(model_name="nope"),
    "ModelMetadata": pb.ModelMetadataRequest(name="nope"),
    "ModelReady": pb.ModelReadyRequest(name="ensemble", version="9"),
}.items():
    try:
        getattr(stub, name)(request)
        raise AssertionError(f"{name} found what there is not")
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.NOT_FOUND, (name, error)


def ask(path, body=None):
    data = None if body is None else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(url + path, data)) as response:
            return response.status, response.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def message(path, made, body=None, wrap=None):
    """The JSON of a route as a message of the schema: fields that it has not are an error."""
    status, text = ask(path, body)
    assert status == 200, (path, status, text)
    value = json.loads(text)
    return json_format.ParseDict(value if wrap is None else {wrap: value}, made)


for path in ("/v2/health/live", "/v2/health/ready", "/v2/models/ensemble/ready", "/v2/models/ensemble/versions/1/ready"):
    assert ask(path)[0] == 200, path
assert message("/v2", pb.ServerMetadataResponse()).name == "typert"
for base in ("/v2/models/ensemble", "/v2/models/tensorrt_llm", "/v2/models/ensemble/versions/1"):
    assert message(base, pb.ModelMetadataResponse()).inputs
    assert message(f"{base}/config", pb.ModelConfigResponse(), wrap="config").config.input
    assert message(f"{base}/stats", pb.ModelStatisticsResponse()).model_stats
assert message("/v2/models/stats", pb.ModelStatisticsResponse()).model_stats
assert message("/v2/repository/index", pb.RepositoryIndexResponse(), {}, "models").models
for action in ("unload", "load"):
    assert ask(f"/v2/repository/models/ensemble/{action}", {}) == (200, b"{}")
inputs = [
    {"name": "text_input", "datatype": "BYTES", "shape": [1, 1], "data": ["Once"]},
    {"name": "max_tokens", "datatype": "INT32", "shape": [1, 1], "data": [3]},
]
status, text = ask("/v2/models/ensemble/infer", {"id": "7", "inputs": inputs})
answer = json.loads(text)
assert status == 200 and answer["id"] == "7", answer
for output in answer["outputs"]:
    assert len(output.pop("data")) == 1 or output["name"] != "text_output"
json_format.ParseDict(answer, pb.ModelInferResponse())
flat = {"text_input": "Once", "max_tokens": 3}
assert json.loads(ask("/v2/models/ensemble/generate", flat)[1])["model_name"] == "ensemble"
status, text = ask("/v2/models/ensemble/generate_stream", {**flat, "stream": True})
events = [json.loads(line[6:]) for line in text.decode().splitlines() if line.startswith("data: ")]
assert status == 200 and len(events) >= 3 and all("text_output" in event for event in events), events
for path in ("/v2/models/nope", "/v2/models/ensemble/versions/9"):
    status, text = ask(path)
    assert status == 404 and isinstance(json.loads(text)["error"], str), (path, text)
print("ok")
