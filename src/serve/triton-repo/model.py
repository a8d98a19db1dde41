# Triton's Python backend in front of a running TypeRT: tensors in, the same request over KServe v2, tensors out. Written by `typert triton-repo`; the same file for every model.
# Needs what the backend brings along (numpy) and nothing else. Settings come from config.pbtxt, the API key from the environment (TYPERT_API_KEY).
import json
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from urllib.parse import quote, urlsplit

import numpy as np
import triton_python_backend_utils as pb_utils


def parameter(config, name, default=None):
    return config.get("parameters", {}).get(name, {}).get("string_value", default)


def datatype(config_type):
    """TYPE_STRING of a configuration is BYTES on the wire."""
    name = config_type.removeprefix("TYPE_")
    return "BYTES" if name == "STRING" else name


class Refused(Exception):
    pass


class TritonPythonModel:
    def initialize(self, args):
        config = json.loads(args["model_config"])
        url = urlsplit(parameter(config, "typert_url", "http://127.0.0.1:8000"))
        self.address = (url.hostname, url.port or (443 if url.scheme == "https" else 80))
        self.connection = HTTPSConnection if url.scheme == "https" else HTTPConnection
        self.path = f"{url.path.rstrip('/')}/v2/models/{quote(parameter(config, 'typert_model'), safe='')}"
        self.timeout = float(parameter(config, "typert_timeout", "600"))
        self.decoupled = config.get("model_transaction_policy", {}).get("decoupled", False)
        self.types = {entry["name"]: datatype(entry["data_type"]) for entry in config["input"]}
        self.numpy_types = {
            entry["name"]: pb_utils.triton_string_to_numpy(entry["data_type"]) for entry in config["output"]
        }
        self.threads = ThreadPoolExecutor(max_workers=int(parameter(config, "typert_concurrency", "512")))
        self.open = set()
        self.lock = threading.Lock()

    def execute(self, requests):
        if self.decoupled:
            # Responses go out by their senders; requests run side by side, so that TypeRT batches them.
            for request in requests:
                self.threads.submit(self.stream, request, request.get_response_sender())
            return None
        return list(self.threads.map(self.answer, requests))

    def finalize(self):
        with self.lock:
            for connection in self.open:
                connection.close()
        self.threads.shutdown(wait=False, cancel_futures=True)

    def answer(self, request):
        try:
            last = None
            for last in self.responses(request, lambda: False):
                pass
            return last
        except (Refused, OSError, HTTPException, ValueError) as error:
            return pb_utils.InferenceResponse(error=pb_utils.TritonError(f"typert: {error}"))

    def stream(self, request, sender):
        try:
            for response in self.responses(request, sender.is_cancelled):
                sender.send(response)
        except (Refused, OSError, HTTPException, ValueError) as error:
            sender.send(pb_utils.InferenceResponse(error=pb_utils.TritonError(f"typert: {error}")))
        finally:
            sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)

    def responses(self, request, cancelled):
        """Asks TypeRT; leaving the loop closes the connection, which ends the request there."""
        body = {"id": request.request_id(), "inputs": [self.encode(tensor) for tensor in request.inputs()]}
        wanted = request.requested_output_names()
        if wanted:
            body["outputs"] = [{"name": name} for name in wanted]
        headers = {"content-type": "application/json"}
        if key := os.environ.get("TYPERT_API_KEY"):
            headers["authorization"] = f"Bearer {key}"
        connection = self.connection(*self.address, timeout=self.timeout)
        with self.lock:
            self.open.add(connection)
        try:
            connection.request("POST", f"{self.path}/infer_stream", json.dumps(body), headers)
            reply = connection.getresponse()
            if reply.status != 200:
                raise Refused(message(reply.read()))
            # Server-sent events; comments come while nothing else does.
            for line in reply:
                if cancelled():
                    return
                if not line.startswith(b"data: "):
                    continue
                event = json.loads(line[6:])
                if "error" in event:
                    raise Refused(event["error"])
                yield pb_utils.InferenceResponse(output_tensors=[self.decode(entry) for entry in event["outputs"]])
        finally:
            with self.lock:
                self.open.discard(connection)
            connection.close()

    def encode(self, tensor):
        array = tensor.as_numpy()
        name = tensor.name()
        data = array.ravel().tolist()
        if self.types[name] == "BYTES":
            data = [text.decode("utf-8") if isinstance(text, bytes) else str(text) for text in data]
        return {"name": name, "datatype": self.types[name], "shape": list(array.shape), "data": data}

    def decode(self, entry):
        data = entry["data"]
        if entry["datatype"] == "BYTES":
            data = [text.encode("utf-8") for text in data]
        array = np.array(data, dtype=self.numpy_types[entry["name"]]).reshape(entry["shape"])
        return pb_utils.Tensor(entry["name"], array)


def message(body):
    try:
        return json.loads(body)["error"]
    except (ValueError, KeyError, TypeError):
        return body.decode("utf-8", "replace")[:200] or "no answer"
