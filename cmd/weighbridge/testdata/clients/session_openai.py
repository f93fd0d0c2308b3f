"""A session with OpenAI's own client."""

import json

import httpx2
import openai

from session import answer, base, question, refused, release, tls, weather

client = openai.OpenAI(base_url=base + "/v1", api_key="none", http_client=httpx2.Client(verify=tls), max_retries=0)

assert [m.id for m in client.models.list()] == ["chat", "tools", "vectors"]
assert client.models.retrieve("chat").model_extra["release"] == release

raw = client.chat.completions.with_raw_response.create(model="chat", messages=question, temperature=0, seed=1, max_completion_tokens=64)
assert raw.headers["weighbridge-release"] == release
said = raw.parse()
assert said.choices[0].message.content == answer and said.choices[0].finish_reason == "stop", said
assert said.usage.total_tokens == said.usage.prompt_tokens + said.usage.completion_tokens > 0

text, used = "", None
for piece in client.chat.completions.create(model="chat", messages=question, stream=True, stream_options={"include_usage": True}):
    text += "".join(c.delta.content or "" for c in piece.choices)
    used = piece.usage or used
assert text == answer and used == said.usage, (text, used)

tools = [{"type": "function", "function": weather}]
turns = list(question)
called = client.chat.completions.create(model="tools", messages=turns, tools=tools).choices[0]
call = called.message.tool_calls[0]
assert called.finish_reason == "tool_calls" and call.function.name == "weather" and json.loads(call.function.arguments) == {"city": "Rome"}, called
turns += [called.message.model_dump(include={"role", "content", "tool_calls"}), {"role": "tool", "tool_call_id": call.id, "content": "sunny"}]
assert client.chat.completions.create(model="tools", messages=turns, tools=tools, tool_choice="none").choices[0].message.content
with client.chat.completions.stream(model="tools", messages=question, tools=tools) as events:
    for _ in events:
        pass
    streamed = events.get_final_completion().choices[0].message.tool_calls[0].function
assert streamed.name == "weather" and json.loads(streamed.arguments) == {"city": "Rome"}, streamed

done = client.completions.create(model="chat", prompt="Once", max_tokens=64)
assert done.choices[0].text == answer, done
assert "".join(p.choices[0].text for p in client.completions.create(model="chat", prompt="Once", stream=True)) == answer

vectors = client.embeddings.create(model="vectors", input=["aaaa", "bbbb"])
assert len(vectors.data) == 2 and vectors.data[0].embedding != vectors.data[1].embedding
floats = client.embeddings.create(model="vectors", input="aaaa", encoding_format="float").data[0].embedding
assert max(abs(a - b) for a, b in zip(floats, vectors.data[0].embedding)) < 1e-6

refused(openai.BadRequestError, "lora", lambda: client.chat.completions.create(model="chat", messages=question, extra_body={"lora": [{"id": 0, "scale": 1}]}))
refused(openai.BadRequestError, "tools[0].function.name", lambda: client.chat.completions.create(model="chat", messages=question, tools=tools))
refused(openai.PermissionDeniedError, "permission denied", lambda: client.chat.completions.create(model="other", messages=question))
