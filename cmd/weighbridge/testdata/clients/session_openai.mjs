// A session with OpenAI's own client for Node.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const require = createRequire(process.env.CLIENTS + "/package.json");
const { OpenAI } = require("openai");
const { Agent, fetch } = require("undici");

const { GATEWAY, ANSWER, RELEASE, BUNDLE, SVID, KEY } = process.env;
const dispatcher = new Agent({ connect: { ca: readFileSync(BUNDLE), cert: readFileSync(SVID), key: readFileSync(KEY) } });
const client = new OpenAI({ baseURL: GATEWAY + "/v1", apiKey: "none", fetch, fetchOptions: { dispatcher }, maxRetries: 0 });
const messages = [{ role: "user", content: "Who are you?" }];

const ids = [];
for await (const m of client.models.list()) ids.push(m.id);
assert.deepEqual(ids, ["chat", "tools", "vectors"]);

const { data: said, response } = await client.chat.completions.create({ model: "chat", messages, temperature: 0 }).withResponse();
assert.equal(said.choices[0].message.content, ANSWER);
assert.equal(response.headers.get("weighbridge-release"), RELEASE);

let text = "";
for await (const piece of await client.chat.completions.create({ model: "chat", messages, stream: true })) {
  text += piece.choices[0]?.delta?.content ?? "";
}
assert.equal(text, ANSWER);

const schema = { type: "object", properties: { city: { type: "string" } }, required: ["city"] };
const tools = [{ type: "function", function: { name: "weather", parameters: schema } }];
const turns = [...messages];
for (const stream of [client.chat.completions.stream({ model: "tools", messages, tools })]) {
  const called = (await stream.finalChatCompletion()).choices[0];
  assert.equal(called.finish_reason, "tool_calls");
  assert.deepEqual(JSON.parse(called.message.tool_calls[0].function.arguments), { city: "Rome" });
  const { role, content, tool_calls } = called.message;
  turns.push({ role, content, tool_calls: tool_calls.map(({ id, type, function: { name, arguments: args } }) => ({ id, type, function: { name, arguments: args } })) });
  turns.push({ role: "tool", tool_call_id: tool_calls[0].id, content: "sunny" });
}
assert.ok((await client.chat.completions.create({ model: "tools", messages: turns })).choices[0].message.content);

assert.equal((await client.completions.create({ model: "chat", prompt: "Once" })).choices[0].text, ANSWER);

const vectors = await client.embeddings.create({ model: "vectors", input: ["aaaa", "bbbb"] });
assert.equal(vectors.data.length, 2);
assert.notDeepEqual(vectors.data[0].embedding, vectors.data[1].embedding);

await assert.rejects(client.chat.completions.create({ model: "chat", messages, chat_template: "x" }), (e) => e.status === 400 && e.param === "chat_template");
await assert.rejects(client.chat.completions.create({ model: "other", messages }), (e) => e.status === 403 && e.code === "permission_denied");
await dispatcher.close();
