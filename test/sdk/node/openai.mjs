// npm openai.
import OpenAI, { toFile } from 'openai';
import { city, instructions, pictureURL, sound, weather } from './things.mjs';

const tools = [{ type: 'function', function: weather }];
const format = { type: 'json_schema', json_schema: { name: 'city', strict: true, schema: city } };
const user = (p) => [{ role: 'system', content: instructions }, { role: 'user', content: p.prompt }];
const chat = (p) => ({ model: p.model, messages: user(p) });

const client = (p) =>
  new OpenAI({
    apiKey: p.key,
    baseURL: p.baseURL,
    defaultHeaders: p.header,
    maxRetries: p.retries,
    timeout: p.timeoutMS,
    fetch: p.fetch,
  });

const whole = async (asked, saw) => (saw.data = await asked);

async function events(asked, saw, more = () => true) {
  saw.chunks = [];
  for await (const event of await asked) {
    saw.chunks.push(event);
    if (!more()) break;
  }
}

// Each call gets its part of the plan, and the object in which to note what it sees.
export const calls = {
  chat: (p, saw) => whole(client(p).chat.completions.create(chat(p)), saw),
  chatWithoutMessages: (p, saw) => whole(client(p).chat.completions.create({ model: p.model, messages: [] }), saw),
  completion: (p, saw) => whole(client(p).completions.create({ model: p.model, prompt: p.prompt }), saw),
  streamedCompletion: (p, saw) => events(client(p).completions.create({ model: p.model, prompt: p.prompt, stream: true }), saw),
  embeddings: (p, saw) => whole(client(p).embeddings.create({ model: p.model, input: [p.prompt, 'two'] }), saw),
  response: (p, saw) => whole(client(p).responses.create({ model: p.model, input: p.prompt }), saw),
  files: (p, saw) => whole(client(p).files.list(), saw),

  image(p, saw) {
    const content = [{ type: 'text', text: p.prompt }, { type: 'image_url', image_url: { url: pictureURL } }];
    return whole(client(p).chat.completions.create({ model: p.model, messages: [{ role: 'user', content }] }), saw);
  },

  async structured(p, saw) {
    const answer = await client(p).chat.completions.parse({ ...chat(p), response_format: format });
    saw.data = answer;
    saw.parsed = JSON.parse(answer.choices[0].message.content);
  },

  async tools(p, saw) {
    const messages = user(p);
    const asked = await client(p).chat.completions.create({ model: p.model, messages, tools });
    const { message } = asked.choices[0];
    messages.push(message, { role: 'tool', tool_call_id: message.tool_calls[0].id, content: '21 degrees' });
    saw.chunks = [asked];
    await whole(client(p).chat.completions.create({ model: p.model, messages, tools }), saw);
  },

  async models(p, saw) {
    saw.chunks = [];
    for await (const model of client(p).models.list()) saw.chunks.push(model);
    await whole(client(p).models.retrieve(p.model), saw);
  },

  async speech(p, saw) {
    const response = await client(p).audio.speech.create({ model: p.model, input: p.prompt, voice: 'alloy' });
    saw.data = Buffer.from(await response.arrayBuffer()).toString('base64');
  },

  async transcription(p, saw) {
    const file = await toFile(sound, 'hello.wav', { type: 'audio/wav' });
    await whole(client(p).audio.transcriptions.create({ model: p.model, file }), saw);
  },

  stream: (p, saw) => events(client(p).chat.completions.create({ ...chat(p), stream: true }), saw),
  streamWithUsage: (p, saw) =>
    events(client(p).chat.completions.create({ ...chat(p), stream: true, stream_options: { include_usage: true } }), saw),
  streamedResponse: (p, saw) => events(client(p).responses.create({ model: p.model, input: p.prompt, stream: true }), saw),

  async streamedTools(p, saw) {
    saw.chunks = [];
    const run = client(p).chat.completions.stream({ ...chat(p), tools, stream_options: { include_usage: true } });
    run.on('chunk', (chunk) => saw.chunks.push(chunk));
    saw.data = await run.finalChatCompletion(); // put together by the SDK
  },

  async abort(p, saw) {
    const controller = new AbortController();
    const asked = client(p).chat.completions.create({ ...chat(p), stream: true }, { signal: controller.signal });
    await events(asked, saw, () => {
      if (saw.chunks.length < p.take) return true;
      p.leave();
      controller.abort();
      return false;
    });
  },

  async abortResponse(p, saw) {
    const controller = new AbortController();
    const asked = client(p).responses.create({ model: p.model, input: p.prompt, stream: true }, { signal: controller.signal });
    await events(asked, saw, () => {
      if (saw.chunks.length < p.take) return true;
      p.leave();
      controller.abort();
      return false;
    });
  },
};

export function described(error) {
  const { status, code, type, param, message } = error;
  return { class: error.constructor.name, status, code, type, param, message };
}
