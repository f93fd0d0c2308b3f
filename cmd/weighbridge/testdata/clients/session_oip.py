"""A session with Triton's client, by the Open Inference Protocol over gRPC."""

import numpy as np
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from session import answer, bundle, grpc, key, refused, release, svid

client = triton.InferenceServerClient(grpc, ssl=True, root_certificates=bundle, private_key=key, certificate_chain=svid)


def ask(model, *texts, version="", **parameters):
    text = triton.InferInput("text_input", [len(texts)], "BYTES")
    text.set_data_from_numpy(np.array([t.encode() for t in texts], dtype=np.object_))
    return client.infer(model, [text], model_version=version, parameters=parameters)


assert client.is_server_live() and client.is_server_ready() and client.is_model_ready("chat", release)
assert client.get_server_metadata().name == "weighbridge"
assert list(client.get_model_metadata("chat").versions) == [release]
for operation in "chat", "generate":
    said = ask("chat", "Who are you?", version=release, operation=operation, max_tokens=64)
    assert said.as_numpy("text_output")[0].decode() == answer and said.get_response().model_version == release, said.get_response()
vectors = ask("vectors", "aaaa", "bbbb", operation="embed").as_numpy("embedding")
assert vectors.shape[0] == 2 and vectors.dtype == np.float32 and (vectors[0] != vectors[1]).any(), vectors
refused(InferenceServerException, "another version", lambda: ask("chat", "hi", version="sha256:" + "0" * 64))
refused(InferenceServerException, "permission denied", lambda: ask("other", "hi"))
refused(InferenceServerException, "lora", lambda: ask("chat", "hi", lora=1))
refused(InferenceServerException, "UNIMPLEMENTED", lambda: client.load_model("chat"))
