// npm ai with @ai-sdk/openai.
import { createOpenAI } from '@ai-sdk/openai';
import {
  embedMany, generateSpeech, generateText, isStepCount, jsonSchema, Output, streamText, tool, transcribe,
} from 'ai';
import { city, instructions, picture, sound, weather } from './things.mjs';

globalThis.AI_SDK_LOG_WARNINGS = false; // of settings that a model does not know

const sdk = (p) => createOpenAI({ apiKey: p.key, baseURL: p.baseURL, headers: p.header, fetch: p.fetch });
const limits = (p) => ({ maxRetries: p.retries, abortSignal: AbortSignal.timeout(p.timeoutMS) });
const asked = (p, model = sdk(p).chat(p.model)) => ({ model, instructions, prompt: p.prompt, ...limits(p) });
const tools = {
  get_weather: tool({ description: weather.description, inputSchema: jsonSchema(weather.parameters), execute: () => '21 degrees' }),
};

// The id of an answer, unless the SDK has made it up.
const idOf = (response) => response.id.replace(/^aitxt-.*/, 'made up');

// What generateText makes of an answer, without what it makes up (times and ids of its own).
function noted({ text, finishReason, usage, toolCalls, toolResults, response }) {
  return { text, finishReason, usage, toolCalls, toolResults, id: idOf(response), model: response.modelId };
}

async function whole(settings, saw) {
  const result = await generateText(settings);
  saw.chunks = result.steps.map(noted);
  saw.data = noted(result);
  return result;
}

async function events(settings, saw, more = () => true) {
  saw.chunks = [];
  const result = streamText({ ...settings, onError: () => {} });
  for await (const part of result.stream) {
    if (part.type === 'error') throw part.error;
    const { request, response, performance, ...rest } = part;
    saw.chunks.push(response ? { ...rest, id: idOf(response), model: response.modelId } : rest);
    if (part.type === 'text-delta' && !more()) break;
  }
}

function abort(p, model, saw) {
  const controller = new AbortController();
  let taken = 0;
  return events({ ...asked(p, model), abortSignal: controller.signal }, saw, () => {
    if (++taken < p.take) return true;
    p.leave();
    controller.abort();
    return false;
  });
}

export const calls = {
  chat: (p, saw) => whole(asked(p), saw),
  completion: (p, saw) => whole({ ...asked(p, sdk(p).completion(p.model)), instructions: undefined }, saw),
  streamedCompletion: (p, saw) => events({ ...asked(p, sdk(p).completion(p.model)), instructions: undefined }, saw),
  response: (p, saw) => whole(asked(p, sdk(p).responses(p.model)), saw),
  tools: (p, saw) => whole({ ...asked(p), tools, stopWhen: isStepCount(2) }, saw),
  streamWithUsage: (p, saw) => events(asked(p), saw),
  streamedTools: (p, saw) => events({ ...asked(p), tools }, saw),
  streamedResponse: (p, saw) => events(asked(p, sdk(p).responses(p.model)), saw),
  abort: (p, saw) => abort(p, undefined, saw),
  abortResponse: (p, saw) => abort(p, sdk(p).responses(p.model), saw),

  image(p, saw) {
    const content = [{ type: 'text', text: p.prompt }, { type: 'file', mediaType: 'image/png', data: picture }];
    return whole({ ...asked(p), prompt: undefined, messages: [{ role: 'user', content }] }, saw);
  },

  async structured(p, saw) {
    const output = Output.object({ name: 'city', schema: jsonSchema(city) });
    saw.parsed = (await whole({ ...asked(p), output }, saw)).output;
  },

  async embeddings(p, saw) {
    const { embeddings, usage } = await embedMany({ model: sdk(p).embedding(p.model), values: [p.prompt, 'two'], ...limits(p) });
    saw.data = { embeddings, usage, model: p.model };
  },

  async speech(p, saw) {
    const { audio } = await generateSpeech({ model: sdk(p).speech(p.model), text: p.prompt, voice: 'alloy', ...limits(p) });
    saw.data = audio.base64;
  },

  async transcription(p, saw) {
    const { text } = await transcribe({ model: sdk(p).transcription(p.model), audio: sound, ...limits(p) });
    saw.data = { text };
  },
};

export function described(error) {
  // After retries, the last of several errors; its text counts the attempts.
  const { name, statusCode, message, responseBody, isRetryable, data } = error.lastError ?? error;
  const cause = error.cause?.name;
  return { class: error.constructor.name, name, status: statusCode, message, responseBody, isRetryable, data, cause };
}
