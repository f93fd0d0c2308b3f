"""What the sessions share: where the gateway is, and the identity by which it is asked."""

import os
import ssl

base = os.environ["GATEWAY"]
grpc = os.environ["GRPC"]  # HOST:PORT
answer = os.environ["ANSWER"]  # of the channel chat; tools calls weather for Rome, and vectors makes embeddings
release = os.environ["RELEASE"]  # that chat answers by

bundle, svid, key = os.environ["BUNDLE"], os.environ["SVID"], os.environ["KEY"]
tls = ssl.create_default_context(cafile=bundle)
tls.load_cert_chain(svid, key)

question = [{"role": "user", "content": "Who are you?"}]
schema = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
weather = {"name": "weather", "description": "The weather in a city.", "parameters": schema}


def refused(kind, text, ask):
    """Expects an error of this kind that says this."""
    try:
        ask()
    except kind as e:
        assert text in str(e), f"{e!r} does not say {text!r}"
    else:
        raise AssertionError(f"nothing was refused, want {text!r}")
