# The real Python clients against a running server: arguments are its URL, its gRPC port, and the text that the model says. Prints what it could not import and exits with 3.
import sys

url, grpc_port, expected = sys.argv[1:4]
try:
    import numpy as np
    import openai
    import tritonclient.grpc as tg
    import tritonclient.http as th
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

results = []
grpc.start_stream(lambda result, error: results.append((result, error)))
grpc.async_stream_infer("ensemble", inputs(tg, True), request_id="1")
grpc.stop_stream()
assert all(error is None for _, error in results)
streamed = b"".join(result.as_numpy("text_output")[0] for result, _ in results).decode()
assert "Once upon a time" + streamed == binary, (streamed, binary)
print("ok")
