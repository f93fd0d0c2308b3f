"""A session with Anthropic's own client."""

import anthropic
import httpx2

from session import answer, base, question, refused, release, schema, tls

client = anthropic.Anthropic(base_url=base, api_key="none", http_client=httpx2.Client(verify=tls), max_retries=0)

models = client.models.list()
assert [m.id for m in models] == ["chat", "tools", "vectors"] and models.data[0].type == "model"
assert client.models.retrieve("chat").display_name == "chat"

raw = client.messages.with_raw_response.create(
    model="chat", max_tokens=64, messages=question, extra_body={"temperature": 0}, metadata={"user_id": "u"},
    system=[{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
)
assert raw.headers["weighbridge-release"] == release
said = raw.parse()
assert said.id == "msg_" + said._request_id
assert said.content[0].text == answer and said.stop_reason == "end_turn" and said.role == "assistant", said
assert client.messages.create(model="chat", max_tokens=1, messages=question).stop_reason == "max_tokens"

with client.messages.stream(model="chat", max_tokens=64, messages=question, system="Be brief.") as stream:
    assert "".join(stream.text_stream) == answer
    final = stream.get_final_message()
assert final.stop_reason == "end_turn" and final.usage.input_tokens == said.usage.input_tokens and final.usage.output_tokens == said.usage.output_tokens, final

counted = client.messages.count_tokens(model="chat", messages=question, system="Be brief.")
assert counted.input_tokens == said.usage.input_tokens, (counted, said.usage)

tools = [{"name": "weather", "description": "The weather in a city.", "input_schema": schema}]
called = client.messages.create(model="tools", max_tokens=64, messages=question, tools=tools)
use = called.content[-1]
assert called.stop_reason == "tool_use" and use.type == "tool_use" and use.name == "weather" and use.input == {"city": "Rome"}, called
with client.messages.stream(model="tools", max_tokens=64, messages=question, tools=tools, tool_choice={"type": "auto", "disable_parallel_tool_use": True}) as stream:
    streamed = stream.get_final_message().content[-1]
assert streamed.name == "weather" and streamed.input == {"city": "Rome"}, streamed
turns = [*question, {"role": "assistant", "content": called.content}, {"role": "user", "content": [{"type": "tool_result", "tool_use_id": use.id, "content": "sunny"}]}]
after = client.messages.create(model="tools", max_tokens=64, messages=turns, tools=tools, tool_choice={"type": "none"})
assert after.usage.input_tokens > called.usage.input_tokens and after.content[0].text, after

refused(anthropic.BadRequestError, "top_k", lambda: client.messages.create(model="chat", max_tokens=1, messages=question, extra_body={"top_k": 1}))
refused(anthropic.BadRequestError, "thinking", lambda: client.messages.create(model="chat", max_tokens=1, messages=question, thinking={"type": "enabled", "budget_tokens": 1024}))
refused(anthropic.PermissionDeniedError, "permission denied", lambda: client.messages.create(model="other", max_tokens=1, messages=question))
refused(anthropic.NotFoundError, "no such path", lambda: client.messages.batches.list())
