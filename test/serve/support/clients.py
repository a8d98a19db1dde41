# The real Python clients against a running server: arguments are its URL, its gRPC port, and the text that the model says. Prints what it could not import and exits with 3.
import json
import sys
from typing import Literal

url, grpc_port, expected = sys.argv[1:4]
try:
    import numpy as np
    import openai
    import tritonclient.grpc as tg
    import tritonclient.http as th
    from pydantic import BaseModel
    from tritonclient.utils import InferenceServerException
except ImportError as error:
    print(error)
    sys.exit(3)

client = openai.OpenAI(base_url=f"{url}/v1", api_key="none")
question = dict(
    model="story",
    messages=[{"role": "user", "content": "A story about a fox"}],
    temperature=0,
    max_tokens=12,
)
assert client.chat.completions.create(**question).choices[0].message.content == expected
parts = client.chat.completions.create(**question, stream=True)
assert "".join(part.choices[0].delta.content or "" for part in parts) == expected
response = client.responses.create(model="story", input="A story about a fox", temperature=0, max_output_tokens=12)
assert response.output_text == expected
assert client.responses.retrieve(response.id).output_text == expected
with client.responses.stream(model="story", input="A story about a fox", temperature=0, max_output_tokens=12) as stream:
    words = "".join(event.delta for event in stream if event.type == "response.output_text.delta")
assert words == expected
client.responses.delete(response.id)
try:
    client.responses.retrieve(response.id)
    raise AssertionError("a deleted response is still there")
except openai.NotFoundError:
    pass

schema = {
    "type": "object",
    "properties": {"animal": {"enum": ["fox", "owl"]}, "old": {"type": "boolean"}},
    "required": ["animal", "old"],
    "additionalProperties": False,
}
free = dict(question, max_tokens=150)
wanted = {"type": "json_schema", "json_schema": {"name": "animal", "schema": schema, "strict": True}}
answer = client.chat.completions.create(**free, response_format=wanted)
assert json.loads(answer.choices[0].message.content).keys() == {"animal", "old"}


class Animal(BaseModel):
    kind: Literal["fox", "owl"]
    old: bool


parsed = client.chat.completions.parse(**free, response_format=Animal).choices[0].message.parsed
assert isinstance(parsed, Animal)
tools = [{"type": "function", "function": {"name": "look", "parameters": schema}}]
for choice in ["required", {"type": "function", "function": {"name": "look"}}]:
    (call,) = (
        client.chat.completions.create(**free, tools=tools, tool_choice=choice, parallel_tool_calls=False)
        .choices[0]
        .message.tool_calls
    )
    assert call.function.name == "look" and json.loads(call.function.arguments)["animal"] in ("fox", "owl")
assert client.chat.completions.create(**question, tools=tools, tool_choice="none").choices[0].message.content == expected
try:
    client.embeddings.create(model="story", input="x")
    raise AssertionError("a model of texts gave an embedding")
except openai.NotFoundError as error:
    assert "embeddings" in error.message


def inputs(module, stream=False):
    text = module.InferInput("text_input", [1, 1], "BYTES")
    text.set_data_from_numpy(np.array([["Once upon a time"]], dtype=object))
    tokens = module.InferInput("max_tokens", [1, 1], "INT32")
    tokens.set_data_from_numpy(np.array([[6]], dtype=np.int32))
    flag = module.InferInput("stream", [1, 1], "BOOL")
    flag.set_data_from_numpy(np.array([[stream]]))
    return [text, tokens, flag]


http = th.InferenceServerClient(url.removeprefix("http://"))
assert http.is_server_live() and http.is_server_ready() and http.is_model_ready("ensemble")
binary = http.infer("ensemble", inputs(th)).as_numpy("text_output")[0].decode()
plain = [th.InferRequestedOutput("text_output", binary_data=False)]
assert http.infer("ensemble", inputs(th), outputs=plain).as_numpy("text_output")[0] == binary

grpc = tg.InferenceServerClient(f"127.0.0.1:{grpc_port}")
assert grpc.is_server_live() and grpc.is_server_ready() and grpc.is_model_ready("ensemble")
assert grpc.get_model_config("ensemble").config.model_transaction_policy.decoupled
assert grpc.infer("ensemble", inputs(tg)).as_numpy("text_output")[0].decode() == binary

for client in (http, grpc):
    assert client.get_server_metadata() and client.get_model_metadata("tensorrt_llm")
    assert client.get_model_repository_index() and client.get_inference_statistics("ensemble")
    client.unload_model("story")
    assert not client.is_model_ready("story")
    client.load_model("story")
    assert client.is_model_ready("story")


def ids(module):
    made = []
    for name, value in (("input_ids", [[5, 6, 7]]), ("input_lengths", [[3]]), ("request_output_len", [[4]])):
        array = np.array(value, dtype=np.int32)
        made.append(module.InferInput(name, array.shape, "INT32"))
        made[-1].set_data_from_numpy(array)
    return made


both = [client.infer("tensorrt_llm", ids(module)).as_numpy("output_ids") for client, module in ((http, th), (grpc, tg))]
assert both[0].shape == (1, 1, 7) and np.array_equal(*both), both
for client, module in ((http, th), (grpc, tg)):
    wrong = module.InferInput("text_input", [1, 1], "INT32")
    wrong.set_data_from_numpy(np.array([[1]], dtype=np.int32))
    try:
        client.infer("ensemble", [wrong])
        raise AssertionError("a wrong datatype was taken")
    except InferenceServerException as error:
        assert "wrong datatype" in error.message()

results = []
grpc.start_stream(lambda result, error: results.append((result, error)))
grpc.async_stream_infer("ensemble", inputs(tg, True), request_id="1")
grpc.stop_stream()
assert all(error is None for _, error in results)
streamed = b"".join(result.as_numpy("text_output")[0] for result, _ in results).decode()
assert "Once upon a time" + streamed == binary, (streamed, binary)
print("ok")
