"""A session with Ollama's own client for Python."""

import ollama

from session import answer, base, question, refused, tls, weather

client = ollama.Client(host=base, verify=tls)

assert [m.model for m in client.list().models] == ["chat", "tools", "vectors"]
assert [m.model for m in client.ps().models] == ["chat", "tools", "vectors"]
assert client.show("tools").capabilities == ["completion", "tools"] and client.show("vectors").capabilities == ["embedding"]

said = client.chat("chat:latest", messages=question, options={"temperature": 0, "num_predict": 64})
assert said.message.content == answer and said.done and said.done_reason == "stop" and said.eval_count > 0 < said.prompt_eval_count, said
pieces = list(client.chat("chat", messages=question, stream=True, think=False, keep_alive=-1))
assert "".join(p.message.content for p in pieces) == answer and len(pieces) > 2 and pieces[-1].done, pieces
assert client.chat("chat", messages=question, options={"num_predict": 1}).done_reason == "length"
assert client.chat("chat").done_reason == "load"

assert client.generate("chat", "Who are you?").response == answer
assert "".join(p.response for p in client.generate("chat", "Who are you?", system="Be brief.", stream=True)) == answer

tools = [{"type": "function", "function": weather}]
for stream in False, True:
    got = client.chat("tools", messages=question, tools=tools, stream=stream)
    calls = [c for p in (got if stream else [got]) for c in p.message.tool_calls or []]
    assert len(calls) == 1 and calls[0].function.name == "weather" and calls[0].function.arguments == {"city": "Rome"}, calls
turns = [*question, {"role": "assistant", "tool_calls": calls}, {"role": "tool", "tool_name": "weather", "content": "sunny"}]
assert client.chat("tools", messages=turns).message.content

vectors = client.embed("vectors", ["aaaa", "bbbb"])
assert len(vectors.embeddings) == 2 and vectors.embeddings[0] != vectors.embeddings[1] and vectors.prompt_eval_count > 0
assert list(client.embeddings("vectors", "aaaa").embedding) == list(vectors.embeddings[0])

refused(ollama.ResponseError, "options.num_ctx", lambda: client.chat("chat", messages=question, options={"num_ctx": 64}))
refused(ollama.ResponseError, "keep_alive", lambda: client.generate("chat", "hi", keep_alive=0))
refused(ollama.ResponseError, "template", lambda: client.generate("chat", "hi", template="{{ .Prompt }}"))
refused(ollama.ResponseError, "format", lambda: client.chat("chat", messages=question, format="json"))
refused(ollama.ResponseError, "no such path", lambda: client.pull("chat"))
refused(ollama.ResponseError, "no such path", lambda: client.delete("chat"))
