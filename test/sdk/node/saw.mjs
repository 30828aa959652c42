// Runs the calls of a plan with the openai SDK and prints, one line of JSON for each, what the SDK saw.
// The plan comes on stdin: {proxy, calls: [{name, call, model, prompt, baseURL, key, header, retries, timeoutMS, take}]}.
// With a proxy, requests go to it as to any HTTP proxy; without, to where the base URL says.
import { File } from 'node:buffer';
import { json } from 'node:stream/consumers';
import OpenAI, { toFile } from 'openai';
import { ProxyAgent, setGlobalDispatcher } from 'undici';

globalThis.File ??= File; // Node 18, which is Debian's, has it here only, and the SDK wants it there
const plan = await json(process.stdin);
if (plan.proxy) {
  // Node's own fetch knows no proxy. undici's asks for a tunnel (CONNECT) even to where a URL is plain http, as
  // its support in later versions does; the sidecar lets it end there.
  setGlobalDispatcher(new ProxyAgent({ uri: plan.proxy }));
}

const weather = {
  type: 'function',
  function: {
    name: 'get_weather',
    description: 'The weather of a city',
    parameters: { type: 'object', properties: { city: { type: 'string' } } },
  },
};
const city = {
  type: 'json_schema',
  json_schema: {
    name: 'city',
    strict: true,
    schema: { type: 'object', properties: { city: { type: 'string' } }, required: ['city'], additionalProperties: false },
  },
};

const user = (p) => [{ role: 'system', content: 'Answer briefly.' }, { role: 'user', content: p.prompt }];
const chat = (p) => ({ model: p.model, messages: user(p) });

// Each call gets the client, its part of the plan, and the object in which to note what it sees.
const calls = {
  chat: (client, p, saw) => whole(client.chat.completions.create(chat(p)), saw),
  chatWithoutMessages: (client, p, saw) => whole(client.chat.completions.create({ model: p.model, messages: [] }), saw),
  completion: (client, p, saw) => whole(client.completions.create({ model: p.model, prompt: p.prompt }), saw),
  embeddings: (client, p, saw) => whole(client.embeddings.create({ model: p.model, input: [p.prompt, 'two'] }), saw),
  response: (client, p, saw) => whole(client.responses.create({ model: p.model, input: p.prompt }), saw),
  files: (client, p, saw) => whole(client.files.list(), saw),

  async structured(client, p, saw) {
    await whole(client.chat.completions.create({ ...chat(p), response_format: city }), saw);
    saw.parsed = JSON.parse(saw.data.choices[0].message.content);
  },

  async tools(client, p, saw) {
    const messages = user(p);
    const asked = await client.chat.completions.create({ model: p.model, messages, tools: [weather] });
    const { message } = asked.choices[0];
    messages.push(message, { role: 'tool', tool_call_id: message.tool_calls[0].id, content: '21 degrees' });
    saw.chunks = [asked];
    await whole(client.chat.completions.create({ model: p.model, messages, tools: [weather] }), saw);
  },

  async models(client, p, saw) {
    saw.chunks = [];
    for await (const model of client.models.list()) saw.chunks.push(model);
    await whole(client.models.retrieve(p.model), saw);
  },

  async speech(client, p, saw) {
    const response = await client.audio.speech.create({ model: p.model, input: p.prompt, voice: 'alloy' });
    head(response, saw);
    saw.data = Buffer.from(await response.arrayBuffer()).toString('base64');
  },

  async transcription(client, p, saw) {
    const file = await toFile(Buffer.alloc(100_000, 7), 'hello.wav', { type: 'audio/wav' });
    await whole(client.audio.transcriptions.create({ model: p.model, file }), saw);
  },

  stream: (client, p, saw) => events(client.chat.completions.create({ ...chat(p), stream: true }), saw),
  streamWithUsage: (client, p, saw) =>
    events(client.chat.completions.create({ ...chat(p), stream: true, stream_options: { include_usage: true } }), saw),
  streamedResponse: (client, p, saw) =>
    events(client.responses.create({ model: p.model, input: p.prompt, stream: true }), saw),

  async streamedTools(client, p, saw) {
    saw.chunks = [];
    const run = client.chat.completions.stream({ ...chat(p), tools: [weather], stream_options: { include_usage: true } });
    run.on('chunk', (chunk) => saw.chunks.push(chunk));
    saw.data = await run.finalChatCompletion(); // put together by the SDK
  },

  async abort(client, p, saw) {
    const controller = new AbortController();
    const asked = client.chat.completions.create({ ...chat(p), stream: true }, { signal: controller.signal });
    await events(asked, saw, () => {
      if (saw.chunks.length < p.take) return true;
      saw.endedAt = Date.now();
      controller.abort();
      return false;
    });
  },
};

function head(response, saw) {
  saw.status = response.status;
  saw.header = Object.fromEntries(response.headers);
}

async function whole(asked, saw) {
  const { data, response } = await asked.withResponse();
  head(response, saw);
  saw.data = data;
}

async function events(asked, saw, more = () => true) {
  saw.chunks = [];
  const { data: stream, response } = await asked.withResponse();
  head(response, saw);
  for await (const event of stream) {
    saw.chunks.push(event);
    if (!more()) break;
  }
}

function described(error) {
  const { status, code, type, param, message } = error;
  return { class: error.constructor.name, status, code, type, param, message };
}

for (const p of plan.calls) {
  const client = new OpenAI({
    apiKey: p.key,
    baseURL: p.baseURL,
    defaultHeaders: p.header,
    maxRetries: p.retries,
    timeout: p.timeoutMS,
  });
  const saw = {};
  try {
    await calls[p.call](client, p, saw);
  } catch (error) {
    saw.error = described(error);
    if (error.headers) saw.header = Object.fromEntries(error.headers);
  }
  saw.endedAt ??= Date.now();
  console.log(JSON.stringify({ name: p.name, saw }));
}
process.exit(0); // without waiting for kept connections
