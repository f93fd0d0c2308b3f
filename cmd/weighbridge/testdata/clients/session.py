"""What the sessions share: where the gateway is, and the identity by which it is asked."""

import os
import ssl

base = os.environ["GATEWAY"]
answer = os.environ["ANSWER"]  # of the channel chat; tools calls weather for Rome, and vectors makes embeddings
release = os.environ["RELEASE"]  # that chat answers by

tls = ssl.create_default_context(cafile=os.environ["BUNDLE"])
tls.load_cert_chain(os.environ["SVID"], os.environ["KEY"])

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
